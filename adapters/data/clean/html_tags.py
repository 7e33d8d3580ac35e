"""Names of HTML tags, by how surely they are markup when they stand in text."""

from __future__ import annotations

_LAYOUT_NAMES = (
    "html body div span p br hr b i u em strong small big sub sup font center a img ul ol li dl dt dd thead"
    " tbody tfoot tr td th h1 h2 h3 h4 h5 h6 blockquote pre code script style iframe noscript nobr wbr strike"
    " tt kbd abbr acronym figure figcaption nav footer aside"
)
_PAGE_NAMES = (
    "head title meta link base header main section article table caption colgroup col form input button label"
    " select option optgroup textarea fieldset legend details summary address cite mark del ins q s samp var"
    " time object embed param video audio source track picture map area canvas svg template dialog"
)
_BLOCK_NAMES = (
    "html body div p br hr ul ol dl dt dd li tr h1 h2 h3 h4 h5 h6 blockquote pre figure figcaption nav footer"
    " aside head title header main section article table caption form fieldset details summary address"
)

LAYOUT = frozenset(_LAYOUT_NAMES.split())
"""Tags that mean layout and nothing else, wherever they stand. Not `s`: `<s>` opens a sequence in Llama."""

ON_PAGES = frozenset(_PAGE_NAMES.split())
"""HTML as well, but also names that prompts and answers give their own sections (`<summary>`, `<title>`) or
programs their types (`List<Object>`): markup only in text that is plainly a web page."""

BLOCKS = frozenset(_BLOCK_NAMES.split())
"""Tags that end a line."""

WITHOUT_TEXT = frozenset({"script", "style", "iframe", "noscript"})
"""Elements whose content is not for reading."""
