"""The rules for the tensors: names, pairs and shapes against the base, and the values themselves.

They matter because the engine copies what fits and says nothing: a tensor that is too small fills part of a
layer, a rank that differs from the configuration is scaled wrongly, NaN poisons every answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

from adapters.config import CONFIG_NAME, AdapterConfig
from adapters.report import Findings
from adapters.safetensors_header import TensorEntry
from adapters.target import TargetBase
from adapters.tensor_name import LoraTensorName, parse_tensor_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Factors = dict[Literal["A", "B"], TensorEntry]

_INPUT_EMBEDDINGS = frozenset({"embed_tokens", "wte", "word_embeddings"})
_OUTPUT_LAYERS = frozenset({"lm_head", "embed_out"})


def check_names(
    tensors: Mapping[str, TensorEntry], config: AdapterConfig | None, findings: Findings
) -> dict[str, Factors]:
    """Add what is wrong with the tensors' names; return the two factors of each module that is complete."""
    modules: dict[str, Factors] = {}
    for name, entry in sorted(tensors.items()):
        parsed = parse_tensor_name(name)
        if parsed is None:
            _explain_unknown_tensor(name, findings)
        else:
            modules.setdefault(parsed.module, {})[parsed.factor] = entry
    for module, factors in modules.items():
        if len(factors) == 1:
            missing: Literal["A", "B"] = "B" if "A" in factors else "A"
            findings.add(
                "a_without_b",
                f"{_shown(module)} has lora_{next(iter(factors))} and no lora_{missing}. The file "
                "is incomplete.",
                str(LoraTensorName(module, missing)),
            )
    complete = {module: factors for module, factors in modules.items() if len(factors) == 2}
    if config is not None:
        _check_targets(complete, config.values["target_modules"], findings)
    return complete


def check_shapes(
    modules: Mapping[str, Factors], config: AdapterConfig, target: TargetBase | None, findings: Findings
) -> None:
    """Compare each module with the base and with the rank that the configuration gives it."""
    unknown: list[str] = []
    for module, factors in modules.items():
        a, b = factors["A"], factors["B"]
        if _is_embedding(module, target):
            findings.add(
                "embedding_layer",
                f"{_shown(module)} is an embedding, or an output layer that shares its weights with one; the "
                "engine cannot adapt it per request. Train without it among target_modules.",
                module,
            )
            continue
        if len(a.shape) != 2 or len(b.shape) != 2:
            findings.add(
                "shape_mismatch",
                f"{_shown(module)}: lora_A is {list(a.shape)} and lora_B {list(b.shape)}; both "
                "must be matrices.",
                module,
            )
            continue
        rank, _ = config.rank_and_alpha(module)
        if a.shape[0] != rank or b.shape[1] != rank:
            findings.add(
                "rank_mismatch",
                f"{_shown(module)}: lora_A has rank {a.shape[0]} and lora_B {b.shape[1]}, but "
                f"{CONFIG_NAME} gives it "
                f"{rank}, so its scaling would be wrong. Save configuration and weights together.",
                module,
            )
        if target is None:
            continue
        expected = target.linear_modules.get(module)
        if expected is None:
            unknown.append(module)
        elif (a.shape[1], b.shape[0]) != tuple(expected):
            findings.add(
                "shape_mismatch",
                f"{_shown(module)}: the adapter maps {a.shape[1]} to {b.shape[0]} features, the base "
                f"{target.name} {expected[0]} to {expected[1]}. The adapter was trained on another base.",
                module,
            )
        elif module in target.unserved_modules:
            findings.add(
                "module_not_served",
                f"{_shown(module)} is folded into the attention of {target.name} when the engine loads it: the "
                "adapter's part on it would be dropped, and the answers be others than in training. Train "
                f"without {module.rpartition('.')[2]} among target_modules.",
                module,
            )
    if unknown and target is not None:
        _explain_unknown_modules(unknown, target, findings)


