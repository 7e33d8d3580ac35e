"""Words and phrases as one expression: compared letter by letter once, however many there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serve.review.expression import MAX_MATCH_CHARS, Expression, ExpressionError, escape_literal
from serve.review.folding import fold

# Scripts that put no space between words: there a word has no border to look for.
_UNSPACED = "".join(
    f"\\p{{{script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Hangul", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
)
_LETTER = f"[^\\W{_UNSPACED}]"  # a letter, digit or underscore that a word could go on with
_STARTS, _ENDS = f"(?<!{_LETTER})", f"(?!{_LETTER})"
# Between the words of a phrase: any white space, as it is when a line breaks there.
_SPACE, MAX_SPACE_CHARS = "\\s{1,4}", 4
_WHITE = "\n"  # stands for it in the tree


@dataclass(slots=True)
class _Node:
    after: dict[str, _Node] = field(default_factory=dict)
    ends: bool = False  # a word is complete here
    bordered: bool = False  # and must not go on with a letter


def parse_words(words: Iterable[str]) -> Expression:
    """Words and phrases that are matched whole. Raises ExpressionError."""
    import regex

    letter = regex.compile(_LETTER)
    bordered, free = _Node(), _Node()  # by whether the first character must not follow a letter
    lengths: list[int] = []
    for word in words:
        tokens = fold(word).split()
        if not tokens:
            raise ExpressionError(f"{word!a} has no character that is compared")
        chars = [char for token in tokens for char in (_WHITE, *token)][1:]
        length = len(chars) + chars.count(_WHITE) * (MAX_SPACE_CHARS - 1)
        if length > MAX_MATCH_CHARS:
            raise ExpressionError(f"{word[:40]!a}... is longer than {MAX_MATCH_CHARS} characters")
        lengths.append(length)
        node = bordered if letter.match(chars[0]) else free
        for char in chars:
            node = node.after.setdefault(char, _Node())
        node.ends = True
        node.bordered = bool(letter.match(chars[-1]))
    if not lengths:
        raise ExpressionError("there is no word in the list")
    trees = [(start, tree) for start, tree in ((_STARTS, bordered), ("", free)) if tree.after]
    return Expression(
        "|".join(start + _source(tree, _ENDS) for start, tree in trees),
        "|".join(start + _source(tree, "") for start, tree in trees),
        1,
        max(lengths),
    )


def _source(root: _Node, border: str) -> str:
    """The tree as an expression; of two words that begin alike the longer is tried first."""
    # Bottom up without recursion: a word may have more characters than Python has stack.
    order: list[_Node] = [root]
    for node in order:
        order.extend(node.after.values())
    sources: dict[int, str] = {}
    for node in reversed(order):
        branches = [
            (_SPACE if char == _WHITE else escape_literal(char)) + sources[id(next_node)]
            for char, next_node in node.after.items()
        ]
        end = border if node.bordered else ""
        if not branches:
            sources[id(node)] = end
        else:
            inner = branches[0] if len(branches) == 1 and not node.ends else "|".join(branches)
            last = f"|{end}" if node.ends else ""
            grouped = len(branches) > 1 or node.ends
            sources[id(node)] = f"(?:{inner}{last})" if grouped else inner
    return sources[id(root)]
