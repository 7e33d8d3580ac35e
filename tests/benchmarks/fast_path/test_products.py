"""The comparison of small products: both sides compute the same, and every run has its figure."""

from __future__ import annotations

import pytest
import torch

from benchmarks.fast_path import products


def test_both_sides_compute_the_same_change() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, 4, generator=generator), torch.randn(4, 8, generator=generator)
    x = torch.randn(5, 16, generator=generator).bfloat16()
    wide, native = torch.zeros(5, 8).bfloat16(), torch.zeros(5, 8).bfloat16()
    products._wide(wide, x, a, b)
    products._native(native, x, a, b)
    torch.testing.assert_close(wide.float(), x.float() @ a @ b, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(native.float(), wide.float(), rtol=5e-2, atol=1e-1)


def test_every_rank_and_run_has_a_figure_and_threads_are_as_before() -> None:
    threads = torch.get_num_threads()
    figures = products.measure(ranks=(2, 4), runs=((3, 5), (8, 10)), layers=((16, 8, 1),), lengths=5)
    assert torch.get_num_threads() == threads
    assert [(each.rank, each.rows) for each in figures] == [
        (2, (3, 5)),
        (2, (8, 10)),
        (4, (3, 5)),
        (4, (8, 10)),
    ]
    assert all(min(each.float32, each.first, each.again) > 0 for each in figures)


@pytest.mark.parametrize("runs", [((3, 5),), ((3, 5), (8, 10))])
def test_the_table_has_a_line_for_each(runs: tuple[tuple[int, int], ...]) -> None:
    figures = [products.Figure(8, run, 100.4, 900.0, 80.6) for run in runs]
    lines = products.table(figures).splitlines()
    assert len(lines) == 2 + len(runs)
    assert lines[2] == "| 8 | 3 to 4 | 100 | 81 | 900 |"
