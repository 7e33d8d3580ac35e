"""AIPerf (https://github.com/ai-dynamo/aiperf): how it is asked, and what its figures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.agreement.tool import Tool
from benchmarks.agreement.workload import Reading, Workload

RESULT = "profile_export_aiperf.json"
_GRACE_SECONDS = 120  # for requests under way at the end


def command(workload: Workload, folder: Path) -> Sequence[str]:
    """Arguments for one run."""
    pace = (
        ("--concurrency", str(workload.workers))
        if workload.workers is not None
        else ("--request-rate", f"{workload.rate:g}", "--arrival-pattern", "constant")
    )
    return (
        *("profile", "--model", workload.model, "--url", workload.url),
        *("--endpoint-type", "completions", "--streaming", *pace),
        *("--benchmark-duration", f"{workload.seconds:g}", "--benchmark-grace-period", str(_GRACE_SECONDS)),
        *("--tokenizer", str(workload.tokenizer), "--use-server-token-count"),
        *("--isl", str(workload.prompt_tokens), "--isl-stddev", "0"),
        *("--osl", str(workload.answer_tokens), "--osl-stddev", "0"),
        *("--extra-inputs", "ignore_eos:true", "--random-seed", str(workload.seed)),
        *("--artifact-dir", str(folder), "--ui", "none"),
    )


def read(result: dict[str, Any]) -> Reading:
    """Its ITL of a request is (last token - first token) / (tokens - 1): our TPOT."""
    failed = result.get("error_request_count") or {"avg": 0}
    return Reading(
        requests=int(result["request_count"]["avg"]),
        failed=int(failed["avg"]),
        ttft_seconds=float(result["time_to_first_token"]["p50"]) / 1000,
        tpot_seconds=float(result["inter_token_latency"]["p50"]) / 1000,
        prompt_tokens=float(result["input_sequence_length"]["p50"]),
        as_called={
            "its ITL p50": float(result["inter_token_latency"]["p50"]) / 1000,
            "its ICL p50": float(result["inter_chunk_latency"]["p50"]) / 1000,
        },
    )


AIPERF = Tool(
    name="aiperf",
    requirement="aiperf==0.13.0",
    needs_torch=False,
    command=command,
    result=RESULT,
    read=read,
    definitions=(
        "its TTFT begins when the request is sent; what it calls ITL is our TPOT; its ICL is ours: each gap "
        "between events"
    ),
    environment={},  # offline it takes no folder for a tokenizer, only names of a hub
)
