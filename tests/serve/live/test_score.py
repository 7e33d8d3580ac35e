"""Logprobs of given tokens: both ways agree with each other and with PEFT, and disturb nobody in their batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.tiny import make_tiny_adapter
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from tests.serve.live.live_server import REPOSITORY
from tests.serve.live.score_both_ways import CONTINUATION, PROMPT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SAME_NATS = 2e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and an adapter on every linear layer and the output layer."""
    home = tmp_path_factory.mktemp("score")
    base = make_tiny_base(home / "base")
    passport = read_passport(resolve_base(str(base), home=home), home=home)
    adapter = make_tiny_adapter(
        home / "adapter",
        linear_modules={**passport.facts.linear_modules, "lm_head": (128, 512)},
        targets=("q_proj", "o_proj", "down_proj", "lm_head"),
        scale=0.1,
        base_name=base.name,
    )
    return base, adapter


@pytest.fixture(scope="module")
def scored(folders: tuple[Path, Path]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.serve.live.score_both_ways", *map(str, folders)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def by_peft(base: Path, adapter: Path | None) -> list[float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor([PROMPT + CONTINUATION])).logits[0]
    rows = logits[len(PROMPT) - 1 : -1].log_softmax(-1)
    return [float(row[token]) for row, token in zip(rows, CONTINUATION, strict=True)]


@pytest.mark.parametrize("who", ["base", "adapter"])
def test_every_way_gives_the_logprobs_of_peft(
    folders: tuple[Path, Path], scored: dict[str, Any], who: str
) -> None:
    base, adapter = folders
    expected = by_peft(base, adapter if who == "adapter" else None)
    assert scored["scores_prompts"] is True
    for way in ("alone", "by token", "beside another", "by token beside another"):
        assert scored[f"{who} {way}"] == pytest.approx(expected, abs=SAME_NATS), way


@pytest.mark.parametrize("who", ["base", "adapter"])
def test_an_answer_in_the_same_batch_keeps_its_own_logprobs(scored: dict[str, Any], who: str) -> None:
    *beside, alone = scored[f"{who}: the other"]
    for answer in beside:
        assert [token for token, _, _ in answer] == [token for token, _, _ in alone]
        assert [value for _, value, _ in answer] == pytest.approx(
            [value for _, value, _ in alone], abs=SAME_NATS
        )
        assert all(rivals >= 3 for _, _, rivals in answer)
