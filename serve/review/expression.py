"""The regular expressions that rules may use: those whose matches can be told apart while text still streams in.

A subset of the usual syntax: every repetition has an upper bound, and nothing looks further than one character
beyond the match. So a match has a longest length, text is held back for no longer than that, and what a stream
lets through is what the whole text would have.
"""

from __future__ import annotations

from dataclasses import dataclass

from serve.review.folding import fold_char

MAX_MATCH_CHARS = 256
_CLASSES = frozenset("dDwWsS")
_BORDERS = frozenset("bB")
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r"}
_QUANTIFIERS = frozenset("?*+{")


class ExpressionError(ValueError):
    """An expression that rules cannot use; the message says why and what to write."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression on folded text."""

    source: str  # for `regex`
    opener: str  # the same without word borders: matches whatever `source` matches, or more
    min_chars: int
    max_chars: int


def parse_expression(text: str) -> Expression:
    """Check and fold an expression. Raises ExpressionError."""
    parser = _Parser(text)
    parsed = parser.alternation()
    if parser.place < len(text):
        raise ExpressionError("there is a ')' without a '('; write \\) for the character")
    if parsed.min_chars == 0:
        raise ExpressionError("it matches the empty text, and so everywhere; make one part of it required")
    if parsed.max_chars > MAX_MATCH_CHARS:
        raise ExpressionError(
            f"it matches up to {parsed.max_chars} characters; at most {MAX_MATCH_CHARS} are taken, because so "
            "much of a stream would be held back"
        )
    return parsed


def escape_literal(text: str) -> str:
    """A folded text as an expression that matches it and nothing else."""
    return "".join(char if char.isalnum() or not char.isascii() else f"\\{char}" for char in text)


