"""Names, versions, and who holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.name import AdapterVersion
from serve.access.caller import Caller
from serve.engine.protocol import AdapterHandle
from serve.errors import UnknownModelError
from serve.lifecycle.board import AdapterBoard, AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.version import ManagedVersion, VersionFacts

LIVE = (AdapterState.CHECKED, AdapterState.LOADING, AdapterState.LIVE)


def add(
    board: AdapterBoard, name: str, digest: str, *steps: AdapterState, reason: str | None = None
) -> ManagedVersion:
    version = AdapterVersion(name, digest.ljust(64, "0"))
    managed = ManagedVersion(
        version,
        AdapterHandle(str(version), 1, Path(name)),
        VersionFacts(4, 9, name),
        on_step=lambda *_: None,
    )
    for step in steps:
        managed.advance(step, reason)
    board.add(managed)
    return managed


@pytest.fixture
def board() -> AdapterBoard:
    return AdapterBoard("smol")


def name_behind(board: AdapterBoard, reference: str | None) -> str:
    with board.lease(reference, param="adapter") as lease:
        return lease.engine_name


@pytest.mark.parametrize("reference", [None, "smol"])
def test_the_base_needs_no_lease(board: AdapterBoard, reference: str | None) -> None:
    with board.lease(reference, param="adapter") as lease:
        assert (lease.engine_name, lease.alias, lease.handle) == ("smol", None, None)


def test_an_alias_means_the_version_it_points_at(board: AdapterBoard) -> None:
    first = add(board, "risk", "aaaaaaaa", *LIVE)
    second = add(board, "risk", "bbbbbbbb", *LIVE)
    assert board.point(first) is None
    assert name_behind(board, "risk") == "risk@aaaaaaaa"
    assert board.point(second) is first
    assert board.point(second) is None
    assert name_behind(board, "risk") == "risk@bbbbbbbb"
    assert board.unpoint("risk") is second
    assert board.unpoint("risk") is None
    with pytest.raises(UnknownModelError):
        name_behind(board, "risk")


def test_a_lease_counts_its_version_until_the_block_ends(board: AdapterBoard) -> None:
    managed = add(board, "risk", "aaaaaaaa", *LIVE)
    board.point(managed)
    with pytest.raises(LookupError), board.lease("risk", param="adapter") as lease:
        assert (lease.alias, lease.handle) == ("risk", managed.handle)
        assert managed.in_flight == 1
        raise LookupError
    assert managed.in_flight == 0


def test_a_lease_keeps_its_version_when_the_alias_moves(board: AdapterBoard) -> None:
    first, second = add(board, "risk", "aaaaaaaa", *LIVE), add(board, "risk", "bbbbbbbb", *LIVE)
    board.point(first)
    with board.lease("risk", param="adapter") as lease:
        board.point(second)
        assert lease.engine_name == "risk@aaaaaaaa"
        assert (first.in_flight, second.in_flight) == (1, 0)


def test_a_pinned_version_answers_without_an_alias(board: AdapterBoard) -> None:
    add(board, "risk", "aaaaaaaa", *LIVE)
    assert name_behind(board, "risk@aaaaaaaa") == "risk@aaaaaaaa"
    assert name_behind(board, "risk@" + "aaaaaaaa".ljust(64, "0")) == "risk@aaaaaaaa"


@pytest.mark.parametrize(
    "reference",
    [
        "tone",
        "risk@bbbbbbbb",
        "risk@aaaaaaa",
        "risk@",
        "Risk",
        "../risk",
        "%2e%2e%2frisk",
        "/etc/passwd",
        "r\u0456sk",
        "risk\x00",
        "r" * 10_000,
        "",
        "none",
        "SMOL",
    ],
)
def test_an_unknown_name_is_never_the_base(board: AdapterBoard, reference: str) -> None:
    board.point(add(board, "risk", "aaaaaaaa", *LIVE))
    with pytest.raises(UnknownModelError) as refused:
        name_behind(board, reference)
    assert refused.value.param == "adapter"
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (AdapterState.CHECKED,),
        (AdapterState.CHECKED, AdapterState.LOADING),
        (AdapterState.CHECKED, AdapterState.LOADING, AdapterState.PROBING),
        (*LIVE, AdapterState.DRAINING),
        (*LIVE, AdapterState.DRAINING, AdapterState.UNLOADED),
        (AdapterState.FAILED,),
    ],
)
def test_a_pinned_version_that_is_not_live_is_unknown(
    board: AdapterBoard, steps: tuple[AdapterState, ...]
) -> None:
    add(board, "risk", "aaaaaaaa", *steps)
    with pytest.raises(UnknownModelError):
        name_behind(board, "risk@aaaaaaaa")


def test_an_alias_whose_version_failed_is_unavailable_and_says_why(board: AdapterBoard) -> None:
    board.point(add(board, "risk", "aaaaaaaa", AdapterState.FAILED, reason="its files are damaged"))
    with pytest.raises(AdapterUnavailableError, match="its files are damaged"):
        name_behind(board, "risk")


def test_forgetting_takes_only_what_still_means_that_version(board: AdapterBoard) -> None:
    old = add(board, "risk", "aaaaaaaa", AdapterState.FAILED)
    again = add(board, "risk", "aaaaaaaa", *LIVE)
    board.point(again)
    board.forget(old)
    assert name_behind(board, "risk") == "risk@aaaaaaaa"
    board.forget(again)
    assert board.aliases() == {}
    assert board.versions() == []
    assert board.get(again.version) is None


@pytest.mark.parametrize("reference", ["risk", "risk@aaaaaaaa"])
def test_who_may_not_use_an_adapter_is_told_what_an_unknown_name_is_told(
    board: AdapterBoard, reference: str
) -> None:
    board.point(add(board, "risk", "aaaaaaaa", *LIVE))
    stranger = Caller("key:1", adapters=frozenset({"tone"}))
    with pytest.raises(UnknownModelError) as refused, board.lease(reference, param="model", caller=stranger):
        pass
    board.forget(board.versions()[0])
    with pytest.raises(UnknownModelError) as unknown, board.lease(reference, param="model"):
        pass
    assert (str(refused.value), refused.value.param) == (str(unknown.value), unknown.value.param)


def test_a_name_that_failed_is_not_told_to_who_may_not_use_it(board: AdapterBoard) -> None:
    board.point(add(board, "risk", "aaaaaaaa", AdapterState.FAILED, reason="its files are damaged"))
    stranger = Caller("key:1", adapters=frozenset({"tone"}))
    with pytest.raises(UnknownModelError), board.lease("risk", param="model", caller=stranger):
        pass


@pytest.mark.parametrize("reference", [None, "smol"])
def test_the_base_is_one_of_the_names_that_may_be_used(board: AdapterBoard, reference: str | None) -> None:
    with pytest.raises(UnknownModelError), board.lease(reference, param="model", caller=_may("risk")):
        pass
    with board.lease(reference, param="model", caller=_may("base")) as lease:
        assert lease.version is None


def _may(*names: str) -> Caller:
    return Caller("key:1", adapters=frozenset(names))


def test_an_alias_whose_version_is_on_its_way_is_unavailable_and_not_unknown(board: AdapterBoard) -> None:
    managed = add(board, "risk", "aaaaaaaa", *LIVE)
    board.point(managed)
    managed.returning = True
    managed.advance(AdapterState.LOADING)
    for reference in ("risk", "risk@aaaaaaaa"):
        with pytest.raises(AdapterUnavailableError, match="is being loaded"):
            name_behind(board, reference)


def test_versions_are_counted_by_state_as_they_come_step_and_go(board: AdapterBoard) -> None:
    managed = add(board, "risk", "aaaaaaaa", AdapterState.CHECKED)
    other = add(board, "tone", "aaaaaaaa", *LIVE)
    assert (board.count(AdapterState.CHECKED), board.count(AdapterState.LIVE)) == (1, 1)
    managed.advance(AdapterState.LOADING)
    board.stepped(managed, AdapterState.CHECKED)
    assert (board.count(AdapterState.CHECKED), board.count(AdapterState.LOADING)) == (0, 1)
    again = add(board, "risk", "aaaaaaaa", AdapterState.CHECKED)  # in its place
    board.forget(managed)  # which is not there any more
    board.stepped(managed, AdapterState.LOADING)
    assert (board.count(AdapterState.CHECKED), board.count(AdapterState.LOADING)) == (1, 0)
    board.forget(again)
    board.forget(other)
    assert sum(board.count(state) for state in AdapterState) == 0
    assert board.names() == []


def test_shares_reach_only_versions_that_are_live(board: AdapterBoard) -> None:
    board.point(add(board, "risk", "aaaaaaaa", *LIVE))
    canary = add(board, "risk", "bbbbbbbb", *LIVE[:2])
    board.share("risk", TrafficPlan(shares={canary.version.digest: 1.0}, shadow={"c" * 64: 1.0}))
    with board.lease("risk", param="model") as lease:
        assert (lease.version, lease.shadow) == ("risk@aaaaaaaa", None)
    canary.advance(AdapterState.LIVE)
    assert name_behind(board, "risk") == "risk@bbbbbbbb"
    board.share("risk", None)
    assert name_behind(board, "risk") == "risk@aaaaaaaa"
    assert board.traffic("risk") is None


def test_a_plan_goes_with_its_alias(board: AdapterBoard) -> None:
    board.point(add(board, "risk", "aaaaaaaa", *LIVE))
    board.share("risk", TrafficPlan())
    board.unpoint("risk")
    assert board.traffic("risk") is None


def test_the_first_use_of_what_nobody_has_read_is_told(board: AdapterBoard) -> None:
    managed = add(board, "risk", "aaaaaaaa", *LIVE)
    used: list[ManagedVersion] = []
    board.on_first_use = used.append
    board.point(managed)
    name_behind(board, "risk")
    managed.proven = True
    name_behind(board, "risk")
    assert used == [managed]
