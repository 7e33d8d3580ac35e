"""Every scheme by name. A new one is a file with a SCHEME, and one line here."""

from __future__ import annotations

from quantize.errors import QuantizeSettingsError
from quantize.schemes import (
    awq_w4a16,
    fp8_dynamic,
    gptq_w4a16,
    gptq_w8a16,
    int8_dynamic,
    int8_w8a8,
    int8_w8a8_rtn,
    int8_w8a8_smooth,
    rtn_w4a16,
)
from quantize.schemes.scheme import Scheme

SCHEMES: dict[str, Scheme] = {
    module.SCHEME.name: module.SCHEME
    for module in (
        gptq_w4a16,
        gptq_w8a16,
        awq_w4a16,
        rtn_w4a16,
        int8_w8a8,
        int8_w8a8_smooth,
        int8_w8a8_rtn,
        int8_dynamic,
        fp8_dynamic,
    )
}


def find_scheme(name: str) -> Scheme:
    """The scheme of that name. Raises QuantizeSettingsError with the names there are."""
    scheme = SCHEMES.get(name)
    if scheme is None:
        listed = "\n".join(f"  {known.name}: {known.summary}" for known in SCHEMES.values())
        raise QuantizeSettingsError(f"There is no scheme {name!r}. There are:\n{listed}")
    return scheme
