"""The exact result: float64 throughout, with the adapter, after the answer's own text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.tiny import make_tiny_adapter
from bases.architecture import read_architecture
from bases.tiny import make_tiny_base
from benchmarks.fast_path.judge import Judge, candidate_logprobs, use_exact_norms
from benchmarks.fast_path.questions import Question
from benchmarks.fast_path.reference import Answered


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("judge") / "tiny")


def load(base: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()


def answer(number: int, adapter: str | None) -> tuple[Question, Answered]:
    question = Question(number, adapter, [{"role": "user", "content": "hello"}])
    return question, Answered(
        number=number,
        adapter=adapter,
        prompt_sha256=question.sha256,
        candidates=((5, 6), (7,), (8, 5, 9)),
        logprobs=((-1.0, -2.0), (-1.0,), (-1.0, -2.0, -3.0)),
    )


def test_candidates_are_judged_after_the_prompt_and_the_tokens_before_them(base: Path) -> None:
    model, (_, answered) = load(base, torch.float64), answer(0, None)
    found = candidate_logprobs(model, [1, 2, 3], answered)
    assert [len(row) for row in found] == [2, 1, 3]
    for place, candidates in enumerate(answered.candidates):
        ids = torch.tensor([[1, 2, 3, *answered.token_ids[:place]]])
        with torch.no_grad():
            logits = torch.log_softmax(model(input_ids=ids).logits[0, -1], dim=-1)
        assert found[place] == pytest.approx([float(logits[token]) for token in candidates], abs=1e-6)


def test_norms_do_not_round_to_float32(base: Path) -> None:
    model = load(base, torch.float64)
    norm = model.model.norm
    hidden = torch.randn(
        3, norm.weight.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        exact = norm.weight * hidden / (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        rounded = norm(hidden)
        use_exact_norms(model)
        found = norm(hidden)
    assert float((found - exact).abs().max()) < 1e-13
    assert 1e-9 < float((rounded - exact).abs().max()) < 1e-5


def test_each_answer_is_judged_with_its_adapter_and_the_base_without(base: Path, tmp_path: Path) -> None:
    modules = read_architecture(base).linear_modules
    for number, name in enumerate(("adapter-0", "adapter-1")):
        make_tiny_adapter(tmp_path / name, linear_modules=modules, seed=number, scale=0.5)
    asked = [answer(0, None), answer(1, "adapter-0"), answer(2, "adapter-1"), answer(3, None)]
    found = {each.number: each.logprobs for each in Judge(base, tmp_path).judge(asked)}
    assert sorted(found) == [0, 1, 2, 3]
    assert found[0] == found[3]  # no adapter stays behind
    assert len({found[number] for number in (0, 1, 2)}) == 3
    assert found[0][0][0] != float(
        torch.tensor(found[0][0][0], dtype=torch.float64).float()
    )  # more than 24 bits
