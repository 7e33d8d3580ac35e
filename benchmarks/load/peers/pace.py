"""How long the runs of a slow server are: whole answers of each worker, and no longer than is allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.load.bench import Bench
from benchmarks.load.run import RunResult
from benchmarks.load.workload.arrivals import Arrivals

_ANSWERS_PER_WORKER = 3  # within what is measured, where there is time for it
# What is waited for after the window, as a share of an answer: the last answers of workers that began together.
_TAIL_ANSWERS = 0.3


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What one arm's requests that nobody counts say about its pace."""

    answer_seconds: float  # of the slowest answer
    output_tok_s: float  # from the first request to the last answer

    @classmethod
    def of(cls, run: RunResult) -> WarmUp:
        """That of a run; some request of it was answered."""
        ok = [record for record in run.records if record.ok]
        end = max(record.done_seconds or 0.0 for record in ok)
        tokens = sum(record.completion_tokens or 0 for record in ok)
        return cls(float(run.figures["e2e_seconds"]["max"]), tokens / end)

    def too_slow(self, most_seconds: float) -> str:
        """Why it gets no runs."""
        return (
            f"left out: an answer takes {self.answer_seconds:.0f} s, and its runs may take {most_seconds:g} s "
            f"(--most-seconds); its warm-up had {self.output_tok_s:.1f} tok/s"
        )


def paced(bench: Bench, load: Arrivals, warm_up: WarmUp, most_seconds: float) -> Bench | None:
    """`bench` with runs that suit the server; None where one answer takes longer than `most_seconds`.

    Where fewer than three answers of a worker of a closed loop would fit into the window, it becomes as long as
    three of them, or as many as `most_seconds` hold. Workers begin together and go on nearly so: a window of whole
    answers from the first moment on holds each part of an answer equally often, without a warm-up, and the answers
    that begin at its end are not waited for.
    """
    settings, answer_seconds = bench.settings, warm_up.answer_seconds
    if not load.closed or _ANSWERS_PER_WORKER * answer_seconds <= settings.seconds:
        return bench
    answers = min(_ANSWERS_PER_WORKER, int(max(most_seconds, settings.seconds) / answer_seconds))
    if answers < 1:
        return None
    update = {"seconds": round(answers * answer_seconds, 1), "warmup_seconds": 0.0}
    return replace(
        bench,
        settings=settings.model_copy(update=update),
        tail_seconds=round(_TAIL_ANSWERS * answer_seconds, 1),
    )
