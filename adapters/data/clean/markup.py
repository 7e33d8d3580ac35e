"""HTML in running text: real tags and entities go; what only looks like them stays."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapters.data.clean.code_spans import CODE_PATTERN, split_code
from adapters.data.clean.html_tags import BLOCKS, LAYOUT, ON_PAGES, WITHOUT_TEXT

_ATTRIBUTE = (
    r"[ \t\n]++(?:[A-Za-z_:@][\w:.@-]{0,60}[ \t\n]{0,4}=[ \t\n]{0,4}"
    r"(?:\"[^\"<]{0,4000}\"|'[^'<]{0,4000}'|[^\s\"'=<>`]{1,2000})"
    r"|(?:hidden|nowrap|noshade|disabled|checked|selected|async|defer|controls|open|required|itemscope)\b)"
)
_TAG = (
    rf"<(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9]{{0,11}})(?P<attributes>(?:{_ATTRIBUTE})*+)[ \t\n]{{0,9}}/?>"
)
_TOKEN = re.compile(rf"{CODE_PATTERN}|(?P<comment><!--)|(?P<doctype><!(?i:doctype)\b[^<>]{{0,400}}>)|{_TAG}")
_PAGE = re.compile(
    r"<!doctype\s+html|<html[\s>]|<body[\s>]|</(?:td|tr|li|div)>"
    r"|<(?:div|span|a|img|p|td|table|section|article|header)\s[^<>]{0,400}?\b(?:class|href|src|style|id)\s*=",
    re.IGNORECASE,
)
# Elements that are taken with their content, and what ends them.
_ELEMENTS = {
    name: re.compile(rf"</{name}[^<>]{{0,100}}>", re.IGNORECASE)
    for name in ("pre", "code", *sorted(WITHOUT_TEXT))
} | {"!--": re.compile("-->")}
_ONE_LETTER_TAG = re.compile(r"<(/?)([A-Za-z])[ \t\n>]")
_ENTITY = re.compile(r"&#?\w{1,24};")
_REPEATED_AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#38|#[xX]26);)+")
_NESTED_AMPERSAND = re.compile(r"&amp;(?=#?\w{1,24};)")
_LONGEST_RUN = re.compile("`+")
_SPEAKS_OF_MARKUP = re.compile(
    r"\b(?:x?html5?|css|xml|svg|jsx|tsx|javascript|typescript|react|vue|bootstrap|dom|markup|web ?pages?)\b"
    r"|\btags?\b|标签|网页|前端",
    re.IGNORECASE,
)
_CODE_OPENING = re.compile(
    r"\s*<(?:!doctype|html|head|body|div|nav|section|form|header|footer|svg|script|style|button|input|template|table)\b",
    re.IGNORECASE,
)


def strip_markup(parts: Sequence[str], *, is_answer: Sequence[bool]) -> tuple[str, ...]:
    """The parts of one example without HTML tags, comments, scripts and entities.

    An example that speaks of HTML, CSS and the like keeps its markup, and so does an answer that is a page or a
    component itself: there the markup is the subject.
    """
    if not any("<" in part or "&" in part for part in parts):
        return tuple(parts)
    stripped = tuple(strip_html(part) for part in parts)
    if any(_SPEAKS_OF_MARKUP.search(part) for part in stripped):
        return tuple(parts)
    return tuple(
        before if answer and _CODE_OPENING.match(before) else after
        for before, after, answer in zip(parts, stripped, is_answer, strict=True)
    )


def strip_html(text: str) -> str:
    """Text of one part of an HTML page or fragment.

    Block tags and `<br>` become newlines, `<li>` a dash, `<pre>` and `<code>` Markdown code, `<sup>2</sup>` `^2`.
    Scripts, styles and comments go with their content. Code spans stay, and so does everything that is not in
    the list of tags: `a < b`, `<think>`, `<|user|>`, `List<T>`, `<s>`. An escaped tag (`&lt;br&gt;`) stays
    escaped, for its author wanted it to be seen.
    """
    if "<" in text:
        text = _strip_tags(text)
    return _unescape(text) if "&" in text else text


def _strip_tags(text: str) -> str:
    names = LAYOUT | ON_PAGES if _PAGE.search(text) else LAYOUT
    paired = _paired_names(text)
    out: list[str] = []
    unclosed: set[str] = set()
    position = 0
    while (token := _TOKEN.search(text, position)) is not None:
        out.append(text[position : token.start()])
        position = token.end()
        replacement: str | None = None
        if token["doctype"] is not None:
            replacement = ""
        elif token["fence"] is None and token["tick"] is None:
            name = "!--" if token["comment"] is not None else token["name"].lower()
            if name in _ELEMENTS and not token["close"]:
                # Sought once in vain, a closing tag is not sought again: a text of openings would cost n².
                if name not in unclosed:
                    replacement, position = _element(text, name, position)
                    if replacement is None:
                        unclosed.add(name)
            elif name in names and not _is_lone(token, name, paired, text):
                replacement = _replacement(name, closes=bool(token["close"]))
        out.append(token.group() if replacement is None else replacement)
    out.append(text[position:])
    return "".join(out)


def _paired_names(text: str) -> set[str]:
    """The tags of one letter that both open and close somewhere in the text."""
    found = {(close, name.lower()) for close, name in _ONE_LETTER_TAG.findall(text)}
    return {name for _, name in found if ("", name) in found and ("/", name) in found}


def _is_lone(token: re.Match[str], name: str, paired: set[str], text: str) -> bool:
    """Whether a tag of one letter is rather a comparison or a type: `a<b>c`, `Vec<i>`."""
    if len(name) > 1 or token["attributes"] or name in paired:
        return False
    return name != "p" or (token.start() > 0 and text[token.start() - 1].isalnum())


def _replacement(name: str, *, closes: bool) -> str:
    if name == "li":
        return "" if closes else "\n- "
    if name in BLOCKS:
        return "\n"
    if name in ("td", "th"):
        return " "
    return "^" if name == "sup" and not closes else ""


def _element(text: str, name: str, start: int) -> tuple[str | None, int]:
    """What an element with its content from `start` becomes, and where the text goes on; None if it never ends."""
    closing = _ELEMENTS[name].search(text, start)
    if closing is None:
        return None, start
    end, after = closing.span()
    if name not in ("pre", "code"):
        return "", after
    content = _unescape(_CONTENT_TAG.sub("", text[start:end]), keep_tags=False)
    ticks = max((len(run) for run in _LONGEST_RUN.findall(content)), default=0)
    if name == "pre" or "\n" in content or ticks > 1 or len(content) > 300:
        fence = "`" * max(3, ticks + 1)
        return f"\n{fence}\n{content.strip(chr(10))}\n{fence}\n", after
    if not content.strip():
        return content, after
    return (f"`{content}`" if ticks == 0 else f"`` {content} ``"), after


# Colouring inside <pre> and <code>.
_CONTENT_TAG = re.compile(
    r"</?(?:code|span|b|i|em|strong|a|font)(?:\s[^<>]{0,400})?>|<br ?/?>", re.IGNORECASE
)


def _unescape(text: str, *, keep_tags: bool = True) -> str:
    """Entities outside code replaced, nested ones (`&amp;lt;`) at once; those that would make a tag stay."""
    from ftfy.fixes import unescape_html

    if not keep_tags:
        return str(unescape_html(text))
    out = []
    for is_code, piece in split_code(text):
        if not is_code and _ENTITY.search(piece):
            nested = _NESTED_AMPERSAND.sub("&", _REPEATED_AMPERSAND.sub("&amp;", piece))
            plain = str(unescape_html(nested))
            piece = (
                _ENTITY.sub(_unescape_all_but_brackets, nested)
                if _num_tags(plain) > _num_tags(piece)
                else plain
            )
        out.append(piece)
    return "".join(out)


def _num_tags(text: str) -> int:
    """How many HTML tags and comments are in a text."""
    return sum(
        token["name"] is None or token["name"].lower() in LAYOUT or token["name"].lower() in ON_PAGES
        for token in _TOKEN.finditer(text)
    )


def _unescape_all_but_brackets(entity: re.Match[str]) -> str:
    from ftfy.fixes import unescape_html

    plain = str(unescape_html(entity.group()))
    return entity.group() if plain in ("<", ">") else plain
