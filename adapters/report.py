"""What the check of an adapter found: problems, warnings and facts, as data and as a table for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from adapters.errors import AdapterCheckError

MAX_FINDINGS_PER_CODE = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: a stable `code`, a `message` with the values and the way out, and what it is about.

    `subject` is a file, a configuration key or a tensor; empty where it is the adapter as a whole.
    """

    code: str
    message: str
    subject: str = ""


@dataclass(slots=True)
class Findings:
    """Collects problems and keeps at most MAX_FINDINGS_PER_CODE of one code, counting the rest."""

    _kept: list[Problem] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, code: str, message: str, subject: str = "") -> None:
        """Add one finding; a long subject is cut, and what cannot be printed in it is escaped."""
        count = self._counts.get(code, 0)
        self._counts[code] = count + 1
        if count < MAX_FINDINGS_PER_CODE:
            shown = ascii(subject)[1:-1]
            self._kept.append(Problem(code, message, shown if len(shown) <= 160 else shown[:157] + "..."))

    def extend(self, problems: tuple[Problem, ...] | list[Problem]) -> None:
        """Add findings made elsewhere."""
        for problem in problems:
            self.add(problem.code, problem.message, problem.subject)

    def has(self, code: str) -> bool:
        """Whether a finding of that code was added."""
        return code in self._counts

    def listed(self) -> tuple[Problem, ...]:
        """All that was kept, in order, and one line for each code of which there were more."""
        more = [
            Problem(code, f"and {count - MAX_FINDINGS_PER_CODE} more of the same kind.")
            for code, count in self._counts.items()
            if count > MAX_FINDINGS_PER_CODE
        ]
        return (*self._kept, *more)


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What is known about an adapter; None where the files did not say.

    `rank` is the largest rank of any module. `num_bytes` is the size of the weights file. `digest` names the
    version and is there only when every value could be read.
    """

    rank: int | None = None
    alpha: float | None = None
    rslora: bool | None = None
    target_modules: tuple[str, ...] = ()
    num_modules: int | None = None
    num_tensors: int | None = None
    num_parameters: int | None = None
    num_bytes: int | None = None
    dtype: str | None = None
    digest: str | None = None
    base_name: str | None = None
    base_fingerprint: str | None = None
    has_manifest: bool = False
    has_probe: bool = False
    ignored_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of a check. Problems stop an adapter from being loaded, warnings do not."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    facts: AdapterFacts

    @property
    def ok(self) -> bool:
        """Whether the adapter may be loaded."""
        return not self.problems

    def raise_for_problems(self) -> None:
        """Raise AdapterCheckError when there is at least one problem."""
        if self.problems:
            raise AdapterCheckError(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def render(self) -> str:
        """The report as lines for a terminal."""
        rows = [(label, value) for label, value in _fact_rows(self.facts) if value]
        width = max((len(label) for label, _ in rows), default=0)
        lines = [f"{label:<{width}}  {value}" for label, value in rows]
        for title, findings in (("PROBLEM", self.problems), ("warning", self.warnings)):
            for finding in findings:
                about = f" ({finding.subject})" if finding.subject else ""
                lines += ["", f"{title} {finding.code}{about}", f"    {finding.message}"]
        verdict = "This adapter can be loaded." if self.ok else "This adapter cannot be loaded."
        return "\n".join([*lines, "", verdict])


def _fact_rows(facts: AdapterFacts) -> list[tuple[str, str]]:
    scaling = f", alpha {facts.alpha:g}" if facts.alpha is not None else ""
    rslora = ", rank-stabilised" if facts.rslora else ""
    size = f"{facts.num_bytes / 1024**2:.1f} MiB" if facts.num_bytes is not None else ""
    dtype = f", {facts.dtype}" if facts.dtype and size else ""
    parameters = f", {facts.num_parameters:,} parameters" if facts.num_parameters is not None else ""
    return [
        ("digest", facts.digest or ""),
        ("rank", f"{facts.rank}{scaling}{rslora}" if facts.rank is not None else ""),
        ("modules", f"{facts.num_modules}: {', '.join(facts.target_modules)}" if facts.num_modules else ""),
        ("weights", f"{size}{dtype}{parameters}"),
        ("base", facts.base_name or ""),
        ("manifest", "yes" if facts.has_manifest else "no"),
        ("probe", "yes" if facts.has_probe else "no"),
        ("not read", ", ".join(facts.ignored_files)),
    ]
