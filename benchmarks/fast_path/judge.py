"""The exact result: transformers with PEFT in float64, given the same tokens.

Exact as far as it matters here: products, attention and norms are float64; the angles of rotary positions stay the
float32 ones that transformers and vLLM both define the model by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from benchmarks.fast_path.questions import Question
from benchmarks.fast_path.reference import Answered, Judged

if TYPE_CHECKING:
    import torch


class Judge:
    """The base in float64; adapters are read from folders of their names below `adapters`."""

    def __init__(self, base: Path, adapters: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from bases.codec import TokenizerCodec

        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
        use_exact_norms(self._model)
        self._adapters = adapters
        self._codec = TokenizerCodec(AutoTokenizer.from_pretrained(base, local_files_only=True))

    def judge(self, pairs: Iterable[tuple[Question, Answered]]) -> Iterator[Judged]:
        """Each answer's candidates after its own text, adapter by adapter."""
        from peft import PeftModel

        by_adapter = sorted(pairs, key=lambda pair: (pair[0].adapter or "", pair[0].number))
        for name, group in groupby(by_adapter, key=lambda pair: pair[0].adapter):
            model: Any = self._model
            if name is not None:
                model = PeftModel.from_pretrained(self._model, self._adapters / name).double().eval()
            try:
                for question, answer in group:
                    prompt = self._codec.encode_chat(question.messages)
                    yield Judged(number=question.number, logprobs=candidate_logprobs(model, prompt, answer))
            finally:
                if name is not None:
                    self._model = model.unload()


def candidate_logprobs(model: Any, prompt: Sequence[int], answer: Answered) -> tuple[tuple[float, ...], ...]:
    """Natural log probabilities of each token's candidates, in the precision of the model's logits."""
    import torch

    tokens = answer.token_ids
    ids = torch.tensor([[*prompt, *tokens[:-1]]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens)).logits[0]
        logprobs = torch.log_softmax(logits, dim=-1)
    return tuple(
        tuple(row[list(candidates)].tolist())
        for row, candidates in zip(logprobs, answer.candidates, strict=True)
    )


def use_exact_norms(model: Any) -> None:
    """Let the norms of Llama's kind compute in their inputs' precision; transformers rounds to float32 first."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = MethodType(_norm, module)


def _norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    scale = (hidden.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
    normed: torch.Tensor = module.weight * (hidden * scale)
    return normed
