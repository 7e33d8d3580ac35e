"""Who may use the admin API."""

from __future__ import annotations

import hmac

import pytest

from serve.access.authority import MAX_KEY_BYTES, Authority, hash_key
from serve.errors import AdminDisabledError, MissingKeyError

KEY = "0123456789abcdef-the-key"


@pytest.fixture
def guarded() -> Authority:
    return Authority(key=KEY, open_without_key=True)


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_key_opens(guarded: Authority, scheme: bytes) -> None:
    assert guarded.admin([scheme + b" " + KEY.encode()]).name == "admin"
    assert guarded.enabled


def test_a_digest_stands_for_its_key() -> None:
    guarded = Authority(key=f"sha256:{hash_key(KEY.encode()).hex()}", open_without_key=False)
    assert guarded.admin([b"Bearer " + KEY.encode()]).name == "admin"
    with pytest.raises(MissingKeyError):
        guarded.admin([b"Bearer sha256:" + hash_key(KEY.encode()).hex().encode()])


@pytest.mark.parametrize(
    "given",
    [
        [],
        [b""],
        [KEY.encode()],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer wrong"],
        [b"Bearer " + KEY.encode() + b" "],
        [b"Bearer  " + KEY.encode()],
        [b"Basic " + KEY.encode()],
        [b"Bearer " + KEY.encode(), b"Bearer " + KEY.encode()],
        [b"Bearer wrong", b"Bearer " + KEY.encode()],
        [b"Bearer \xff\xfe\x00"],
        ["Bearer schlüssel-\U0001f511".encode()],
        [b"Bearer " + b"k" * 65536],
        [b"Bearer " + KEY.encode() + b"k" * MAX_KEY_BYTES],
    ],
)
def test_anything_else_does_not(guarded: Authority, given: list[bytes]) -> None:
    with pytest.raises(MissingKeyError) as refused:
        guarded.admin(given)
    assert KEY not in str(refused.value)


def test_keys_are_compared_in_constant_time(guarded: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    genuine = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return genuine(one, other)

    monkeypatch.setattr("serve.access.authority.hmac.compare_digest", noting)
    with pytest.raises(MissingKeyError):
        guarded.admin([b"Bearer wrong"])
    with pytest.raises(MissingKeyError):
        guarded.admin([])  # no key costs what a wrong key costs
    assert [len(one) == len(other) == 32 for one, other in compared] == [True, True]


def test_without_a_key_this_machine_may_and_nobody_else() -> None:
    assert Authority(key=None, open_without_key=True).admin([]).name == "local"
    closed = Authority(key=None, open_without_key=False)
    assert not closed.enabled
    with pytest.raises(AdminDisabledError, match="HOTSWAP_ADMIN_KEY"):
        closed.admin([b"Bearer " + KEY.encode()])


def test_the_key_itself_is_not_kept(guarded: Authority) -> None:
    assert KEY not in repr(vars(guarded))
