"""How figures look and become files: matplotlib's settings, the palette, SVG and PNG without a date.

A figure is drawn once, in the light palette. Inside the page its colours become CSS variables, so that it follows the
reader's light or dark setting; the palette is Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from submillion.judging.metrics import Score
from submillion.reports import glyphs

# Each colour has a name in the page's style sheet. No two are equal: they are found again in the SVG by their digits.
INK, MUTED, GRID = "#1b1f24", "#59626d", "#d8dde3"
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
HEAT, ON_HEAT, PAPER = "#0072b3", "#fefefe", "#fffffe"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PINK: "--pink",
    HEAT: "--heat",
    ON_HEAT: "--on-heat",
    PAPER: "--paper",
}
WIDTH = 4.6  # inches: on a phone the page shows a figure at about this size, so that 9.5 pt stays readable
_PNG_DPI = 200
SMALL = 8.5  # points, the smallest type
_REM_PER_PT = 33 / (72 * WIDTH)  # on a wide screen: 9.5 pt are 15 px there
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "submillion",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_LIGHT_TEXT_FROM = 0.55  # the share of a cell's colour from which light text is easier to read
_LONGEST_NAME = 22


@dataclass(frozen=True)
class Drawn:
    """A figure as files; `svg` is complete and in the light palette. `is_wide`: it may scroll on a phone."""

    name: str
    svg: str
    png: bytes
    is_wide: bool


@contextmanager
def style() -> Iterator[None]:
    """Draw inside with the report's settings, whatever the user's matplotlib is set to."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's fonts have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def canvas(height: float, width: float = WIDTH) -> Any:
    """Return a figure of this size in inches, laid out without overlaps; drawn inside `style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12)  # the reader's font may be wider
    return figure


def files(name: str, figure: Any, with_png: bool = True) -> Drawn:
    """Return the figure as files: the same bytes for the same figure and version of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, png, strange = io.StringIO(), io.BytesIO(), glyphs.strange_characters(figure)
    # Not `savefig`, which draws a figure twice, and lays it out for each file.
    with glyphs.kept_room(figure, strange):
        FigureCanvasSVG(figure).print_svg(svg, metadata=_NO_METADATA)
    if with_png:
        if not strange:
            figure.set_layout_engine("none")  # the texts, and so the layout, are those of the SVG
        figure.set_dpi(_PNG_DPI)
        figure.set_facecolor("white")
        with glyphs.readable(figure, strange):
            FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return Drawn(name, svg.getvalue(), png.getvalue(), figure.get_figwidth() > WIDTH)


def dots(
    axes: Any,
    names: Sequence[str],
    series: Sequence[Sequence[Score]],
    colours: Sequence[str],
    titles: Sequence[str | None],
) -> None:
    """Draw a line per name, from the top; each series as points with intervals, a little apart."""
    apart = 0.24
    for number, (scores, colour, title) in enumerate(zip(series, colours, titles, strict=True)):
        y = np.arange(len(names)) + apart * (number - (len(series) - 1) / 2)
        marker = "osD"[number]
        values = np.array([score.value for score in scores])
        axes.errorbar(values, y, xerr=arms(scores), fmt=marker, color=colour, ms=3.6, lw=1.3, label=title)
    axes.set_yticks(range(len(names)), [short(name, 30) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def arms(scores: Sequence[Score]) -> np.ndarray:
    """Return the lengths of the intervals' arms, [2, N], as matplotlib takes them."""
    return np.maximum([[s.value - s.low for s in scores], [s.high - s.value for s in scores]], 0)


def cell(axes: Any, place: tuple[int, int], share: float, text: str, n_wide: int = 1, size: float = SMALL) -> None:
    """Draw a cell of a matrix at (column, row), stronger in colour the larger the share; its text is ink or white."""
    from matplotlib.patches import Rectangle

    x, y = place
    axes.add_patch(Rectangle((x - 0.47, y - 0.45), n_wide - 0.06, 0.9, facecolor=HEAT, alpha=max(share, 0.0), lw=0))
    axes.add_patch(Rectangle((x - 0.47, y - 0.45), n_wide - 0.06, 0.9, fill=False, edgecolor=GRID, lw=0.5))
    colour = ON_HEAT if share >= _LIGHT_TEXT_FROM else INK
    axes.text(x + (n_wide - 1) / 2, y, text, ha="center", va="center", color=colour, fontsize=size)


def bare(axes: Any) -> None:
    """Remove grid, ticks and frame, for a matrix."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def inlined(drawn: Drawn, alt: str) -> str:
    """Return the SVG as a part of a page: colours as variables, ids of its own, described by `alt`."""
    svg = drawn.svg[drawn.svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{drawn.name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(<svg [^>]*?)height="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(
        r'(<svg [^>]*?width=")([\d.]+)pt"',
        lambda match: f'{match[1]}{_REM_PER_PT * float(match[2]):.1f}rem"',
        svg,
        count=1,
    )
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def standalone(drawn: Drawn) -> str:
    """Return the SVG as a file that follows the reader's light or dark setting, as the page does."""
    sheet = resources.files("submillion.reports").joinpath("page.css").read_text(encoding="utf-8")
    style = sheet.partition("\n* {")[0]  # the colours, which it begins with
    svg = drawn.svg
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"(<svg [^>]*>)", rf"\1<style>{style}</style>", svg, count=1)


def short(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a label as figures show it: one line, cut with a mark, without characters that XML forbids.

    >>> short("a label that is too long to be shown"), short("a" + chr(10) + "b" + chr(0))
    ('a label that is too l…', 'a b�')
    """
    name = "".join(c if c.isprintable() else "�" for c in " ".join(name.split()))
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
