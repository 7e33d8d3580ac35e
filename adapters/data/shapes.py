"""From a row of a file to an example: which columns mean what, by their names or by the user's column map.

The first shape in the order of `SHAPES` whose columns all have a value is taken. What the others would have used is
reported as unused, so that an ambiguous file is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adapters.data.conversation import RowError, check_learnable, parse_messages
from adapters.data.example import Example, Message, Origin
from adapters.data.readers.row import Row
from adapters.data.source import DEFAULT_TASK
from adapters.errors import DataError

ChatMode = Literal["auto", "on", "off"]

SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "chat": ("messages",),
    "instruction": ("instruction", "output"),
    "question": ("question", "answer"),
    "completion": ("prompt", "completion"),
    "text": ("text",),
}
_OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "messages": ("conversations",),
    "output": ("response",),
    "input": ("context",),
    "completion": ("response",),
}
_OPTIONAL: Final = ("input", "system", "label", "task")
CONTENT_FIELDS: Final = tuple(dict.fromkeys(name for names in SHAPES.values() for name in names))
FIELDS: Final = (*CONTENT_FIELDS, *_OPTIONAL)
_BECOMES_CHAT: Final = frozenset({"instruction", "question"})


@dataclass(slots=True)
class Shaper:
    """Turns rows into examples, and remembers what it did not use.

    `columns` maps fields (see `FIELDS`) to the file's columns. `chat` says whether prompts and answers become a
    conversation: `auto` does so for instructions and questions, and leaves prompt and completion raw text.
    `system` begins every conversation that has no system text of its own. `label_pattern` has one group and finds
    the label in the answer where no column gives it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    chat: ChatMode = "auto"
    system: str | None = None
    label_pattern: re.Pattern[str] | None = None
    task: str = DEFAULT_TASK

    num_without_system: int = 0
    num_without_label: int = 0
    _first: Origin | None = None
    _seen: dict[str, None] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def shape(self, row: Row) -> Example:
        """Raises RowError for a row that is no example."""
        self._first = self._first or row.origin
        self._seen.update(dict.fromkeys(row.values))
        fields = self._fields(row.values)
        name = next((name for name, needed in SHAPES.items() if all(part in fields for part in needed)), None)
        if name is None:
            raise RowError(self._unknown_shape(row.values, fields))
        given = {part: fields[part] for part in (*SHAPES[name], *_OPTIONAL) if part in fields}
        example = self._build(name, {part: row.values[column] for part, column in given.items()}, row.origin)
        self._used.update(given.values())
        return self._with_label(example)

    def check_columns(self) -> None:
        """Raise DataError when a column of the map was in no row at all."""
        for name, column in self.columns.items():
            if self._first is not None and column not in self._seen:
                raise DataError(f"{self._first}: {_no_column(name, column, self._seen)}.")

    def unused_columns(self) -> list[str]:
        """Columns that no example took anything from."""
        return [column for column in self._seen if column not in self._used]

    def _fields(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Field to the column that holds it, for every field that has a value in this row."""
        mapped = {name: column for name, column in self.columns.items() if column in values}
        missing = [name for name in self.columns if name in CONTENT_FIELDS and name not in mapped]
        if missing:
            raise RowError(_no_column(missing[0], self.columns[missing[0]], values))
        # A map that says where the content is says all of it: other columns are not guessed at.
        mapped_content = any(name in CONTENT_FIELDS for name in self.columns)
        guessed = [name for name in FIELDS if not mapped_content or name in ("system", "label", "task")]
        taken = set(self.columns.values())
        found = dict(mapped)
        for name in guessed:
            for column in (name, *_OTHER_NAMES.get(name, ())):
                free = name not in self.columns and name not in found and column not in taken
                if free and not _is_missing(values.get(column)):
                    found[name] = column
        return {
            name: column
            for name, column in found.items()
            if not (_is_missing(values[column]) or (name in _OPTIONAL and values[column] == ""))
        }

    def _build(self, name: str, values: dict[str, Any], origin: Origin) -> Example:
        task = self.task
        if task == DEFAULT_TASK and "task" in values:
            task = _text(values["task"], "task").strip() or DEFAULT_TASK
        label = _label(values["label"]) if "label" in values else None
        system = _text(values["system"], "system") if "system" in values else self.system
        if name == "chat":
            messages = parse_messages(values["messages"], field="messages")
        elif name == "text":
            text = _filled(values, "text")
            self.num_without_system += system is not None
            return Example(origin, text=text, label=label, task=task)
        else:
            first, last = SHAPES[name]
            is_list = isinstance(values[first], list) or isinstance(values[last], list)
            if not is_list and not (self.chat == "on" or (self.chat == "auto" and name in _BECOMES_CHAT)):
                self.num_without_system += system is not None
                prompt, completion = _prompt(values, first), _filled(values, last)
                return Example(origin, prompt=prompt, completion=completion, label=label, task=task)
            messages = (*_turns(values, first, "user"), *_turns(values, last, "assistant"))
        if system is not None and messages[0].role != "system":
            messages = (Message("system", system), *messages)
        check_learnable(messages)
        return Example(origin, messages=messages, label=label, task=task)

    def _with_label(self, example: Example) -> Example:
        if self.label_pattern is None or example.label is not None:
            return example
        from dataclasses import replace

        match = self.label_pattern.search(example.answer)
        label = match.group(1).strip() if match and match.group(1) else ""
        if not label:
            self.num_without_label += 1
            return example
        return replace(example, label=label)

    def _unknown_shape(self, values: Mapping[str, Any], fields: Mapping[str, str]) -> str:
        for needed in SHAPES.values():
            there = [part for part in needed if part in fields]
            if there:
                gone = next(part for part in needed if part not in fields)
                near = _nearest(gone, [column for column in values if column not in fields.values()])
                hint = (
                    f"; did you mean {near!r}? Then say --columns {there[0]}={fields[there[0]]},{gone}={near}"
                )
                return (
                    f"there is a {there[0]} but no {gone} (columns: {_listed(values)}){hint if near else ''}"
                )
        known = "; ".join(" + ".join(needed) for needed in SHAPES.values())
        return (
            f"the columns {_listed(values)} are no known shape ({known}); name them, for example with "
            "--columns prompt=COLUMN,completion=COLUMN"
        )


def _turns(values: Mapping[str, Any], name: str, role: Literal["user", "assistant"]) -> tuple[Message, ...]:
    if isinstance(values[name], list):
        return parse_messages(values[name], field=name)
    text = _prompt(values, name) if role == "user" else _filled(values, name)
    return (Message(role, text),)


def _prompt(values: Mapping[str, Any], name: str) -> str:
    """The prompt, followed by the instruction's input where it has one."""
    text = _filled(values, name)
    if name == "instruction" and "input" in values:
        given = _text(values["input"], "input")
        return f"{text}\n\n{given}" if given.strip() else text
    return text


def _filled(values: Mapping[str, Any], name: str) -> str:
    text = _text(values[name], name)
    if not text.strip():
        raise RowError(f"the {name} is empty; write it or leave the example out")
    return text


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError(f"the {name} holds {type(value).__name__} {str(value)[:40]!r}, not text")


def _label(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # tables turn whole numbers with gaps into floats
        return str(int(value))
    return _text(value, "label").strip() or None


def _is_missing(value: Any) -> bool:
    """Null, or the NaN by which tables of numbers say the same."""
    return value is None or (isinstance(value, float) and value != value)


def _no_column(name: str, column: str, there: Mapping[str, Any]) -> str:
    near = _nearest(column, there)
    hint = f"; did you mean {near!r}?" if near else ""
    return f"there is no column {column!r}, which --columns names as the {name}; there are {_listed(there)}{hint}"


def _nearest(name: str, there: Any) -> str | None:
    from difflib import get_close_matches

    by_lower = {str(column).lower(): str(column) for column in there}
    near = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def _listed(names: Mapping[str, Any]) -> str:
    shown = [repr(name) for name in list(names)[:12]]
    more = len(names) - len(shown)
    return (", ".join(shown) + (f" and {more} more" if more else "")) or "(none)"
