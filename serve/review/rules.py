"""The rules file of the shipped policy: named rules of words, phrases and expressions, checked at start.

TOML or YAML, by the file's ending. Every fault is told with its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import regex
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from serve.errors import SettingsError
from serve.review.expression import Expression, ExpressionError, parse_expression
from serve.review.verdict import Stage
from serve.review.word_list import parse_words

Action = Literal["refuse", "redact", "flag"]
MAX_FILE_BYTES = 4 * 1024 * 1024
DEFAULT_REPLACEMENT = "[redacted]"
_KINDS = ("words", "phrases", "regexes")
_FLAGS = regex.VERSION0 | regex.IGNORECASE
_TABLE = re.compile(r"^\s*\[\[\s*rule\s*\]\]")

_RuleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
# Put into JSON texts (arguments of tools) as it is.
_Replacement = Annotated[str, StringConstraints(pattern=r'^[^"\\\x00-\x1f]{0,64}$')]
_Message = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class _RuleBody(BaseModel):
    """One rule as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _RuleName
    action: Action
    applies_to: Annotated[list[Stage], Field(min_length=1)]
    adapters: Annotated[list[str], Field(min_length=1)] | None = None
    words: list[_Word] = []
    phrases: list[_Word] = []
    regexes: list[_Word] = []
    replacement: _Replacement | None = None
    message: _Message | None = None