class _Parser:
    """Recursive descent; each part gives its source, its opener and how long it can be."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.place = 0

    def alternation(self) -> Expression:
        branches = [self._sequence()]
        while self._peek() == "|":
            self.place += 1
            branches.append(self._sequence())
        return Expression(
            "|".join(branch.source for branch in branches),
            "|".join(branch.opener for branch in branches),
            min(branch.min_chars for branch in branches),
            max(branch.max_chars for branch in branches),
        )

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._quantified(self._atom()))
        return Expression(
            "".join(part.source for part in parts),
            "".join(part.opener for part in parts),
            sum(part.min_chars for part in parts),
            sum(part.max_chars for part in parts),
        )

    def _atom(self) -> Expression:
        char = self._take()
        match char:
            case "(":
                return self._group()
            case "[":
                return _any_of(self._class())
            case "\\":
                return self._escape()
            case ".":
                return _any_of(".")
            case "^" | "$":
                raise ExpressionError(
                    f"{char!r} is not taken: a rule looks everywhere in a text, and a stream has no end yet; "
                    f"write \\{char} for the character"
                )
            case _ if char in _QUANTIFIERS:
                raise ExpressionError(f"{char!r} repeats nothing; write \\{char} for the character")
            case _:
                return _literal(char)

    def _group(self) -> Expression:
        if self._peek() == "?":
            if self._text[self.place : self.place + 2] != "?:":
                raise ExpressionError("of the groups that begin with '(?' only '(?:' is taken")
            self.place += 2
        inner = self.alternation()
        if self._peek() != ")":
            raise ExpressionError("there is a '(' without a ')'; write \\( for the character")
        self.place += 1
        return Expression(f"(?:{inner.source})", f"(?:{inner.opener})", inner.min_chars, inner.max_chars)

    def _quantified(self, atom: Expression) -> Expression:
        sign = self._peek()
        if sign not in _QUANTIFIERS or sign == "":
            return atom
        if sign in "*+":
            raise ExpressionError(f"{sign!r} has no upper bound; write for example {{{int(sign == '+')},40}}")
        self.place += 1
        least, most = (0, 1) if sign == "?" else self._bounds()
        lazy = ""
        if self._peek() == "?":
            lazy = "?"
            self.place += 1
        if self._peek() in _QUANTIFIERS and self._peek():
            raise ExpressionError("a repetition of a repetition needs a group: (?:a{1,3}){2}")
        times = f"{{{least},{most}}}{lazy}"
        return Expression(
            f"(?:{atom.source}){times}",
            f"(?:{atom.opener}){times}",
            atom.min_chars * least,
            atom.max_chars * most,
        )

    def _bounds(self) -> tuple[int, int]:
        end = self._text.find("}", self.place)
        inside = self._text[self.place : end] if end >= 0 else ""
        least, comma, most = inside.partition(",")
        if not (least.isascii() and least.isdigit()) or (comma and not (most.isascii() and most.isdigit())):
            raise ExpressionError("write {n} or {n,m} with both bounds, or \\{ for the character")
        self.place = end + 1
        bounds = int(least[:6]), int((most if comma else least)[:6])
        if bounds[0] > bounds[1] or bounds[1] == 0:
            raise ExpressionError(f"the bounds {{{inside}}} are in the wrong order, or nothing")
        return bounds

    def _escape(self) -> Expression:
        char = self._take("the expression ends with a lone backslash")
        if char in _CLASSES:
            return _any_of(f"\\{char}")
        if char in _BORDERS:
            return Expression(f"\\{char}", "", 0, 0)
        return _literal(self._escaped_char(char))

    def _escaped_char(self, char: str) -> str:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char in "xu":
            digits = self._text[self.place : self.place + (2 if char == "x" else 4)]
            self.place += len(digits)
            try:
                return chr(int(digits, 16))
            except ValueError:
                raise ExpressionError(f"\\{char} wants hexadecimal digits") from None
        if char.isalnum():
            raise ExpressionError(
                f"\\{char} is not taken; the escapes are \\d \\w \\s \\b, \\t \\n \\r, \\xHH, \\uHHHH"
            )
        return char

    def _class(self) -> str:
        """The source of a class; its '[' is taken already."""
        parts = ["["]
        if self._peek() == "^":
            parts.append("^")
            self.place += 1
        first = True
        while (
            char := self._take("there is a '[' without a ']'; write \\[ for the character")
        ) != "]" or first:
            first = False
            if char == "\\" and self._peek() in _CLASSES:
                parts.append(f"\\{self._take()}")
                continue
            low = self._escaped_char(self._take()) if char == "\\" else char
            if self._peek() != "-" or self._text[self.place + 1 : self.place + 2] in ("]", ""):
                parts.append(_class_char(low))
                continue
            self.place += 1
            char = self._take()
            high = self._escaped_char(self._take()) if char == "\\" else char
            parts.append(_class_range(low, high))
        return "".join(parts) + "]"

    def _peek(self) -> str:
        return self._text[self.place : self.place + 1]

    def _take(self, otherwise: str = "the expression ends too early") -> str:
        char = self._peek()
        if not char:
            raise ExpressionError(otherwise)
        self.place += 1
        return char


def _any_of(source: str) -> Expression:
    return Expression(source, source, 1, 1)


def _literal(char: str) -> Expression:
    folded = fold_char(char)
    if not folded:
        raise ExpressionError(f"{char!a} is left out of texts before they are compared; leave it out too")
    source = escape_literal(folded)
    return Expression(source, source, len(folded), len(folded))


def _class_char(char: str) -> str:
    folded = fold_char(char)
    if len(folded) != 1:
        raise ExpressionError(
            f"{char!a} in a class stands for {len(folded)} characters after folding; write it outside, "
            "as one of (?:a|b)"
        )
    return escape_literal(folded)


def _class_range(low: str, high: str) -> str:
    for char in (low, high):
        if not char.isascii() and fold_char(char) != char:
            raise ExpressionError(f"{char!a} cannot end a range, because texts are folded first")
    if low > high:
        raise ExpressionError(f"the range {low}-{high} is in the wrong order")
    return f"{escape_literal(low)}-{escape_literal(high)}"
