"""Answers with the fast path on and off: who is asked what, and what counts as the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.export.fidelity import Answer
from benchmarks.fast_path import __main__, trial
from benchmarks.fast_path.trial import OFF_PATCHES, Trial, ask, compare, questions
from benchmarks.fidelity.answers import Messages

PROMPTS: list[Messages] = [[{"role": "user", "content": f"question {number}"}] for number in range(5)]
SMALL = Trial("scripted", "float32", adapters=2, ranks=(4, 8), num_tokens=3, concurrency=4)
SURE, TIED = (0.5, 0.5), (0.5, 0.0001)


def test_neighbours_have_different_adapters_and_the_base_takes_part() -> None:
    named = [name for name, _ in questions(PROMPTS, 2)]
    assert named == [None, "adapter-0", "adapter-1", None, "adapter-0"]


def test_a_gateway_is_asked_in_mixed_batches_with_its_own_adapters() -> None:
    said: list[str] = []
    first, again = ask(SMALL, PROMPTS, "auto", concurrency=(4, 1), say=said.append)
    assert first == again  # the scripted engine says what its adapter makes it say, whoever else asks
    assert [len(answer.token_ids) for answer in first] == [3] * len(PROMPTS)
    assert all(len(answer.margins) == 3 for answer in first)
    assert len({answer.logprobs for answer in first[:3]}) == 3  # base and both adapters differ
    assert any("--cpu-patches auto" in line for line in said)


def stand_in(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer]) -> None:
    """Let the gateways with these parts give these answers."""

    def ask(
        trial: Trial,
        prompts: Sequence[Messages],
        patches: str,
        *,
        concurrency: Iterable[int],
        say: Callable[[str], None],
    ) -> list[list[Answer]]:
        return [[answers[patches]] * len(prompts) for _ in concurrency]

    monkeypatch.setattr(trial, "ask", ask)


@pytest.mark.parametrize(
    ("margins", "second_token", "ties", "faithful"),
    [(SURE, 2, 0, True), (TIED, 3, 5, True), (SURE, 3, 0, False)],
)
def test_what_parts_where_the_reference_was_sure_is_not_the_same(
    monkeypatch: pytest.MonkeyPatch,
    margins: tuple[float, ...],
    second_token: int,
    ties: int,
    faithful: bool,
) -> None:
    reference = Answer((1, 2), (-0.1, -0.2), margins)
    found = Answer((1, second_token), (-0.1, -0.2), margins)
    stand_in(monkeypatch, {OFF_PATCHES: reference, "auto": found})
    control, row = compare(SMALL, PROMPTS, ["auto"], tie_nats=1e-3, say=lambda _: None)
    assert control.outcome.share_equal == 1.0
    assert (row.outcome.num_ties, row.outcome.is_faithful) == (ties, faithful)


@pytest.mark.parametrize(("second_token", "exit_code", "neither"), [(2, 0, 0), (3, 1, 5)])
def test_the_report_has_the_shares_and_the_exit_code_the_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second_token: int, exit_code: int, neither: int
) -> None:
    reference = Answer((1, 2), (-0.1, -0.2), SURE)
    found = Answer((1, second_token), (-0.1, -0.25), SURE)
    stand_in(monkeypatch, {OFF_PATCHES: reference, "lora-grouped": found})
    result = CliRunner().invoke(
        __main__.app, ["--patches", "lora-grouped", "--prompts", "5", "--out", str(tmp_path)]
    )
    assert result.exit_code == exit_code, result.output
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text in result.stdout
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "on: lora-grouped"
    assert int(cells[4]) == neither
