"""What a caller may use."""

from __future__ import annotations

import pytest

from serve.access.caller import ANYONE, Caller
from serve.access.salts import CacheSalts


@pytest.mark.parametrize(
    ("allowed", "alias", "may"),
    [
        (None, "risk", True),
        (None, None, True),
        ((), "risk", False),
        ((), None, False),
        (("risk",), "risk", True),
        (("risk",), "risky", False),
        (("risk",), None, False),
        (("risk*",), "risk", True),
        (("risk*",), "risk-v2", True),
        (("risk*",), "tone", False),
        (("*",), "anything", True),
        (("*",), None, False),
        (("b*", "ba?e", "*"), None, False),
        (("base",), None, True),
        (("base",), "tone", False),
        (("ton?",), "tone", True),
        (("ton?",), "TONE", False),
    ],
)
def test_a_key_reaches_what_its_names_and_patterns_mean(
    allowed: tuple[str, ...] | None, alias: str | None, may: bool
) -> None:
    caller = Caller("key:1", adapters=frozenset(allowed) if allowed is not None else None)
    assert caller.may_use(alias) is may


def test_tenants_have_salts_of_their_own_and_whoever_has_no_key_has_none() -> None:
    salts, other_process = CacheSalts(), CacheSalts()
    one, same, other = (
        Caller(f"key:{key_id}", tenant=tenant, key_id=key_id)
        for key_id, tenant in (("1", "acme"), ("2", "acme"), ("3", "bmce"))
    )
    assert salts.of(one) == salts.of(same) != salts.of(other)
    assert salts.of(one) != other_process.of(one)
    assert salts.of(ANYONE) is None
    assert salts.of(Caller("admin", admin=True)) is None
    assert "acme" not in str(salts.of(one))
