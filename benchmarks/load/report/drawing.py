"""How plots are drawn: as SVG that stands inside a page, in the page's own colour, and as PNG on white."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inline_svg import INK, inline_svg

# Okabe and Ito's palette, told apart by people who see red and green alike.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SIZE_INCHES = (6.0, 3.3)  # small, so that words can be read on a phone
_PNG_DOTS_PER_INCH = 200

# Puts something on empty axes; may remove them and divide `axes.figure` otherwise, or set its size.
Fill = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` was made here and is put into the page as it is."""

    kind: str  # one of plots.KINDS
    title: str
    caption: str
    svg: str
    name: str = ""  # of its file
    png: bytes = b""  # none where nobody asked for it


def drawn(kind: str, name: str, title: str, caption: str, fill: Fill, *, png: bool = False) -> Plot:
    """What `fill` puts on its axes as an SVG element, and with `png` the same figure as a PNG file on white.

    `name` is another one for each plot of a page.
    """
    svg, picture = _draw(name, fill, png=png)
    return Plot(kind, title, caption, svg, name, picture)


def write_pngs(plots: Sequence[Plot], folder: Path) -> None:
    """A file for each plot that is a picture too, called after it; pictures of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for plot in plots:
        if plot.png:
            (folder / f"{file_name(plot)}.png").write_bytes(plot.png)


def file_name(plot: Plot) -> str:
    """The plot's name with nothing in it that a path or an address would read otherwise."""
    return re.sub(r"[^a-z0-9]+", "-", plot.name.lower()).strip("-")


def log_axis(axis: Any) -> None:
    """Logarithmic, with numbers as people write them, and enough of them where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    steps: tuple[float, ...] = (1.0, 2.0, 5.0)
    if high > 100 * low:
        steps = (1.0,)
    elif high < 5 * low:
        steps = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _draw(name: str, fill: Fill, *, png: bool) -> tuple[str, bytes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(colours, INK),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        fill(figure.add_subplot())
        raw = io.StringIO()
        figure.savefig(raw, format="svg", metadata={"Date": None})
        picture = io.BytesIO()
        if png:
            figure.savefig(picture, format="png", dpi=_PNG_DOTS_PER_INCH, facecolor="white")
    return inline_svg(raw.getvalue(), name), picture.getvalue()