class ValueScan:
    """Looks at every value on its way through the digest: finite or not, and whether anything is not zero."""

    def __init__(self, tensors: Mapping[str, TensorEntry]) -> None:
        self._dtypes = {name: entry.dtype for name, entry in tensors.items()}
        self._num_non_finite: dict[str, int] = {}
        self._non_zero: set[str] = set()

    def observe(self, name: str, chunk: memoryview) -> None:
        """Take the next bytes of the tensor `name`."""
        import numpy as np

        if self._dtypes[name] == "BF16":  # numpy has no bfloat16: look at the exponent bits
            words: NDArray[np.uint16] = np.frombuffer(chunk, dtype="<u2")
            finite = (words & 0x7F80) != 0x7F80
            non_zero = bool((words & 0x7FFF).any())
        else:
            values: NDArray[np.floating] = np.frombuffer(
                chunk, dtype="<f4" if self._dtypes[name] == "F32" else "<f2"
            )
            finite = np.isfinite(values)
            non_zero = bool(values.any())
        if non_zero:
            self._non_zero.add(name)
        if not finite.all():
            count = int(finite.size - int(finite.sum()))
            self._num_non_finite[name] = self._num_non_finite.get(name, 0) + count

    def report(self, modules: Collection[str], config: AdapterConfig | None, findings: Findings) -> None:
        """Add what the values showed. `modules` are those with both factors."""
        for name, count in self._num_non_finite.items():
            findings.add(
                "non_finite",
                f"{_shown(name)} holds {count} value{'s'[: count != 1]} that are NaN or infinite. "
                "The training diverged: lower the learning rate and train again.",
                name,
            )
        if not modules or self._num_non_finite:
            return
        is_effective = (
            str(LoraTensorName(module, "A")) in self._non_zero
            and str(LoraTensorName(module, "B")) in self._non_zero
            and (config is None or config.rank_and_alpha(module)[1] != 0)
            for module in modules
        )
        if not any(is_effective):
            findings.add(
                "zero_effect",
                "The adapter changes nothing: in every module lora_A, lora_B or alpha is zero, so "
                "the server would "
                "answer as the base does under the adapter's name. It was saved before training, "
                "or not trained.",
            )


def _is_embedding(module: str, target: TargetBase | None) -> bool:
    """An output layer of its own is a linear layer like any other; one tied to the input is not."""
    leaf = module.rpartition(".")[2]
    is_tied = target is not None and target.tied_embeddings
    return leaf in _INPUT_EMBEDDINGS or (leaf in _OUTPUT_LAYERS and is_tied)


def _check_targets(modules: Collection[str], targets: object, findings: Findings) -> None:
    """PEFT applies a tensor only when its module is among target_modules, the engine always does."""
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return
    # A dotted target may be any suffix of the module's name at a dot, so look those suffixes up in a set.
    wanted = set(targets)
    for module in modules:
        parts = module.split(".")
        if not any(".".join(parts[start:]) in wanted for start in range(len(parts))):
            findings.add(
                "target_mismatch",
                f"There are weights for {_shown(module)}, which target_modules in {CONFIG_NAME} "
                "does not name: PEFT "
                "would leave them out and the server apply them. Save configuration and weights together.",
                module,
            )


def _explain_unknown_tensor(name: str, findings: Findings) -> None:
    if ".lora_embedding_" in name or ".embed_tokens." in name or ".lm_head." in name:
        code, why = "embedding_layer", "belongs to an embedding or output layer, which cannot be adapted here"
    elif "lora_magnitude_vector" in name:
        code, why = "dora", "belongs to DoRA, which the engine cannot serve"
    elif "trainable_tokens" in name:
        code, why = "trainable_tokens", "holds trained token embeddings, which the engine cannot serve"
    elif "modules_to_save" in name:
        code, why = "modules_to_save", "is a whole layer, which the engine cannot exchange per request"
    elif name.endswith(".bias"):
        code, why = "bias", "is a bias, which the engine cannot serve"
    else:
        code, why = "tensor_unknown", "is not named base_model.model.<module>.lora_A.weight or .lora_B.weight"
    findings.add(code, f"Tensor {_shown(name)} {why}. Save the adapter with PEFT's save_pretrained.", name)


def _explain_unknown_modules(unknown: list[str], target: TargetBase, findings: Findings) -> None:
    leaves = sorted({module.rpartition(".")[2] for module in target.linear_modules})
    for index, module in enumerate(unknown):
        # A search for near names is slow, and the first few tell the story.
        near = (
            difflib.get_close_matches(module[:200], target.linear_modules, n=2, cutoff=0.6)
            if index < 3
            else []
        )
        hint = f"Nearest: {', '.join(near)}." if near else f"It has {', '.join(leaves[:12])}."
        findings.add(
            "target_unknown",
            f"The base {target.name} has no linear module {_shown(module)}. {hint} "
            "The adapter was trained on another base or with other names.",
            module,
        )


def _shown(name: str) -> str:
    text = ascii(name)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."
