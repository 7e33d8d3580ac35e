"""Who is calling, and who may use the admin API."""

from __future__ import annotations

import hmac
from datetime import timedelta

import pytest

from serve.access.api_key import hash_key, make_key
from serve.access.authority import MAX_KEY_BYTES, Authority
from serve.access.caller import ANYONE
from serve.access.keyring import KeyRing
from serve.errors import AdminDisabledError, KeysUnavailableError, MissingKeyError, ScopeError
from tests.serve.access.conftest import MortalTable, Time, add_key

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
    with pytest.raises(MissingKeyError):
        guarded.identify([b"Bearer " + make_key().text.encode()])
    assert guarded.identify([b"Bearer " + KEY.encode()]).admin  # and the right one too
    assert [len(one) == len(other) == 32 for one, other in compared] == [True] * 8


def test_without_a_key_this_machine_may_and_nobody_else() -> None:
    assert Authority(key=None, open_without_key=True).admin([]).name == "local"
    closed = Authority(key=None, open_without_key=False)
    assert not closed.enabled
    with pytest.raises(AdminDisabledError, match="HOTSWAP_ADMIN_KEY"):
        closed.admin([b"Bearer " + KEY.encode()])


def test_the_key_itself_is_not_kept(guarded: Authority) -> None:
    assert KEY not in repr(vars(guarded))


def bearer(text: str) -> list[bytes]:
    return [b"Bearer " + text.encode()]


@pytest.fixture
async def keyed(ring: KeyRing) -> Authority:
    """As on an address that others can reach."""
    await ring.refresh()
    return Authority(key=KEY, open_without_key=False, required=True, keys=ring)


async def test_a_key_of_the_registry_names_its_caller(keyed: Authority, ring: KeyRing) -> None:
    text = await add_key(ring, tenant="acme", weight=2.5)
    caller = keyed.identify(bearer(text))
    assert (caller.key_id, caller.tenant, caller.weight) == (text.split("_")[1], "acme", 2.5)
    with pytest.raises(ScopeError):
        keyed.admin(bearer(text))
    admin = await add_key(ring, admin=True)
    assert keyed.admin(bearer(admin)).name == f"key:{admin.split('_')[1]}"
    assert keyed.admin(bearer(KEY)).name == keyed.identify(bearer(KEY)).name == "admin"


async def test_a_wrong_a_revoked_an_expired_and_an_unknown_key_are_one(
    keyed: Authority, ring: KeyRing, time: Time
) -> None:
    right = await add_key(ring)
    revoked = await add_key(ring)
    await ring.revoke(revoked.split("_")[1], actor="test")
    expired = await add_key(ring, expires_at=time.now() + timedelta(seconds=1))
    time.seconds += 1
    wrong_secret = right[:-64] + "0" * 64
    refusals = set()
    for authorization in (
        [],
        bearer(revoked),
        bearer(expired),
        bearer(wrong_secret),
        bearer(make_key().text),
        bearer(right + "0"),
        bearer(right[:-1]),
        bearer(right) * 2,
        [b"Bearer \xff\xfe"],
        [b"Bearer " + b"k" * 65536],
    ):
        for ask in (keyed.identify, keyed.admin, keyed.metrics):
            with pytest.raises(MissingKeyError) as refused:
                ask(authorization)
            refusals.add(str(refused.value))
    assert len(refusals) == 1


async def test_where_no_key_is_needed_one_of_ours_is_checked_all_the_same(ring: KeyRing) -> None:
    await ring.refresh()
    right = await add_key(ring)
    without_admin_key = Authority(key=None, open_without_key=True, keys=ring)
    with_admin_key = Authority(key=KEY, open_without_key=True, keys=ring)
    for authority in (without_admin_key, with_admin_key):
        assert authority.identify([]) == ANYONE
        assert authority.identify(bearer(right)).tenant == "acme"
        for wrong in (
            bearer(right[:-64] + "0" * 64),
            bearer(make_key().text),
            bearer("hsk_"),
            bearer(right) * 2,
        ):
            with pytest.raises(MissingKeyError):
                authority.identify(wrong)
            with pytest.raises(MissingKeyError):
                authority.admin(wrong)
    # Clients that must send something: nothing that could be mistyped is there.
    assert without_admin_key.identify(bearer("not-needed")) == ANYONE
    assert without_admin_key.admin(bearer("not-needed")).name == "local"
    with pytest.raises(MissingKeyError):
        with_admin_key.identify(bearer("not-needed"))
    with pytest.raises(ScopeError):  # whoever sends a key is that key, also on this machine
        without_admin_key.admin(bearer(right))


async def test_an_admin_key_of_the_registry_opens_a_server_without_the_root_key(ring: KeyRing) -> None:
    await ring.refresh()
    authority = Authority(key=None, open_without_key=False, required=True, keys=ring)
    admin = await add_key(ring, admin=True)
    assert authority.admin(bearer(admin)).admin
    for authorization in ([], bearer(make_key().text)):
        with pytest.raises(AdminDisabledError):
            authority.admin(authorization)


async def test_a_silent_registry_closes_the_door_in_the_end_but_for_the_root_key(
    keyed: Authority, ring: KeyRing, table: MortalTable, time: Time
) -> None:
    right = await add_key(ring)
    time.seconds += 60
    assert keyed.identify(bearer(right)).tenant == "acme"
    time.seconds += 1
    for authorization in (bearer(right), bearer(make_key().text)):  # no word on which of them is right
        with pytest.raises(KeysUnavailableError) as refused:
            keyed.identify(authorization)
        assert refused.value.retry_after_seconds > 0
    assert keyed.identify(bearer(KEY)).admin
    with pytest.raises(MissingKeyError):
        keyed.identify([])


async def test_metrics_need_a_scope_where_requests_need_a_key(keyed: Authority, ring: KeyRing) -> None:
    reader = await add_key(ring, metrics=True, adapters=())
    assert keyed.metrics(bearer(reader)).metrics
    assert keyed.metrics(bearer(KEY)).admin
    with pytest.raises(ScopeError):
        keyed.metrics(bearer(await add_key(ring)))
    assert Authority(key=KEY, open_without_key=True, keys=ring).metrics([]) == ANYONE


async def test_a_use_is_noted_and_a_wrong_key_is_none(
    keyed: Authority, ring: KeyRing, table: MortalTable
) -> None:
    right = await add_key(ring)
    with pytest.raises(MissingKeyError):
        keyed.identify(bearer(right[:-64] + "0" * 64))
    await ring.close()
    assert table.get(right.split("_")[1]).last_used_at is None
    keyed.identify(bearer(right))
    await ring.close()
    assert table.get(right.split("_")[1]).last_used_at is not None
