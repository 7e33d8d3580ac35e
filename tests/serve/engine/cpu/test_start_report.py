"""What the engine's worker tells of its start."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker.worker_base import WorkerBase

from serve.engine.cpu import start_report
from serve.engine.cpu.start_report import IMPORTED, METHOD, PROCESS_BEGAN, STAGES


@pytest.fixture(autouse=True)
def workers_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what is timed, and forget what was."""
    monkeypatch.setattr(start_report, "_ended", {})
    for owner in (CPUWorker, Worker):
        for name in STAGES:
            if name in vars(owner):
                monkeypatch.setattr(owner, name, vars(owner)[name])
    yield
    if METHOD in vars(WorkerBase):
        delattr(WorkerBase, METHOD)


def test_every_stage_is_a_method_of_vllms_worker() -> None:
    assert all(callable(getattr(CPUWorker, name, None)) for name in STAGES)


def test_a_stage_is_told_when_its_method_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPUWorker, "compile_or_warm_up_model", lambda _, answer: answer)
    start_report.install()
    start_report.install()
    worker = CPUWorker.__new__(CPUWorker)
    told = getattr(worker, METHOD)()
    assert set(told) == {PROCESS_BEGAN, IMPORTED}
    assert told[PROCESS_BEGAN] < told[IMPORTED] <= time.monotonic()
    assert worker.compile_or_warm_up_model("seconds of compiling") == "seconds of compiling"
    told = getattr(worker, METHOD)()
    assert told[IMPORTED] <= told["engine: model warmed up"] <= time.monotonic()


def test_a_stage_that_failed_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: CPUWorker) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(CPUWorker, "init_device", fail)
    start_report.install()
    worker = CPUWorker.__new__(CPUWorker)
    with pytest.raises(RuntimeError, match="no memory"):
        worker.init_device()
    assert "engine: worker set up" not in getattr(worker, METHOD)()
