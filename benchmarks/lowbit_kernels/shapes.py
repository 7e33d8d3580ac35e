"""The linear layers that are measured, with the sizes of real models."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SAMPLED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """One linear layer."""

    base: str
    layer: str
    columns: int
    rows: int
    is_vocabulary: bool = False  # stays in 16 bits when the base is quantised

    def takes(self, tokens: int) -> bool:
        """Does an engine ever give it so many rows? The vocabulary is asked for tokens that are sampled alone."""
        return tokens <= MAX_SAMPLED_TOKENS or not self.is_vocabulary

    def title(self) -> str:
        return f"{self.base} {self.layer} {self.columns} x {self.rows}"


SHAPES = (
    Shape("135M", "qkv", 576, 960),
    Shape("135M", "o", 576, 576),
    Shape("135M", "gate_up", 576, 3072),
    Shape("135M", "down", 1536, 576),
    Shape("135M", "lm_head", 576, 49152, is_vocabulary=True),
    Shape("1.5B", "qkv", 1536, 2048),
    Shape("1.5B", "gate_up", 1536, 17920),
    Shape("1.5B", "down", 8960, 1536),
)
"""SmolLM2-135M and Qwen2.5-1.5B; q, k and v side by side, gate and up side by side, as vLLM has them."""
