"""Constraints vetted by a real compiler in a process of its own, which is killed when it takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from bases.tiny import make_tiny_base
from serve.engine import grammar
from serve.engine.grammar import GrammarGuard
from serve.engine.protocol import Constraint
from serve.errors import BusyError, GrammarError

SCHEMA = Constraint("json_schema", '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("grammar") / "tiny")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm_guard(tiny_base: Path) -> AsyncIterator[GrammarGuard]:
    """One process for all that a real compiler says; its imports take seconds."""
    guard = GrammarGuard(enabled=True, tokenizer_path=tiny_base, compile_seconds=20.0)
    await guard.warm()
    yield guard
    pid = pid_of(guard)
    await guard.close()
    assert not psutil.pid_exists(pid)


def pid_of(guard: GrammarGuard) -> int:
    assert guard._process is not None
    return guard._process.pid


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "constraint",
    [
        SCHEMA,
        Constraint("json_schema", "{}"),
        Constraint("regex", "[a-z]{2,5}"),
        Constraint("choice", ("yes", "no")),
        Constraint("choice", ('say "no"', "back\\slash", "new\nline", "é")),
        Constraint("json_object", ""),
        None,
    ],
    ids=repr,
)
async def test_what_compiles_is_taken(warm_guard: GrammarGuard, constraint: Constraint | None) -> None:
    await warm_guard.check(constraint)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("json_schema", '{"type":"nonsense"}'),
        Constraint("regex", "(unclosed"),
        Constraint("regex", "[z-a]"),
        Constraint("json_schema", '{"$ref":"#"}'),
    ],
    ids=repr,
)
async def test_what_does_not_compile_is_the_clients_error(
    warm_guard: GrammarGuard, constraint: Constraint
) -> None:
    pid = pid_of(warm_guard)
    with pytest.raises(GrammarError, match=f"this {constraint.kind} cannot be used") as refused:
        await warm_guard.check(constraint)
    assert refused.value.param == "response_format"
    assert len(str(refused.value)) < 500
    assert ".cc:" not in str(refused.value)  # where in the compiler's sources it fails is nobody's business
    await warm_guard.check(SCHEMA)
    assert pid_of(warm_guard) == pid  # the compiler lived through it


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_that_come_together_are_answered_each_with_its_own(warm_guard: GrammarGuard) -> None:
    good = [Constraint("regex", f"a{{{count}}}") for count in range(1, 6)]
    bad = [Constraint("regex", f"({count}") for count in range(5)]
    mixed = [constraint for pair in zip(good, bad, strict=True) for constraint in pair]
    verdicts = await asyncio.gather(*map(warm_guard.check, mixed), return_exceptions=True)
    assert [isinstance(verdict, GrammarError) for verdict in verdicts] == [False, True] * 5


def scripted_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> GrammarGuard:
    """A guard whose process is a few lines of shell: it says it is ready, then does `body` for each line."""
    script = tmp_path / "worker"
    counter = tmp_path / "starts"
    script.write_text(
        f"#!/bin/sh\necho start >> {counter}\necho '{{\"ready\": true}}'\nwhile read -r line; do\n{body}\ndone\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr("serve.engine.grammar.sys.executable", str(script))
    return GrammarGuard(enabled=True, tokenizer_path=tmp_path, compile_seconds=0.2)


def starts(tmp_path: Path) -> int:
    return len((tmp_path / "starts").read_text().splitlines())


ACCEPT = "echo '{\"reason\": null}'"


async def test_a_compile_that_takes_too_long_is_killed_and_the_next_one_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = f'case "$line" in *slow*) exec sleep 600;; *) {ACCEPT};; esac'
    guard = scripted_worker(monkeypatch, tmp_path, body)
    await guard.check(Constraint("regex", "quick"))
    pid = pid_of(guard)
    with pytest.raises(GrammarError, match=r"longer than 0\.2 s"):
        await guard.check(Constraint("regex", "slow"))
    assert not psutil.pid_exists(pid)
    await guard.check(Constraint("regex", "other"))
    assert starts(tmp_path) == 2
    await guard.close()


async def test_a_compiler_that_dies_refuses_that_constraint_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = f'case "$line" in *deadly*) exit 9;; *) {ACCEPT};; esac'
    guard = scripted_worker(monkeypatch, tmp_path, body)
    with pytest.raises(GrammarError, match="the compiler ended on it"):
        await guard.check(Constraint("regex", "deadly"))
    await guard.check(Constraint("regex", "harmless"))
    assert starts(tmp_path) == 2
    await guard.close()


async def test_verdicts_are_remembered_and_the_oldest_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grammar, "MAX_REMEMBERED", 3)
    asked = tmp_path / "asked"
    guard = scripted_worker(monkeypatch, tmp_path, f'echo "$line" >> {asked}; {ACCEPT}')
    for pattern in ("a", "b", "c", "a", "d", "a", "b"):  # b was used longest ago when d came
        await guard.check(Constraint("regex", pattern))
    patterns = [line.partition('"value":"')[2][0] for line in asked.read_text().splitlines()]
    assert patterns == ["a", "b", "c", "d", "b"]
    await guard.close()


async def test_a_bad_verdict_is_remembered_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    guard = scripted_worker(monkeypatch, tmp_path, f'echo x >> {asked}; echo \'{{"reason": "it is bad"}}\'')
    for _ in range(3):
        with pytest.raises(GrammarError, match="it is bad"):
            await guard.check(Constraint("regex", "a"))
    assert len(asked.read_text().splitlines()) == 1
    await guard.close()


async def test_a_compile_whose_client_left_goes_on_and_its_answer_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who asks and leaves, over and over, cannot keep the compiler from starting."""
    seen, go = tmp_path / "seen", tmp_path / "go"
    refuse = 'echo \'{"reason": "slow"}\''
    held = f"touch {seen}; while [ ! -e {go} ]; do sleep 0.01; done; {refuse}"
    body = f'case "$line" in *slow*) {held};; *) {ACCEPT};; esac'
    guard = scripted_worker(monkeypatch, tmp_path, body)
    guard._compile_seconds = 60.0
    check = asyncio.create_task(guard.check(Constraint("regex", "slow")))
    async with asyncio.timeout(30):
        while not seen.exists():
            await asyncio.sleep(0.01)
    good = asyncio.create_task(guard.check(Constraint("regex", "good")))
    left = asyncio.create_task(guard.check(Constraint("regex", "slow too")))
    await asyncio.sleep(0)
    for task in (check, left):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    go.touch()
    await good
    with pytest.raises(GrammarError, match="slow"):
        await guard.check(Constraint("regex", "slow"))  # remembered
    assert Constraint("regex", "slow too") not in guard._verdicts  # nobody wanted to know
    assert starts(tmp_path) == 1
    await guard.close()


