"""Verbs on versions: promote, roll back, share, pin, prefetch; what stays loaded and what can be gone back to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from adapters.errors import AdapterConflictError, RegistryError
from adapters.name import AdapterReference
from serve.access.caller import Caller
from serve.engine.scripted import Script
from serve.errors import AdapterMissingError, LifecycleError, ProbeFailedError, UnknownModelError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from tests.serve.lifecycle.conftest import Bench

MakeBench = Callable[..., Bench]


async def load_aside(bench: Bench, seed: int, name: str = "risk") -> str:
    """Load without promoting; returns the version's name."""
    source = bench.source(f"seed-{seed}", seed=seed)
    outcome = await bench.manager.load(name, source, actor="test", promote=False)
    return str(outcome.managed.version)


async def test_a_load_without_promotion_answers_under_its_own_name_alone(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    new = await load_aside(made, 1)
    assert (made.speaker(), made.speaker(new)) == (old, new)
    assert made.held == sorted([old, new])
    again = await made.manager.load("risk", "seed-1", actor="test", promote=False)
    assert not again.created
    first = await load_aside(made, 2, "tone")
    assert made.speaker(first) == first
    with pytest.raises(UnknownModelError):
        made.speaker("tone")


async def test_promotion_moves_the_alias_and_the_old_version_can_be_gone_back_to(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    new = await load_aside(made, 1)
    moved = await made.manager.promote("risk", new, actor="test")
    assert (str(moved.managed.version), moved.moved, str(moved.left)) == (new, True, old)
    assert made.speaker() == new
    await made.drained()
    assert made.held == [new]
    again = await made.manager.promote("risk", new.partition("@")[2], actor="test")
    assert (again.moved, again.left) == (False, None)
    back = await made.manager.rollback("risk", actor="test")
    assert (str(back.managed.version), str(back.left)) == (old, new)
    assert made.speaker() == old
    assert back.managed.probe is not None, "it was probed again before it answered"
    await made.drained()
    forth = await made.manager.rollback("risk", actor="test")
    assert str(forth.managed.version) == made.speaker() == new


async def test_a_version_that_drains_goes_straight_back_at_a_rollback(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    with made.board.lease("risk", param="adapter"):
        await made.load("risk", 1)
        scored = len(made.engine.scored)
        await made.manager.rollback("risk", actor="test")
        assert made.speaker() == old
        assert len(made.engine.scored) == scored, "it never left the engine"


@pytest.mark.parametrize("verb", ["promote", "rollback", "pin", "prefetch"])
@pytest.mark.parametrize("fault", ["load", "probe", "files", "registry"])
async def test_whatever_fails_leaves_what_was_live_serving(
    bench: MakeBench, verb: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    old = await made.load("risk", 0)
    live = await made.load("risk", 1)
    await made.drained()
    kind: type[Exception] = LifecycleError
    if fault == "load":
        made.engine.script.load_error = "out of slots"
    elif fault == "probe":
        made.engine.script.no_effect, kind = True, ProbeFailedError
    elif fault == "files":
        made.lose(made.registry.get(AdapterReference("risk", old.partition("@")[2])).version.digest)
        (made.root / "seed-0").rename(made.root / "gone")
    else:

        def fail(*_: object, **__: object) -> None:
            raise RegistryError("the disk is gone")

        kind = RegistryError
        for write in ("set_alias", "set_pinned", "set_loaded"):
            monkeypatch.setattr(made.registry, write, fail)
    arguments = () if verb == "rollback" else (old,)
    with pytest.raises(kind):
        await getattr(made.manager, verb)("risk", *arguments, actor="test")
    await made.drained()
    assert made.speaker() == live
    assert made.held == [live]
    record = made.registry.name("risk")
    assert (record.live or "")[:8] == live.partition("@")[2]
    assert not any(version.pinned or version.loaded for version in record.versions)


async def test_a_verb_that_expects_another_version_changes_nothing(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    new = await load_aside(made, 1)
    for wrong in (new, "none", "risk@00000000", "x", ""):
        with pytest.raises(AdapterConflictError, match=f"is {old}"):
            await made.manager.promote("risk", new, actor="test", expected_live=wrong)
        with pytest.raises(AdapterConflictError):
            await made.manager.load("risk", "seed-1", actor="test", expected_live=wrong)
    assert made.speaker() == old
    await made.manager.promote("risk", new, actor="test", expected_live=old)
    await made.manager.load("risk", "seed-0", actor="test", expected_live=new.partition("@")[2])
    await made.manager.load("tone", "seed-0", actor="test", expected_live="none")
    with pytest.raises(AdapterConflictError, match="not live"):
        await made.manager.load("other", "seed-0", actor="test", expected_live=old)


async def test_what_is_not_known_cannot_be_moved(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    manager = made.manager
    for version in ("00000000", "risk@00000000", "tone@00000000", "x", "", "%" * 300):
        for verb in (manager.promote, manager.pin, manager.unpin, manager.prefetch, manager.unload_version):
            with pytest.raises(AdapterMissingError) as missing:
                await verb("risk", version, actor="test")
            assert len(str(missing.value)) < 300
    with pytest.raises(AdapterMissingError, match="'tone'"):
        await manager.rollback("tone", actor="test")
    with pytest.raises(AdapterConflictError, match="no version to go back to"):
        await manager.rollback("risk", actor="test")


async def test_a_pinned_version_stays_when_the_alias_goes(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    await made.manager.pin("risk", old, actor="test")
    await made.manager.pin("risk", old, actor="test")
    new = await made.load("risk", 1)
    assert (made.speaker(), made.speaker(old)) == (new, old)
    with pytest.raises(AdapterConflictError, match="is pinned"):
        await made.manager.unload_version("risk", old, actor="test")
    assert await made.manager.unpin("risk", old, actor="test")
    assert not await made.manager.unpin("risk", old, actor="test")
    await made.drained()
    assert made.held == [new]
    pinned = await made.manager.pin("risk", old, actor="test")  # it is brought up for it
    assert (pinned.state, made.speaker(old)) == (AdapterState.LIVE, old)


async def test_a_prefetched_version_waits_until_the_alias_has_come_and_gone(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    new = await made.load("risk", 1)
    await made.drained()
    await made.manager.prefetch("risk", old, actor="test")
    assert (made.speaker(), made.speaker(old)) == (new, old)
    loads = len(made.engine.scored)
    await made.manager.promote("risk", old, actor="test")
    assert len(made.engine.scored) == loads, "it was loaded and proven before"
    await made.manager.promote("risk", new, actor="test")
    await made.drained()
    assert made.held == [new]


async def test_one_version_can_be_unloaded_and_brought_back(bench: MakeBench) -> None:
    made = bench()
    live = await made.load("risk", 0)
    aside = await load_aside(made, 1)
    with pytest.raises(AdapterConflictError, match="is what 'risk' means"):
        await made.manager.unload_version("risk", live, actor="test")
    for _ in range(2):
        gone = await made.manager.unload_version("risk", aside, actor="test")
        assert str(gone) == aside
        assert made.held == [live]
    with pytest.raises(UnknownModelError):
        made.speaker(aside)
    await made.manager.promote("risk", aside, actor="test")
    assert made.speaker() == aside


async def test_shares_bring_canaries_up_and_take_them_down(bench: MakeBench) -> None:
    made = bench()
    stable = await made.load("risk", 0)
    canary = await load_aside(made, 1)
    await made.manager.unload_version("risk", canary, actor="test")
    short = canary.partition("@")[2]
    plan = await made.manager.set_traffic("risk", TrafficPlan(shares={short: 0.5}), actor="test")
    (digest,) = plan.shares
    assert digest == made.registry.get(AdapterReference("risk", short)).version.digest
    assert made.board.traffic("risk") == plan
    assert {made.speaker() for _ in range(200)} == {stable, canary}
    with pytest.raises(AdapterConflictError, match="has a share"):
        await made.manager.unload_version("risk", canary, actor="test")
    assert await made.manager.clear_traffic("risk", actor="test") == plan
    assert await made.manager.clear_traffic("risk", actor="test") is None
    await made.drained()
    assert made.held == [stable]
    assert {made.speaker() for _ in range(50)} == {stable}


async def test_callers_that_stick_stay_with_one_version(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    short = (await load_aside(made, 1)).partition("@")[2]
    await made.manager.set_traffic("risk", TrafficPlan(shares={short: 0.5}, sticky="session"), actor="test")
    for number in range(20):
        assert len({made.speaker(session=f"s{number}") for _ in range(5)}) == 1
    await made.manager.set_traffic("risk", TrafficPlan(shares={short: 0.5}, sticky="key"), actor="test")
    for number in range(20):
        caller = Caller("key:1", key_id=str(number))
        assert len({made.speaker(caller=caller) for _ in range(5)}) == 1


async def test_a_shadow_is_named_beside_the_version_that_answers(bench: MakeBench) -> None:
    made = bench()
    stable = await made.load("risk", 0)
    shadow = await load_aside(made, 1)
    short = shadow.partition("@")[2]
    await made.manager.set_traffic("risk", TrafficPlan(shadow={short: 1.0}), actor="test")
    with made.board.lease("risk", param="adapter") as lease:
        assert (lease.version, str(lease.shadow.version if lease.shadow else None)) == (stable, shadow)
        assert lease.shadow is not None
        assert lease.shadow.in_flight == 1
    assert lease.shadow.in_flight == 0


async def test_a_canary_that_fails_is_answered_for_by_the_stable_version(bench: MakeBench) -> None:
    made = bench()
    stable = await made.load("risk", 0)
    canary = await load_aside(made, 1)
    await made.manager.set_traffic("risk", TrafficPlan(shares={canary.partition("@")[2]: 1.0}), actor="test")
    assert made.speaker() == canary
    found = [m for m in made.board.versions("risk") if str(m.version) == canary]
    found[0].advance(AdapterState.FAILED, "broken")
    assert made.speaker() == stable


@pytest.mark.parametrize("verb", ["promote", "rollback", "load"])
async def test_a_plan_ends_when_the_alias_moves(bench: MakeBench, verb: str) -> None:
    made = bench()
    await made.load("risk", 0)
    await made.load("risk", 1)
    canary = await load_aside(made, 2)
    await made.manager.set_traffic("risk", TrafficPlan(shares={canary.partition("@")[2]: 0.9}), actor="test")
    if verb == "promote":
        await made.manager.promote("risk", canary, actor="test")
    elif verb == "rollback":
        await made.manager.rollback("risk", actor="test")
    else:
        await made.load("risk", 3)
    assert made.board.traffic("risk") is None
    assert made.registry.name("risk").plan is None
    assert len({made.speaker() for _ in range(50)}) == 1


async def test_a_plan_needs_a_stable_version_beside_others(bench: MakeBench) -> None:
    made = bench()
    aside = (await load_aside(made, 1)).partition("@")[2]
    plan = TrafficPlan(shares={aside: 0.5})
    with pytest.raises(AdapterConflictError, match="Nothing is live"):
        await made.manager.set_traffic("risk", plan, actor="test")
    await made.manager.promote("risk", aside, actor="test")
    with pytest.raises(AdapterConflictError, match="gets what the others leave"):
        await made.manager.set_traffic("risk", plan, actor="test")
    with pytest.raises(AdapterMissingError):
        await made.manager.set_traffic("risk", TrafficPlan(shares={"0" * 8: 0.5}), actor="test")


async def test_a_plan_whose_canary_cannot_come_up_is_not_made(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    live = await made.load("risk", 1)
    await made.drained()
    old = made.registry.name("risk").previous
    made.engine.script = Script(load_error="out of slots")
    with pytest.raises(LifecycleError):
        await made.manager.set_traffic("risk", TrafficPlan(shares={old or "": 0.5}), actor="test")
    assert made.registry.name("risk").plan is None
    assert {made.speaker() for _ in range(20)} == {live}


async def test_only_the_newest_versions_are_kept_and_those_that_are_held(bench: MakeBench) -> None:
    made = bench(keep_versions=2)
    versions = [await made.load("risk", seed) for seed in range(2)]
    await made.manager.pin("risk", versions[0], actor="test")
    versions += [await made.load("risk", seed) for seed in range(2, 6)]
    await made.drained()
    versions.append(await made.load("risk", 6))
    await made.drained()
    await made.manager.clear_traffic("risk", actor="test")  # any verb on the name looks what may go
    kept = [str(record.version) for record in made.registry.list_versions("risk")]
    assert kept == [versions[0], *versions[-2:]]
    assert len(made.store.list()) == 3
    assert made.speaker(versions[0]) == versions[0]
    await made.manager.rollback("risk", actor="test")
    assert made.speaker() == versions[-2]


async def test_old_files_stay_while_another_name_has_the_content(bench: MakeBench) -> None:
    made = bench(keep_versions=1)
    await made.load("tone", 0)
    for seed in range(3):
        await made.load("risk", seed)
        await made.drained()
    await made.manager.clear_traffic("risk", actor="test")
    assert len(made.registry.list_versions("risk")) == 2  # live and the one before
    assert len(made.store.list()) == 3
    assert made.speaker("tone").startswith("tone@")


async def test_a_load_that_fails_leaves_no_version_behind(bench: MakeBench) -> None:
    made = bench()
    made.engine.script = Script(no_effect=True)
    with pytest.raises(ProbeFailedError):
        await made.load("risk", 0)
    assert made.registry.list_versions() == []
    assert made.store.list() == []
    assert [managed.state for managed in made.board.versions()] == [AdapterState.FAILED]


async def test_failures_without_end_take_no_memory_without_end(bench: MakeBench) -> None:
    made = bench()
    made.engine.script = Script(load_error="out of slots")
    for seed in range(12):
        with pytest.raises(LifecycleError):
            await made.load("risk", seed)
    assert len(made.board.versions()) == 8
    assert made.store.list() == []


async def test_a_dry_run_stores_nothing_and_asks_the_engine_nothing(bench: MakeBench) -> None:
    made = bench()
    good = made.source("good")
    report = await made.manager.validate(good, actor="alice")
    assert not report.problems
    (made.root / good / "adapter_config.json").write_text("{}")
    bad = await made.manager.validate_folder(made.root / good, actor="alice")
    assert bad.problems
    await made.manager.close()
    events = [record.event for record in made.registry.list_events()]
    assert [(e.actor, e.action, e.outcome) for e in events] == [("alice", "validate", "done")] * 2
    assert events[1].detail == {"source": "good", "problems": []}
    assert events[0].detail["problems"]
    assert (made.store.list(), made.registry.list_versions(), made.board.versions()) == ([], [], [])
    assert made.engine.scored == []


async def test_what_was_refused_is_written_down_with_its_reason(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    with pytest.raises(AdapterConflictError):
        await made.manager.rollback("risk", actor="bob")
    await made.manager.close()
    event = made.registry.list_events(action="rollback")[0].event
    assert (event.actor, event.outcome, event.name) == ("bob", "adapter_conflict", "risk")
    assert "no version to go back to" in str(event.detail["reason"])


async def test_events_are_in_the_order_of_the_verbs(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    await load_aside(made, 1)
    aside = made.registry.list_versions("risk")[1].version.short
    await made.manager.pin("risk", aside, actor="test")
    await made.manager.promote("risk", aside, actor="test")
    await made.manager.rollback("risk", actor="test")
    await made.manager.unload("risk", actor="test")
    await made.manager.close()
    actions = [record.event.action for record in made.registry.list_events(without_actions=["state"])]
    assert actions == ["unload", "rollback", "promote", "pin", "load", "load"]


async def test_a_name_that_stays_in_use_after_its_unload_leaves_nothing_when_it_is_let_go(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.lifecycle.retirement._ABORT_SECONDS", 0.01)
    made = bench()
    version = await made.load("risk", 0)
    with made.board.lease("risk", param="adapter"):
        with pytest.raises(LifecycleError, match="still in use"):
            await made.manager.unload("risk", actor="test", drain_seconds=0)
        assert made.registry.list_versions() == []
        assert made.held == [version]
        assert len(made.store.list()) == 1, "the engine may read it again"
    await made.drained()
    await made.manager.close()
    assert (made.held, made.store.list(), made.board.versions()) == ([], [], [])


async def test_a_probe_that_is_asked_again_says_when_the_answer_has_changed(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    managed = made.board.behind("risk")
    assert managed is not None
    await made.manager.probe_again(managed)
    made.engine.script.no_effect = True
    with pytest.raises(ProbeFailedError):
        await made.manager.probe_again(managed)
    assert managed.state is AdapterState.LIVE


async def test_desired_and_actual_state_stand_side_by_side(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    new = await made.load("risk", 1)
    canary = await load_aside(made, 2)
    await made.manager.set_traffic("risk", TrafficPlan(shares={canary.partition("@")[2]: 0.25}), actor="test")
    await made.drained()
    (status,) = made.manager.statuses()
    assert (str(status.desired), str(status.live), str(status.previous)) == (new, new, old)
    assert (status.settled, status.reason) == (True, None)
    assert status.traffic is not None
    states = {str(one.version): (one.state, one.wanted, one.live, one.share) for one in status.versions}
    assert states == {
        old: (AdapterState.REGISTERED, False, False, 0.0),
        new: (AdapterState.LIVE, True, True, 0.0),
        canary: (AdapterState.LIVE, True, False, 0.25),
    }
    assert made.manager.status("nobody") is None


async def test_a_verb_that_is_cancelled_while_it_commits_is_done(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    await made.load("risk", 0)
    new = await load_aside(made, 1)
    committing, genuine = asyncio.Event(), made.registry.set_alias
    loop = asyncio.get_running_loop()

    def slow(*arguments: object, **named: object) -> object:
        loop.call_soon_threadsafe(committing.set)
        return genuine(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(made.registry, "set_alias", slow)
    promoting = asyncio.create_task(made.manager.promote("risk", new, actor="test"))
    await committing.wait()
    promoting.cancel()
    assert (await promoting).moved
    assert made.speaker() == new
    assert (made.registry.name("risk").live or "").startswith(new.partition("@")[2])
