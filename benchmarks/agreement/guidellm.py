"""GuideLLM (https://github.com/vllm-project/guidellm): how it is asked, and what its figures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.agreement.tool import Tool
from benchmarks.agreement.workload import Reading, Workload

RESULT = "guidellm.json"


def command(workload: Workload, folder: Path) -> Sequence[str]:
    """Arguments for one run. It asks for `/health` first, which not every server has."""
    profile = (
        f"kind=concurrent,streams={workload.workers}"
        if workload.workers is not None
        else f"kind=constant,rate={workload.rate:g}"
    )
    return (
        "run",
        "--backend",
        f"kind=openai_http,target={workload.url},model={workload.model},request_format=/v1/completions,"
        "validate_backend=false",
        *("--profile", profile),
        *("--constraint", f"kind=max_duration,seconds={workload.seconds:g}"),
        *("--tokenizer", f"kind=huggingface_auto,model={workload.tokenizer}"),
        "--data",
        f"kind=synthetic_text,prompt_tokens={workload.prompt_tokens},output_tokens={workload.answer_tokens}",
        *("--seed", f"kind=static,value={workload.seed}"),
        *("--output", f"kind=json,path={folder / RESULT}"),
        "--disable-console-interactive",
    )


def read(result: dict[str, Any]) -> Reading:
    """Its ITL of a request is (last token - first token) / (tokens - 1): our TPOT."""
    benchmark = result["benchmarks"][0]
    metrics = benchmark["metrics"]

    def p50(name: str) -> float:
        return float(metrics[name]["successful"]["percentiles"]["p50"])

    totals = metrics["request_totals"]
    if not totals["successful"]:
        raise ValueError("no request was answered within --seconds")
    return Reading(
        requests=int(totals["successful"]),
        failed=int(totals["errored"]),
        ttft_seconds=p50("time_to_first_token_ms") / 1000,
        tpot_seconds=p50("inter_token_latency_ms") / 1000,
        prompt_tokens=p50("prompt_token_count"),
        as_called={
            "its TPOT, with the first token, p50": p50("time_per_output_token_ms") / 1000,
            "its ITL p50": p50("inter_token_latency_ms") / 1000,
        },
    )


GUIDELLM = Tool(
    name="guidellm",
    requirement="guidellm==0.8.1",
    needs_torch=True,
    command=command,
    result=RESULT,
    read=read,
    definitions=(
        "its TTFT begins when the request is sent; its TPOT is (last token - sent) / tokens and so holds the "
        "first token: (TTFT + (tokens - 1) x our TPOT) / tokens; its ITL is our TPOT, each request weighted "
        "with its tokens"
    ),
    environment={"HF_HUB_OFFLINE": "1"},  # the tokenizer is a folder
)
