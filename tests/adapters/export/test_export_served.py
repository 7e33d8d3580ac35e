"""vLLM answers with an exported adapter as transformers and PEFT do with the same files, token by token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.export.continuation import continue_greedily
from adapters.export.fidelity import Answer, compare_answers
from tests.adapters.export.ask_engine import NUM_TOKENS
from tests.adapters.export.test_export import export, reload
from tests.adapters.export.trained_models import EXACT_KINDS, KINDS, PROMPTS, TinyBase, train

REPOSITORY = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        "avx512" not in Path("/proc/cpuinfo").read_text() and "avx2" not in Path("/proc/cpuinfo").read_text(),
        reason="vLLM's CPU build needs AVX2",
    ),
]


@pytest.fixture(scope="module")
def exported(llama: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {kind: export(train(llama, kind), llama, folder / kind).folder for kind in KINDS}


@pytest.fixture(scope="module")
def served(llama: TinyBase, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """The engine's answers by kind."""
    home = tmp_path_factory.mktemp("home")
    named = [f"{kind}={folder}" for kind, folder in exported.items()]
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.adapters.export.ask_engine",
            str(llama.resolved.path),
            str(home),
            *named,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    return {
        kind: [Answer(tuple(tokens), tuple(logprobs)) for tokens, logprobs in answers]
        for kind, answers in found.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_answers_as_peft_does_with_the_same_files(kind, llama, exported, served):
    expected = continue_greedily(reload(llama, exported[kind]), PROMPTS, num_tokens=NUM_TOKENS)
    outcome = compare_answers(expected, served[kind])
    print(f"{kind}: {outcome}")  # shown with pytest -s
    assert outcome.is_faithful, str(outcome)
    assert outcome.max_logprob_difference < 1e-3


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_the_engine_answers_as_the_trained_model_does(kind, llama, served):
    expected = continue_greedily(train(llama, kind), PROMPTS, num_tokens=NUM_TOKENS)
    outcome = compare_answers(expected, served[kind])
    assert outcome.is_faithful, str(outcome)
    assert outcome.max_logprob_difference < 1e-3
