"""What a base is built of, from its config alone: the model is laid out on torch's memoryless meta device.

No weights are read and no code from the base is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from bases.errors import BaseInvalidError
from bases.folder import read_json_object

if TYPE_CHECKING:
    import torch


_EXPERT_KEYS = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
)  # what families call it in config.json


class ArchitectureFacts(BaseModel):
    """Sizes and modules of a causal language model, under the names that transformers and PEFT use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(description="Class name, such as LlamaForCausalLM.")
    model_type: str = Field(description="The config's model_type, such as llama.")
    hidden_size: int = Field(description="Width of the residual stream.")
    num_layers: int = Field(description="Transformer blocks.")
    num_attention_heads: int = Field(description="Query heads per block.")
    num_kv_heads: int = Field(description="Key and value heads per block.")
    head_dim: int = Field(description="Width of one head's query and key.")
    num_experts: int = Field(description="Routed experts of a layer that has them; 0 without.")
    vocab_size: int = Field(description="Rows of the embedding.")
    context_tokens: int = Field(description="Longest sequence the config allows, in tokens.")
    tied_embeddings: bool = Field(description="Whether input and output embeddings share one tensor.")
    dtype: str = Field(description="Type of the stored weights, such as bfloat16.")
    num_parameters: int = Field(description="Parameters of the unquantised model, shared ones counted once.")
    quant_method: str | None = Field(description="quant_method of the config's quantisation, None without.")
    linear_modules: dict[str, tuple[int, int]] = Field(
        description=(
            "Full module name -> (in_features, out_features) of every linear module, output embedding apart. "
            "Experts that a mixture keeps as one stacked tensor are not modules and not listed."
        )
    )
    embeddings: dict[str, tuple[int, int]] = Field(
        description="Module name -> (vocab_size, hidden_size) of the input and the output embedding."
    )

    def linear_suffixes(self) -> list[str]:
        """The distinct last name parts of the linear modules, sorted: what `target_modules` of PEFT takes."""
        return sorted({name.rpartition(".")[2] for name in self.linear_modules})


def read_architecture(folder: Path) -> ArchitectureFacts:
    """Facts of the base in `folder` from its config.json.

    A quantised base is described as the model it was quantised from, plus `quant_method`.
    Raises BaseInvalidError if transformers knows no causal language model for that config.
    """
    raw = read_json_object(folder / "config.json")
    config, model = _lay_out(folder)
    text = config.get_text_config()
    hidden_size, num_heads = int(text.hidden_size), int(text.num_attention_heads)
    output = model.get_output_embeddings()
    embeddings, linear_modules = _modules(model)
    return ArchitectureFacts(
        architecture=type(model).__name__,
        model_type=config.model_type,
        hidden_size=hidden_size,
        num_layers=text.num_hidden_layers,
        num_attention_heads=num_heads,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or num_heads,
        # With latent attention (MLA), head_dim is the rotary part alone.
        head_dim=getattr(text, "qk_head_dim", None)
        or getattr(text, "head_dim", None)
        or hidden_size // num_heads,
        num_experts=next((int(getattr(text, key)) for key in _EXPERT_KEYS if getattr(text, key, None)), 0),
        vocab_size=text.vocab_size,
        context_tokens=text.max_position_embeddings,
        tied_embeddings=output is not None and output.weight is model.get_input_embeddings().weight,
        dtype=str(getattr(text, "dtype", None) or getattr(config, "dtype", None) or "float32").removeprefix(
            "torch."
        ),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        quant_method=_quant_method(raw),
        linear_modules=linear_modules,
        embeddings=embeddings,
    )


def _lay_out(folder: Path) -> tuple[Any, torch.nn.Module]:
    """(config, model on the meta device); from_config applies no quantiser, so the model is unquantised."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, ImportError) as error:
        import transformers

        raise BaseInvalidError(
            f"transformers {transformers.__version__} cannot lay out a causal language model from "
            f"{folder / 'config.json'}: {error}"
        ) from error
    return config, model


def _modules(
    model: torch.nn.Module,
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """(embeddings, linear modules) of `model` by full name."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    embeddings: dict[str, tuple[int, int]] = {}
    linear: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if id(module) in ends:
            rows, columns = module.weight.shape
            embeddings[name] = (rows, columns)
        elif isinstance(module, Linear):
            linear[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):  # GPT-2's transposed linear layer: weight is (in, out)
            rows, columns = module.weight.shape
            linear[name] = (rows, columns)
    return embeddings, linear


def _quant_method(raw: dict[str, Any]) -> str | None:
    quantisation = raw.get("quantization_config")
    if not isinstance(quantisation, dict):
        return None
    return str(quantisation.get("quant_method", "unknown"))
