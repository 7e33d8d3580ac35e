"""An adapter pays when what it takes off the divergence is more than chance."""

from __future__ import annotations

import random

from quantize.recovery.gain import gain_of, is_sure


def test_a_gain_on_every_row_is_sure_though_rows_differ_widely() -> None:
    before = [0.1 * number for number in range(1, 13)]
    gain = gain_of(before, [value - 0.01 for value in before], seed=0)
    assert is_sure(gain) and abs(gain.value - 0.01) < 1e-9


def test_noise_around_nothing_is_not_sure() -> None:
    source = random.Random(0)
    before = [1.0] * 20
    after = [1.0 + source.gauss(0, 0.1) for _ in before]
    assert not is_sure(gain_of(before, after, seed=0))


def test_a_loss_is_not_sure() -> None:
    assert not is_sure(gain_of([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], seed=0))


def test_one_row_says_nothing() -> None:
    assert not is_sure(gain_of([1.0], [0.1], seed=0))
