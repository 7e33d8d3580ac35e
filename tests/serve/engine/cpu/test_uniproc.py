"""The in-process executor on CPU: kept where it is safe, and really one process fewer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from vllm.platforms.cpu import CpuPlatform
from vllm.utils import ompmultiprocessing

from serve.engine.cpu import uniproc
from tests.serve.engine.cpu.test_engine_isolation import REPOSITORY
from tests.serve.engine.cpu.tiny_llama import write_base


@pytest.fixture
def updated_backend(monkeypatch: pytest.MonkeyPatch):
    """Calls the patched platform on a config of one backend and world size; returns the backend it leaves."""

    def as_vllm_does(cls, vllm_config):
        if vllm_config.parallel_config.distributed_executor_backend == "uni":
            vllm_config.parallel_config.distributed_executor_backend = "mp"

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(
        ompmultiprocessing, "OMPProcessManager", lambda _: SimpleNamespace(cpu_lists=[[0, 1, 2]])
    )
    monkeypatch.setattr(CpuPlatform, "check_and_update_config", classmethod(as_vllm_does))
    uniproc.install()
    uniproc.install()

    def update(backend, world_size=1):
        parallel = SimpleNamespace(distributed_executor_backend=backend, world_size_across_dp=world_size)
        CpuPlatform.check_and_update_config(SimpleNamespace(parallel_config=parallel))
        return parallel.distributed_executor_backend

    yield update
    os.environ.pop("OMP_NUM_THREADS", None)


def test_one_rank_stays_in_process_with_the_threads_vllm_would_bind(updated_backend):
    assert updated_backend("uni") == "uni"
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_thread_count_that_is_set_already_is_kept(updated_backend, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert updated_backend("uni") == "uni"
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("backend", "world_size"), [("mp", 1), ("ray", 1), ("mp", 2)])
def test_an_executor_asked_for_by_name_is_left_alone(updated_backend, backend, world_size):
    assert updated_backend(backend, world_size) == backend
    assert "OMP_NUM_THREADS" not in os.environ


COUNT_PROCESSES = """
import json, sys, psutil
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(sys.argv[1], dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=64)
    sampling = SamplingParams(max_tokens=2, detokenize=False, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": [5, 6]}], sampling, use_tqdm=False)
    children = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    engines = [line for line in children if "resource_tracker" not in " ".join(line)]
    print(json.dumps([len(engines), len(outputs[0].outputs[0].token_ids)]))
"""


@pytest.mark.vllm
def test_the_running_engine_is_one_process(tmp_path):
    write_base(tmp_path / "base")
    script = tmp_path / "count.py"
    script.write_text(COUNT_PROCESSES)
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "base")],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_CPU_PATCHES": "uniproc", "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    lines = [line for line in finished.stdout.splitlines() if line.startswith("[")]
    assert json.loads(lines[-1]) == [1, 2]
