"""Memory of the gateway and of what it started."""

from __future__ import annotations

import subprocess
import sys

from serve.observability.process_memory import ProcessMemory


def measured() -> dict[tuple[str, str], float]:
    return {
        (family.name, sample.labels["process"]): sample.value
        for family in ProcessMemory().collect()
        for sample in family.samples
    }


def test_the_gateway_is_measured_now_and_at_its_peak() -> None:
    found = measured()
    now = found["hotswap_process_memory_bytes", "gateway"]
    assert 10e6 < now <= found["hotswap_process_memory_peak_bytes", "gateway"]


def test_a_process_that_it_started_is_the_engine_unless_it_is_a_helper() -> None:
    for argument, kind in (("core", "engine"), ("serve.engine.grammar_worker", "helper")):
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()", argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert measured()["hotswap_process_memory_bytes", kind] > 1e6
        finally:
            child.communicate(b"\n")


def test_nothing_is_measured_when_it_is_registered() -> None:
    assert [family.samples for family in ProcessMemory().describe()] == [[], []]
