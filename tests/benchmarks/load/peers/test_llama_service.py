"""The small server around the package: it takes flags of `llama-server` and ends when told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load.peers import llama_service
from benchmarks.load.peers.llama_server import features

# Stands for the package: it says what it was given.
PACKAGE = """
import json, types

class Server:
    def __init__(self, given):
        said = {name: value for name, value in vars(given).items() if not isinstance(value, types.SimpleNamespace)}
        said["model"] = given.model.path
        said["threads"] = [given.cpuparams.n_threads, given.cpuparams_batch.n_threads]
        said["model_alias"] = list(given.model_alias)
        print(json.dumps(said, sort_keys=True), flush=True)
        self.listening_address = f"http://{given.hostnames[0]}:{given.port}"

def CommonParams():
    return types.SimpleNamespace(
        model=types.SimpleNamespace(), cpuparams=types.SimpleNamespace(), cpuparams_batch=types.SimpleNamespace()
    )

def get_system_info():
    return "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | FMA = 1 | "
"""


@pytest.fixture
def service(tmp_path: Path) -> str:
    """The program in a folder where the package is found."""
    (tmp_path / "xllamacpp.py").write_text(PACKAGE)
    return str(shutil.copy(llama_service.__file__, tmp_path))


def test_flags_of_llama_server_become_the_packages_parameters_and_a_signal_ends_it(service: str) -> None:
    flags = (
        "--model any.gguf --alias base --port 8123 --threads 3 --threads-batch 4 --parallel 5 --kv-unified"
    )
    command = [sys.executable, service, *flags.split(), "--ctx-size", "640", "--metrics", "--no-webui"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said, listening = process.stdout.readline(), process.stdout.readline()
        process.terminate()
    assert process.returncode == 0
    assert listening == "listening at http://127.0.0.1:8123\n"
    assert json.loads(said) == {
        "cache_ram_mib": 0,
        "endpoint_metrics": True,
        "hostnames": ["127.0.0.1"],
        "kv_unified": True,
        "model": "any.gguf",
        "model_alias": ["base"],
        "n_ctx": 640,
        "n_parallel": 5,
        "port": 8123,
        "threads": [3, 4],
        "ui": False,
    }


def test_the_report_says_for_which_processor_the_package_was_built(service: str) -> None:
    assert features((sys.executable, service)) == "SSE3 AVX2 FMA"
