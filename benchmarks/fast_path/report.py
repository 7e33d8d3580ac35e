"""The comparisons as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fast_path.comparison import Outcome, Parting
from benchmarks.fast_path.questions import PROMPT_WORDS
from benchmarks.fast_path.trial import OFF_PATCHES, Trial

_SHOWN_PARTINGS = 20  # of each row


@dataclass(frozen=True, slots=True)
class Row:
    """One side, by the value of `--cpu-patches`, against the reference."""

    patches: str
    outcome: Outcome


def report(
    rows: Sequence[Row], trial: Trial, *, name: str, num_questions: int, where: str, command: str
) -> str:
    """`name` is the base's; `num_questions` were wanted of the reference."""
    first = rows[0].outcome
    ranks = ", ".join(map(str, trial.ranks))
    words = ", ".join(map(str, PROMPT_WORDS))
    lines = [
        f"`{command}`",
        "",
        f"{where}.",
        "",
        f"Greedy answers of {trial.num_tokens} tokens in {trial.dtype}, base {name} and {trial.adapters} adapters "
        f"of ranks {ranks} in turn (random numbers, all linear layers) in the same batches, {trial.concurrency} "
        f"requests at once, prompts of {words} words in turn. Reference: --cpu-patches {OFF_PATCHES}, vLLM's own "
        f"operators, {first.num_answers} of {num_questions} answers. Exact: transformers with PEFT in float64 on "
        "the reference's text. A tie: two candidates whose exact log probabilities lie within "
        f"{first.tie_nats:.1e} nats, twice the reference's largest error.",
        "",
        "| --cpu-patches | answers | equal | part at a tie | neither | tokens compared "
        "| from the reference, nats: mean, largest | own operators from exact "
        "| this side from exact | tokens where this side is nearer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found = row.outcome
        neither = len(found.partings) - found.num_ties
        spreads = " | ".join(
            f"{spread.mean:.1e}, {spread.largest:.1e}"
            for spread in (found.difference, found.reference_error, found.found_error)
        )
        lines.append(
            f"| {row.patches} | {found.num_answers} | {found.num_equal} ({found.share_equal:.1%}) "
            f"| {found.num_ties} | {neither} | {found.num_tokens} | {spreads} | {found.share_nearer:.0%} |"
        )
    for row in rows:
        lines += _partings(row)
    return "\n".join(lines) + "\n"


def _partings(row: Row) -> list[str]:
    """The answers that part, those beyond a tie first."""
    partings = sorted(row.outcome.partings, key=lambda each: each.is_tie)
    if not partings:
        return []
    lines = ["", f"Where answers of --cpu-patches {row.patches} part:", ""]
    lines += [_told(each) for each in partings[:_SHOWN_PARTINGS]]
    if len(partings) > _SHOWN_PARTINGS:
        lines.append(f"- and {len(partings) - _SHOWN_PARTINGS} more")
    return lines


def _told(parting: Parting) -> str:
    gap = (
        f"exact gap {parting.gap_nats:.1e} nats"
        if parting.gap_nats is not None
        else "not among the reference's likeliest"
    )
    verdict = "a tie" if parting.is_tie else "not a tie"
    return (
        f"- question {parting.number} ({parting.adapter or 'base'}), token {parting.position + 1}: "
        f"{parting.found_token} instead of {parting.reference_token}, {gap}: {verdict}"
    )
