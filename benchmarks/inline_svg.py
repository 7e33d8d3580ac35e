"""Plots as elements of a page: no prologue, no addresses, the colour of the text around them."""

from __future__ import annotations

import re

# A colour that nothing else has, replaced by the page's own.
INK = "#010203"


def inline_svg(svg: str, name: str) -> str:
    """An SVG document as an element of a page; `name` sets its ids apart from those of other plots there."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    prefix = re.sub(r"[^a-zA-Z0-9]", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    return svg.replace(INK, "currentColor").strip()
