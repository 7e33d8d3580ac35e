"""The same prompts, each with its adapter, asked of one gateway after another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from adapters.export.fidelity import Answer, Fidelity, compare_answers
from benchmarks.fidelity.answers import Gateway, Messages
from benchmarks.load.own_gateway import own_gateway

# With these alone vLLM's own operators compute, as far as they keep base and adapters apart at all.
OFF_PATCHES = "lora-isolation"
ON_PATCHES = "auto"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked, and of what."""

    base: str
    dtype: str
    adapters: int
    ranks: tuple[int, ...]  # dealt in turn
    num_tokens: int
    concurrency: int
    more_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison with the answers of the gateway whose fast path is off."""

    title: str
    outcome: Fidelity


def questions(prompts: Sequence[Messages], adapters: int) -> list[tuple[str | None, Messages]]:
    """Each prompt with its adapter: neighbours have different ones, and every so often there is none."""
    names = itertools.cycle([None, *(f"adapter-{number}" for number in range(adapters))])
    return list(zip(names, prompts, strict=False))


def ask(
    trial: Trial,
    prompts: Sequence[Messages],
    patches: str,
    *,
    concurrency: Iterable[int],
    say: Callable[[str], None],
) -> list[list[Answer]]:
    """The answers of a gateway with these parts, once for each number of requests at once.

    Raises what `own_gateway` raises.
    """
    flags = ("--dtype", trial.dtype, "--cpu-patches", patches, "--max-loras", str(trial.adapters))
    asked = questions(prompts, trial.adapters)
    with own_gateway(
        trial.base,
        adapters=trial.adapters,
        ranks=trial.ranks,
        more_flags=(*flags, *trial.more_flags),
        say=say,
    ) as gateway:
        found = []
        for number in concurrency:
            say(f"{len(asked)} prompts, {number} at once, --cpu-patches {patches}")
            with Gateway(gateway.url, concurrency=number) as client:
                found.append(client.ask_mixed(asked, trial.num_tokens))
    return found


def compare(
    trial: Trial,
    prompts: Sequence[Messages],
    variants: Sequence[str],
    *,
    tie_nats: float,
    say: Callable[[str], None],
) -> list[Row]:
    """Each variant of `--cpu-patches` against OFF_PATCHES, and OFF_PATCHES against itself in other batches.

    The latter is the yardstick: what differs there is rounding that depends on who else is in the batch.
    """
    half = max(1, trial.concurrency // 2)
    reference, again = ask(trial, prompts, OFF_PATCHES, concurrency=(trial.concurrency, half), say=say)
    rows = [
        Row(f"off again, {half} at once", compare_answers(reference, again, tie_nats=tie_nats)),
    ]
    for patches in variants:
        (found,) = ask(trial, prompts, patches, concurrency=(trial.concurrency,), say=say)
        rows.append(Row(f"on: {patches}", compare_answers(reference, found, tie_nats=tie_nats)))
    return rows
