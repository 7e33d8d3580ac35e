"""What a check found, and tensors to be found wrong."""

from __future__ import annotations

from pathlib import Path

from adapters.artefact import WEIGHTS_NAME
from adapters.report import CheckReport
from tests.adapters.conftest import load_tensors, write_tensors

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def codes(report: CheckReport) -> set[str]:
    return {problem.code for problem in report.problems}


def only(report: CheckReport, code: str) -> str:
    """The message of the only kind of problem there is."""
    assert codes(report) == {code}, report.render()
    return report.problems[0].message


def edit_tensors(adapter: Path, **changes) -> None:
    tensors = load_tensors(adapter)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    write_tensors(adapter / WEIGHTS_NAME, tensors)