async def test_a_tenant_who_sends_slow_ones_delays_anothers_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grammar, "MAX_WAITING", 6)
    asked, go = tmp_path / "asked", tmp_path / "go"
    body = f'echo "$line" >> {asked}; while [ ! -e {go} ]; do sleep 0.01; done; {ACCEPT}'
    guard = scripted_worker(monkeypatch, tmp_path, body)
    guard._compile_seconds = 60.0
    flood = [
        asyncio.create_task(guard.check(Constraint("regex", f"f{number}"), owner="flood"))
        for number in range(6)
    ]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await guard.check(Constraint("regex", "one too many"), owner="flood")
    quiet = asyncio.create_task(guard.check(Constraint("regex", "quiet"), owner="quiet"))
    await asyncio.sleep(0)
    go.touch()
    await asyncio.gather(*flood, quiet)
    patterns = [line.partition('"value":"')[2].partition('"')[0] for line in asked.read_text().splitlines()]
    assert patterns == ["f0", "quiet", *(f"f{number}" for number in range(1, 6))]
    await guard.close()


async def test_more_constraints_than_may_wait_are_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grammar, "MAX_WAITING", 2)
    guard = scripted_worker(monkeypatch, tmp_path, "exec sleep 600")
    guard._compile_seconds = 60.0
    waiting = [asyncio.create_task(guard.check(Constraint("regex", name))) for name in ("a", "a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as busy:
        await guard.check(Constraint("regex", "c"))
    assert busy.value.retry_after_seconds == 60
    await guard.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ended] == [asyncio.CancelledError] * 3


async def test_after_a_kill_the_next_process_starts_before_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guard = scripted_worker(monkeypatch, tmp_path, "exec sleep 600")
    with pytest.raises(GrammarError, match="longer than"):
        await guard.check(Constraint("regex", "slow"))
    async with asyncio.timeout(30):
        while guard._process is None:
            await asyncio.sleep(0.01)
    assert starts(tmp_path) == 2
    await guard.close()


async def test_closing_ends_the_process_and_may_be_done_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guard = scripted_worker(monkeypatch, tmp_path, ACCEPT)
    await guard.warm()
    pid = pid_of(guard)
    await guard.close()
    await guard.close()
    assert not psutil.pid_exists(pid)
    await guard.check(SCHEMA)  # starts another
    assert pid_of(guard) != pid
    await guard.close()


async def test_a_compiler_that_does_not_start_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("serve.engine.grammar.sys.executable", "/bin/false")
    guard = GrammarGuard(enabled=True, tokenizer_path=tmp_path, compile_seconds=1.0)
    with pytest.raises(GrammarError, match="does not start"):
        await guard.check(SCHEMA)
    await guard.close()


async def test_switched_off_everything_is_refused_and_nothing_started(tmp_path: Path) -> None:
    guard = GrammarGuard(enabled=False, tokenizer_path=tmp_path, compile_seconds=1.0)
    await guard.warm()
    await guard.check(None)
    for constraint in (SCHEMA, Constraint("json_object", "")):
        with pytest.raises(GrammarError, match="switched off"):
            await guard.check(constraint)
    assert guard._process is None


async def test_without_a_tokenizer_nothing_is_compiled() -> None:
    guard = GrammarGuard(enabled=True, tokenizer_path=None, compile_seconds=1.0)
    await guard.warm()
    await guard.check(SCHEMA)
    assert guard._process is None
