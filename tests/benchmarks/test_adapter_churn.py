"""The figures of adapter_churn from what was recorded."""

from __future__ import annotations

import math
import mmap
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from benchmarks.adapter_churn.plan import Plan
from benchmarks.adapter_churn.processes import Look, growth, own_bytes
from benchmarks.adapter_churn.report import Outcome, markdown
from benchmarks.load.verbs import Verb
from benchmarks.steady.record import Record
from benchmarks.surroundings import Surroundings

HERE = Surroundings("a processor", "cpu", 2, 24.0, "Linux", "3.11", {}, "abc", 0.1)


def record(adapter: str, sent: float, ttft: float, *, error: str | None = None) -> Record:
    first = sent + ttft
    return Record(0, adapter, sent, f"{adapter}@1", first, first + 0.3, first + 0.3, 4, error)


def test_growth_is_told_from_noise() -> None:
    hours = [place / 60 for place in range(60)]
    seconds = [3600 * hour for hour in hours]
    wave = [math.sin(place / 3) for place in range(60)]
    flat = growth(seconds, [100 + one for one in wave])
    assert flat.told == "no growth shown"
    leak = growth(seconds, [100 + 50 * hour + one for hour, one in zip(hours, wave, strict=True)])
    assert leak.told == "grows"
    assert leak.low < 50 < leak.high
    with pytest.raises(ValueError, match="8 are needed"):
        growth(seconds[:3], wave[:3])


def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    size = 32 * 1024**2
    (tmp_path / "pages").write_bytes(bytes(size))
    before = own_bytes(psutil.Process())
    with (
        (tmp_path / "pages").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
    ):
        assert sum(pages[place] for place in range(0, size, mmap.PAGESIZE)) == 0
        assert own_bytes(psutil.Process()) - before < size / 2
    held = bytearray(b"x" * size)
    assert own_bytes(psutil.Process()) - before > size / 2
    assert held


def test_the_churn_report_judges_the_listing() -> None:
    plan = Plan(
        registered=4,
        active=2,
        minutes=1,
        concurrency=2,
        churn_seconds=1,
        list_seconds=1,
        sample_seconds=1,
        max_tokens=4,
        prompt_words=4,
        rank=4,
    )
    assert plan.asked == ["adapter-0000", "adapter-0002"]
    assert plan.lanes == [["adapter-0000"], ["adapter-0002"]]
    looks = [
        Look(float(place), 100 + math.sin(place), 500.0 + place, 90.0 + 0.001 * place, 50, 40)
        for place in range(60)
    ]
    outcome = Outcome(
        [Verb(0, "load", 0.1)],
        [Verb(place, "list", 0.06) for place in range(10)]
        + [Verb(place, "replace", 0.5, "adapter-0000", "adapter-0000@1") for place in range(60)],
        looks,
        [record("adapter-0000", 1, 0.1)],
    )
    told = markdown(
        outcome, plan, engine="tiny", started=datetime.now(UTC), command="python", surroundings=HERE
    )
    assert "list in less than 50 ms: MISSED (p99 60.0 ms)" in told
    assert "memory of the gateway: no growth shown" in told
    # A MiB a second beside a version a second, of half a GiB: a thousand versions would take twice as much.
    assert "memory of the engine: grows, by 1024.0 KiB (1024.0 to 1024.0) for each new version" in told
    assert "at most 1 % for a thousand: MISSED (192.31 %); +3600.0 and +3600.0 MiB per hour" in told
    assert "memory of the helpers: grows, by 1.0 KiB" in told
    assert "at most 1 % for a thousand: MISSED (1.11 %)" in told
