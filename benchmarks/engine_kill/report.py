"""The result for people, as Markdown: on the terminal, and as an entry for benchmarks/LOG.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.trial import Trial
from benchmarks.surroundings import Surroundings

TARGET_OFF_SECONDS = 2.0
_COLUMNS = (
    "| trial | `/readyz` off after | ready again after | in flight | had begun: lost | had sent nothing: lost | "
    "retried | sent away meanwhile | failed later | answered by another version | answered |"
)


def markdown(
    trials: Sequence[Trial],
    plan: Plan,
    *,
    started: datetime,
    command: str,
    surroundings: Surroundings,
    stall_seconds: float,
) -> str:
    """The whole entry."""
    return "\n".join(
        [
            f"## {started:%Y-%m-%d}: the engine is killed and stopped",
            "",
            f"`{command}`",
            "",
            surroundings.line() + ".",
            "",
            f"Closed loop, streaming: {plan.concurrency} workers over {plan.adapters} adapters of rank {plan.rank} "
            f"and the base, prompts of {plan.prompt_words} words, answers of {plan.max_tokens} tokens, greedy. The "
            f"engine's process gets its signal after {plan.before_seconds:g} s. Ready again counts from the kill, "
            "or from SIGCONT.",
            "",
            _COLUMNS,
            "|" + " --- |" * (_COLUMNS.count("|") - 1),
            *(_row(number, trial) for number, trial in enumerate(trials, 1)),
            "",
            *(f"- {line}" for line in verdicts(trials, plan, stall_seconds=stall_seconds)),
            "",
        ]
    )


def _row(number: int, trial: Trial) -> str:
    out = trial.outcome
    cells = [
        f"{number}: {trial.what}",
        f"{trial.off_seconds:.2f} s",
        f"{trial.ready_seconds:.1f} s",
        str(out.in_flight),
        f"{out.begun}: {out.begun_lost}",
        f"{out.waiting}: {out.waiting_lost}",
        str(trial.retried),
        str(out.refused),
        str(out.later_lost),
        str(out.wrong),
        str(out.answered),
    ]
    return f"| {' | '.join(cells)} |"


def verdicts(trials: Sequence[Trial], plan: Plan, *, stall_seconds: float) -> list[str]:
    """What was to be shown, as it came out."""
    kills = [trial for trial in trials if trial.what == "kill -9"]
    stops = [trial for trial in trials if trial.what == "SIGSTOP"]
    lines = []
    if kills:
        off = max(trial.off_seconds for trial in kills)
        ready = [trial.ready_seconds for trial in kills]
        lines += [
            f"after a kill readiness is off within {TARGET_OFF_SECONDS:g} s: {_met(off <= TARGET_OFF_SECONDS)} "
            f"({off:.2f} s at most)",
            f"ready again after {min(ready):.1f} to {max(ready):.1f} s",
            "only requests that had begun to answer are lost: "
            + _met(all(t.outcome.lost == t.outcome.begun_lost for t in kills)),
        ]
    for trial in stops:
        limit = f"off within the {stall_seconds:g} s set"
        lines += [
            f"SIGSTOP for {plan.stop_seconds:g} s: readiness {limit}: {_met(trial.off_seconds <= stall_seconds)} "
            f"({trial.off_seconds:.2f} s; {trial.why!r})",
            f"after SIGCONT the same engine is ready by itself, and nothing is lost: "
            f"{_met(trial.same_process and not trial.outcome.lost)}",
        ]
    same = all(trial.same_versions and trial.same_answers and not trial.outcome.wrong for trial in trials)
    lines.append(f"the same versions, and the same answers to one question, before and after: {_met(same)}")
    return lines


def _met(true: bool) -> str:
    return "met" if true else "**not met**"
