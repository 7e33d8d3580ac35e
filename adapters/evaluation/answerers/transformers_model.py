"""A base in memory with, where there is one, an adapter that can be switched off: one load serves both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import EvaluationError
from bases.codec import TokenizerCodec

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`end_ids` end an answer; `context_tokens` is None where the base names no bound.

    `prompt_learning` is True for prefix and prompt tuning, whose virtual tokens stand before the padding.
    """

    base_folder: Path
    model: Any
    tokenizer: Any
    codec: TokenizerCodec
    end_ids: frozenset[int]
    pad_id: int
    context_tokens: int | None
    has_adapter: bool
    prompt_learning: bool

    @contextmanager
    def speaking(self, *, adapter: bool) -> Iterator[Any]:
        """The model that speaks with the adapter or as the base alone, without gradients."""
        import torch

        with torch.inference_mode():
            if adapter or not self.has_adapter:
                yield self.model
            else:
                with self.model.disable_adapter():
                    yield self.model

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a piece of an answer: special-token text is text, nothing is put around it."""
        return self.codec.encode_rendered(self.codec.mark(text))


def load_model(base_folder: Path, adapter_folder: Path | None, *, precision: Precision) -> LoadedModel:
    """Load a base and an adapter. Raises EvaluationError for an adapter that is none or does not fit."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    if adapter_folder is not None:
        _check_adapter_folder(adapter_folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = ("float32" if device == "cpu" else "bfloat16") if precision == "auto" else precision
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=getattr(torch, name)).to(device)
    end_ids = _end_ids(model, tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(end_ids, default=0)
    # The base's own generation config may hold penalties and sampling, which would be applied behind our back.
    model.generation_config = GenerationConfig()
    prompt_learning = False
    if adapter_folder is not None:
        model = _with_adapter(model, adapter_folder)
        prompt_learning = bool(model.active_peft_config.is_prompt_learning)
    return LoadedModel(
        base_folder=base_folder,
        model=model.eval(),
        tokenizer=tokenizer,
        codec=TokenizerCodec(tokenizer),
        end_ids=end_ids,
        pad_id=int(pad_id),
        context_tokens=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        has_adapter=adapter_folder is not None,
        prompt_learning=prompt_learning,
    )


def _check_adapter_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise EvaluationError(
            f"there is no adapter folder {str(folder)!r}; give the folder that holds {CONFIG_NAME}, or ask a "
            "gateway for an adapter by its name with --url"
        )
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{str(folder)!r} is no adapter: it has no {' and no '.join(missing)}; give a folder that PEFT or "
            "`hotswap train` wrote (pickled weights are not read)"
        )


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends an answer in the gateway too: the generation config's end tokens and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(int(end) for end in (*listed, tokenizer.eos_token_id) if end is not None)


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EvaluationError(
            f"the adapter {folder.name!r} does not fit this base: {reason}; name the base it was trained on "
            "with --base, and see `hotswap adapters check`"
        ) from None
    for warning in caught:
        # PEFT only warns of weights that it does not find, and then answers as the base does.
        if "missing adapter keys" in str(warning.message):
            raise EvaluationError(
                f"the adapter {folder.name!r} lacks weights that its configuration names, so it would answer as "
                "the base does; see `hotswap adapters check`"
            )
    return adapted
