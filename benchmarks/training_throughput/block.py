"""What one contender did in one block: a process of its own that trains a few steps and says how long each took."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ContenderName = Literal["hotswap", "trl", "loop"]
TITLES: dict[ContenderName, str] = {
    "hotswap": "Hotswap",
    "trl": "TRL SFTTrainer, its defaults",
    "loop": "plain transformers loop",
}


class BlockTask(BaseModel):
    """What to train. The same for every contender, so that only the way differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contender: ContenderName
    base: str = Field(description="Folder of the base model.")
    train: str = Field(description="JSONL file with chat examples.")
    validation: str = Field(description="JSONL file with chat examples; its loss is measured afterwards.")
    validation_examples: Annotated[int, Field(ge=0)] = 64
    steps: Annotated[int, Field(ge=1)] = 16
    warmup_steps: Annotated[int, Field(ge=0)] = 3
    examples_per_step: Annotated[int, Field(ge=1)] = 8
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0


class BlockResult(BaseModel):
    """Times of the steps after the warm-up. Tokens are those of the examples: padding does not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contender: ContenderName
    round: int = 0
    step_seconds: list[float]
    step_tokens: list[int]
    step_positions: list[int] = Field(description="Positions computed, padding included.")
    validation_loss: float | None = Field(
        description="Mean negative log-likelihood of a supervised token after the last step, in nats."
    )
    precision: str
    peak_memory_bytes: int
    foreign_cpu_share: float = Field(description="Share of the machine that other processes used meanwhile.")

    @property
    def tokens_per_second(self) -> float:
        """Over all measured steps."""
        return sum(self.step_tokens) / sum(self.step_seconds)
