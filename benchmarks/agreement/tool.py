"""What an outside tool is: a package, a command line, and a file of figures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agreement.errors import ToolRunError
from benchmarks.agreement.workload import Reading, Workload
from benchmarks.tool_command import clean_environment

_GRACE_SECONDS = 300.0  # for its start, its end and the requests under way


@dataclass(frozen=True, slots=True)
class Tool:
    """`command` gives the arguments after the program; `result` is the file that it writes into its folder."""

    name: str
    requirement: str
    needs_torch: bool
    command: Callable[[Workload, Path], Sequence[str]]
    result: str
    read: Callable[[dict[str, Any]], Reading]
    definitions: str  # how its words differ from ours
    environment: dict[str, str]

    def run(self, programs: Path, workload: Workload, folder: Path) -> Reading:
        """One run; what the tool said and wrote stays in `folder`. Raises ToolRunError."""
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{self.name}.log"
        with log.open("w", encoding="utf-8") as out:
            try:
                code = subprocess.run(
                    [str(programs / self.name), *self.command(workload, folder)],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    env={**clean_environment(), **self.environment},
                    timeout=workload.seconds + _GRACE_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise ToolRunError(
                    f"{self.name} did not end {_GRACE_SECONDS:g} s after its load; its log is {log}"
                ) from None
        try:
            found: dict[str, Any] = json.loads((folder / self.result).read_text(encoding="utf-8"))
            return self.read(found)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])
            raise ToolRunError(
                f"{self.name} ended with exit code {code} and without figures ({type(error).__name__}: {error}); "
                f"the end of {log}:\n{said}"
            ) from None
