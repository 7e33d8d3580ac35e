"""Are the gateway's greedy answers those of the same files in transformers?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.export.fidelity import compare_answers
from bases.resolve import ResolvedBase
from benchmarks.fidelity.answers import Gateway, Messages, Reference
from benchmarks.quantisation.figures import EqualityFigures

CONCURRENCY = 8
OTHER_BATCH_SIZE = 6


class BaseReference:
    """A base in transformers that computes as it is served; loaded once for all adapters."""

    def __init__(self, base: ResolvedBase) -> None:
        from quantize.quality.served_model import load_as_served, rounds_activations

        self._rounds = rounds_activations(base)
        self._reference = Reference(base.path, model=load_as_served(base))

    def compare(
        self,
        url: str,
        prompts: Sequence[Messages],
        *,
        served: str,
        adapter: str | None,
        adapter_folder: Path | None,
        num_tokens: int,
    ) -> EqualityFigures:
        """Ask both the same prompts for answers of `num_tokens` tokens."""
        found = Gateway(url, concurrency=CONCURRENCY).ask(adapter, prompts, num_tokens)
        expected = self._reference.ask(adapter_folder, prompts, num_tokens)
        outcome, control = compare_answers(expected, found), None
        if self._rounds:
            other = self._reference.ask(adapter_folder, prompts, num_tokens, batch_size=OTHER_BATCH_SIZE)
            control = compare_answers(expected, other)
        return EqualityFigures(
            subject="plain",
            served=served,
            adapter=adapter,
            num_prompts=outcome.num_prompts,
            num_equal=outcome.num_equal,
            num_ties=outcome.num_ties,
            num_tokens=outcome.num_tokens,
            max_logprob_difference=outcome.max_logprob_difference,
            control_equal=control.num_equal if control is not None else None,
            control_max_logprob_difference=control.max_logprob_difference if control is not None else None,
        )