class _RulesBody(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rule: Annotated[list[_RuleBody], Field(min_length=1)]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule, ready to match folded text."""

    name: str
    action: Action
    stages: frozenset[Stage]
    adapters: frozenset[str] | None  # aliases, "base" among them; None: all
    expression: Expression
    pattern: Any  # regex.Pattern
    replacement: str
    message: str

    def applies(self, stage: Stage, adapter: str) -> bool:
        """Whether texts of that stage and adapter are looked at."""
        return stage in self.stages and (self.adapters is None or adapter in self.adapters)


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file. Raises SettingsError with every fault and its line."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"the rules file {path} has more than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the rules file {path} cannot be read: {error}") from None
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise SettingsError(f"the rules file {path} is neither .toml nor .yaml: its ending says what it is")
    values, lines = (_read_toml if path.suffix == ".toml" else _read_yaml)(path, text)
    try:
        body = _RulesBody.model_validate(values)
    except ValidationError as error:
        faults = [
            (lines.at(fault["loc"]), f"{_named(fault['loc'])}: {fault['msg']}")
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise _faulty(path, faults) from None
    rules: list[Rule] = []
    faults = []
    for place, written in enumerate(body.rule):
        if any(rule.name == written.name for rule in rules):
            faults.append((lines.at(("rule", place, "name")), f"there are two rules called {written.name!r}"))
        try:
            rules.append(_rule(written))
        except _FaultAtError as fault:
            faults.append((lines.at(("rule", place, *fault.where)), f"rule {written.name!r}: {fault}"))
    if faults:
        raise _faulty(path, faults)
    return rules


class _FaultAtError(ValueError):
    """What is wrong with a rule, and the field that says it."""

    def __init__(self, message: str, *where: str | int) -> None:
        super().__init__(message)
        self.where = where


def _rule(written: _RuleBody) -> Rule:
    if written.action == "redact" and "prompt" in written.applies_to:
        raise _FaultAtError(
            "a prompt is refused or flagged, never redacted: the model reads what the client wrote", "action"
        )
    if written.replacement is not None and written.action != "redact":
        raise _FaultAtError("'replacement' goes with the action 'redact'", "replacement")
    if written.message is not None and written.action != "refuse":
        raise _FaultAtError("'message' goes with the action 'refuse'", "message")
    if not any(getattr(written, kind) for kind in _KINDS):
        raise _FaultAtError("it has neither 'words' nor 'phrases' nor 'regexes'", "name")
    expression = _joined(_expressions(written))
    return Rule(
        name=written.name,
        action=written.action,
        stages=frozenset(written.applies_to),
        adapters=frozenset(written.adapters) if written.adapters is not None else None,
        expression=expression,
        pattern=regex.compile(expression.source, _FLAGS),
        replacement=DEFAULT_REPLACEMENT if written.replacement is None else written.replacement,
        message=written.message or f"the text was refused by the rule {written.name!r} of this server",
    )


def _expressions(written: _RuleBody) -> list[Expression]:
    found: list[Expression] = []
    for kind in ("words", "phrases"):
        listed: list[str] = getattr(written, kind)
        for place, word in enumerate(listed):
            if kind == "words" and len(word.split()) != 1:
                raise _FaultAtError(f"{word!r} is not one word; phrases go into 'phrases'", kind, place)
            try:
                parse_words([word])
            except ExpressionError as error:
                raise _FaultAtError(str(error), kind, place) from None
    if together := [*written.words, *written.phrases]:
        found.append(parse_words(together))
    for place, source in enumerate(written.regexes):
        try:
            expression = parse_expression(source)
            regex.compile(expression.source, _FLAGS)
        except (ExpressionError, regex.error) as error:
            raise _FaultAtError(f"{source!r}: {error}", "regexes", place) from None
        found.append(expression)
    return found


def _joined(expressions: Sequence[Expression]) -> Expression:
    return Expression(
        "|".join(f"(?:{each.source})" for each in expressions),
        "|".join(f"(?:{each.opener})" for each in expressions),
        min(each.min_chars for each in expressions),
        max(each.max_chars for each in expressions),
    )


def compile_opener(rules: Sequence[Rule]) -> Any:
    """A pattern whose partial search finds the first place from which a match may still depend on what follows.

    It never matches wholly, so that the search comes to the end of the text: there a partial match is an
    expression of some rule, and one character for its border, that the text is too short for.
    """
    openers = "|".join(f"(?:{rule.expression.opener})" for rule in rules)
    return regex.compile(f"(?:{openers})[\\s\\S](?!)", _FLAGS)


class _Lines:
    """Lines of a file by the place of a value in it."""

    def __init__(self, found: Mapping[tuple[str | int, ...], int]) -> None:
        self._found = found

    def at(self, place: Sequence[str | int]) -> int:
        """The line of that value, or of the nearest one around it."""
        key = tuple(place)
        while key and key not in self._found:
            key = key[:-1]
        return self._found.get(key, 1)


def _read_toml(path: Path, text: str) -> tuple[Any, _Lines]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the rules file {path} is not TOML: {error}") from None
    # tomllib keeps no lines: look for the tables, then for the keys and values below each.
    rows = text.splitlines()
    starts = [number for number, row in enumerate(rows) if _TABLE.match(row)]
    found: dict[tuple[str | int, ...], int] = {}
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else len(rows)
        found["rule", place] = start + 1
        for number in range(start + 1, end):
            key = rows[number].partition("=")[0].strip().strip("\"'")
            found.setdefault(("rule", place, key), number + 1)
        listed = values.get("rule")
        rule = listed[place] if isinstance(listed, list) and place < len(listed) else {}
        for kind in _KINDS:
            line = found.get(("rule", place, kind), start + 1)
            for index, value in enumerate(rule.get(kind, ()) if isinstance(rule, dict) else ()):
                written = str(value).replace("\\", "\\\\")
                line = next(
                    (n + 1 for n in range(line - 1, end) if str(value) in rows[n] or written in rows[n]), line
                )
                found["rule", place, kind, index] = line
    return values, _Lines(found)


def _read_yaml(path: Path, text: str) -> tuple[Any, _Lines]:
    import yaml

    try:
        values = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SettingsError(f"the rules file {path} is not YAML: {error}") from None
    found: dict[tuple[str | int, ...], int] = {}
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), root)]
    while todo:
        place, node = todo.pop()
        if node is None or place in found:
            continue
        found[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            todo += [((*place, cast("str", key.value)), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            todo += [((*place, index), value) for index, value in enumerate(node.value)]
    return values, _Lines(found)


def _named(place: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _faulty(path: Path, faults: Sequence[tuple[int, str]]) -> SettingsError:
    told = "\n".join(f"{path}:{line}: {message}" for line, message in sorted(faults))
    return SettingsError(f"the rules of review cannot be used:\n{told}")
