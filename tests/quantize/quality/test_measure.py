"""The figures, against the same computed by hand, and what must hold of them whatever the models."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from quantize.quality.errors import QualityError
from quantize.quality.measure import measure_quality

VOCABULARY = 7


class Table:
    """A model that knows the next token's logits from the last token alone."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.generation_config = SimpleNamespace(eos_token_id=None)

    def __call__(self, *, input_ids: torch.Tensor, **given: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids], past_key_values=None)


@pytest.fixture
def tables() -> tuple[Table, Table]:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    noise = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    return Table(original), Table(original + 0.3 * noise)


@pytest.fixture
def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, VOCABULARY, (size,), generator=generator).tolist() for size in (300, 40, 7, 2)]


def silent(text: str) -> None:
    """Nobody is waiting."""


def test_figures_are_those_of_the_definition(tables: tuple[Table, Table], rows: list[list[int]]) -> None:
    figures = measure_quality(*tables, rows, progress=silent)
    left, right = (torch.log_softmax(table.logits.double(), -1).numpy() for table in tables)
    pairs = [(row[i], row[i + 1]) for row in rows for i in range(len(row) - 1)]
    kl = [float((np.exp(left[a]) * (left[a] - right[a])).sum()) for a, _ in pairs]
    nats = [[-float(table[a, b]) for a, b in pairs] for table in (left, right)]
    assert figures.num_tokens == len(pairs)
    assert figures.original_perplexity.value == pytest.approx(math.exp(np.mean(nats[0])), rel=1e-5)
    assert figures.quantised_perplexity.value == pytest.approx(math.exp(np.mean(nats[1])), rel=1e-5)
    assert figures.perplexity_ratio.value == pytest.approx(
        figures.quantised_perplexity.value / figures.original_perplexity.value
    )
    assert figures.mean_kl_nats.value == pytest.approx(np.mean(kl), rel=1e-4)
    assert figures.p99_kl_nats.value == pytest.approx(np.quantile(kl, 0.99, method="inverted_cdf"), rel=1e-4)
    same = np.mean([left[a].argmax() == right[a].argmax() for a, _ in pairs])
    assert figures.top1_agreement.value == pytest.approx(same)


def test_a_model_beside_itself_has_lost_nothing(tables: tuple[Table, Table], rows: list[list[int]]) -> None:
    figures = measure_quality(tables[0], tables[0], rows, prompts=[[1, 2]], progress=silent)
    assert figures.perplexity_ratio.value == 1.0
    assert figures.mean_kl_nats.value == figures.p99_kl_nats.value == figures.base_rounding == 0.0
    assert figures.top1_agreement.value == 1.0


def test_intervals_hold_the_value_and_repeat(tables: tuple[Table, Table], rows: list[list[int]]) -> None:
    figures = measure_quality(*tables, rows * 5, progress=silent)
    for name in ("original_perplexity", "perplexity_ratio", "mean_kl_nats", "p99_kl_nats", "top1_agreement"):
        figure = getattr(figures, name)
        assert figure.low <= figure.value <= figure.high
        assert figure == getattr(measure_quality(*tables, rows * 5, progress=silent), name)
    kl = figures.mean_kl_nats
    assert kl.low is not None
    assert kl.high is not None
    assert kl.low < kl.high
    alone = measure_quality(*tables, rows[:1], progress=silent)
    assert (alone.mean_kl_nats.low, alone.mean_kl_nats.high) == (None, None)


def test_a_token_that_the_original_rules_out_leaves_the_figures_finite(rows: list[list[int]]) -> None:
    logits = torch.zeros(VOCABULARY, VOCABULARY)
    logits[:, 0] = -torch.inf
    figures = measure_quality(
        Table(logits), Table(logits * 1.0), [[1, 2, 3, 4], [3, 3, 1, 2]], progress=silent
    )
    assert figures.mean_kl_nats.value == 0.0
    assert figures.original_perplexity.value == pytest.approx(VOCABULARY - 1)


def test_the_figures_go_to_json_and_back(tables: tuple[Table, Table], rows: list[list[int]]) -> None:
    figures = measure_quality(*tables, rows, prompts=[[1], [2, 3]], progress=silent)
    assert type(figures).model_validate_json(figures.model_dump_json()) == figures
    assert figures.num_rounding_tokens == 32


@pytest.mark.parametrize("rows", [[], [[1, 2], [3]]])
def test_rows_that_predict_nothing_are_refused(tables: tuple[Table, Table], rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        measure_quality(*tables, rows, progress=silent)


def test_a_base_that_gives_no_numbers_is_an_error(tables: tuple[Table, Table]) -> None:
    broken = Table(torch.full((VOCABULARY, VOCABULARY), torch.nan))
    with pytest.raises(QualityError, match="The quantised base gives log probabilities that are no finite"):
        measure_quality(tables[0], broken, [[1, 2, 3]], progress=silent)
