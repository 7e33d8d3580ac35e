"""What the parts have measured so far: one JSON file each, kept after every figure, so that a run can go on.

An item counts only for what it was measured on: with another base, another adapter or another size it is measured
again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.quantisation.errors import RecordError

T = TypeVar("T", bound=BaseModel)


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subject: str
    figures: dict[str, Any]


class Record(Generic[T]):
    """Figures of one part by name, in `path`. Raises RecordError for a file that is none."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._kind = kind
        self._items = self._read()

    def get(self, name: str, subject: str | None = None) -> T | None:
        """The figures of that name; None where there are none, or they are of another subject."""
        item = self._items.get(name)
        if item is None or (subject is not None and item.subject != subject):
            return None
        return self._figures(name, item)

    def put(self, name: str, subject: str, figures: T) -> T:
        """Keep figures, at once; an earlier item of that name goes."""
        self._items[name] = _Item(subject=subject, figures=figures.model_dump(mode="json"))
        self._write()
        return figures

    def drop(self, name: str) -> None:
        """Forget an item, if there is one."""
        if self._items.pop(name, None) is not None:
            self._write()

    def all(self) -> dict[str, T]:
        """Every item by name, in the order of recording."""
        return {name: self._figures(name, item) for name, item in self._items.items()}

    def _figures(self, name: str, item: _Item) -> T:
        try:
            return self._kind.model_validate(item.figures)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise RecordError(
                f"{self.path} holds {name!r} in another form ({where}: {fault['msg']}); remove the file to "
                "measure again"
            ) from None

    def _read(self) -> dict[str, _Item]:
        if not self.path.is_file():
            return {}
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: _Item.model_validate(item) for name, item in raw.items()}
        except (OSError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise RecordError(
                f"{self.path} is no record of this benchmark ({reason}); remove it to measure again"
            ) from None

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        raw = {name: item.model_dump(mode="json") for name, item in self._items.items()}
        partial.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(self.path)
