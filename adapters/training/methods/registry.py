"""Every way to adapt a base, by the name that `--method` takes. Adding one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.training.methods import (
    adalora,
    dora,
    full,
    loftq,
    lora,
    loraplus,
    olora,
    pissa,
    prefix,
    prompt,
    rslora,
)
from adapters.training.methods.method import Method

METHODS: Mapping[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (lora, rslora, loraplus, dora, pissa, olora, loftq, adalora, full, prefix, prompt)
}
