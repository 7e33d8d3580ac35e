from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import ExportError
from adapters.export.continuation import continue_greedily, score_answers
from adapters.export.probe_writer import MAX_TOKENS_READ, choose_candidates, largest_effect, make_probe
from adapters.probe import parse_probe, write_probe
from tests.adapters.export.trained_models import PROMPTS, TinyBase, train


@pytest.fixture(scope="module")
def served(llama: TinyBase):
    return train(llama, "lora")


def probe_of(model, **options):
    arguments: dict[str, Any] = {
        "prompts": PROMPTS,
        "fingerprint": "f" * 64,
        "num_cases": 4,
        "num_tokens": 8,
        "end_token_ids": (),
    }
    return make_probe(model, **(arguments | options))


def test_recorded_values_are_those_of_the_two_models_token_by_token(served):
    probe = probe_of(served)
    assert len(probe.cases) == 4
    for case in probe.cases:
        ids = torch.tensor([case.prompt_token_ids + case.expected_token_ids])
        start = len(case.prompt_token_ids) - 1
        for values, is_base in ((case.adapter_logprobs, False), (case.base_logprobs, True)):
            with torch.inference_mode():
                if is_base:
                    with served.disable_adapter():
                        logits = served(input_ids=ids).logits
                else:
                    logits = served(input_ids=ids).logits
            logprobs = torch.log_softmax(logits[0, start:-1], dim=-1)
            expected = logprobs.gather(1, ids[0, start + 1 :, None])[:, 0].tolist()
            assert values == pytest.approx(expected, abs=1e-4)
            if not is_base:
                assert logprobs.argmax(dim=-1).tolist() == case.expected_token_ids


def test_cases_are_those_that_the_adapter_moves_most(served):
    every, few = probe_of(served, num_cases=20), probe_of(served, num_cases=3)
    chosen = [case.prompt_token_ids for case in few.cases]
    assert all(prompt in [case.prompt_token_ids for case in every.cases] for prompt in chosen)
    assert largest_effect(few) > 0.5


def test_continuations_stop_at_the_end_token(served):
    whole = probe_of(served, num_cases=1)
    end = whole.cases[0].expected_token_ids[0]
    stopped = probe_of(served, end_token_ids={end}, prompts=[whole.cases[0].prompt_token_ids])
    assert stopped.cases[0].expected_token_ids == [end]


def test_the_file_can_be_read_back(served, tmp_path: Path):
    probe = probe_of(served)
    assert parse_probe(write_probe(tmp_path, probe).read_bytes()) == probe


def test_padding_does_not_change_an_answer(served):
    together = continue_greedily(served, PROMPTS[:8], num_tokens=6, batch_size=8)
    alone = continue_greedily(served, PROMPTS[:8], num_tokens=6, batch_size=1)
    for left, right in zip(together, alone, strict=True):
        assert left.token_ids == right.token_ids
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)


def test_scoring_ones_own_answer_gives_its_logprobs(served):
    answers = continue_greedily(served, PROMPTS[:5], num_tokens=6)
    for answer, scored in zip(answers, score_answers(served, PROMPTS[:5], answers), strict=True):
        assert scored.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
        assert scored.margins == pytest.approx(answer.margins, abs=1e-3)


def test_candidates_are_different_bounded_and_at_least_one():
    long = [3] * (MAX_TOKENS_READ + 1)
    assert choose_candidates([[], [1], [1], [2]], max_candidates=5) == [(1,), (2,)]
    assert choose_candidates([[1], [2], [3]], max_candidates=2) == [(1,), (2,)]
    assert choose_candidates([long, [1]], max_candidates=2) == [tuple(long)]
    assert choose_candidates([[1], long, [2]], max_candidates=5) == [(1,), (2,)]
    assert choose_candidates([[1] * 5000], max_candidates=5) == []


def test_without_a_prompt_there_is_no_probe(served):
    with pytest.raises(ExportError, match="2 were given, none of 1 to 4096 tokens"):
        probe_of(served, prompts=[[], [1] * 5000])
