"""Characters that matplotlib's own font does not have: Chinese, emoji, and so on.

In the SVG the reader's browser draws them, so only their room is kept. In the PNG fonts of this machine do, if it has
any; a character that none has is written as its escape, so that two labels never look alike as rows of empty boxes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_LONGEST = 40  # characters of a label with escapes
_STAND_IN = "—"  # as wide as a Chinese character, in matplotlib's font
_LEFT_TO_RIGHT = "\u200e"  # an invisible mark that says so
_FAMILY = "DejaVu Sans"  # comes with matplotlib


@contextmanager
def kept_room(figure: Any, strange: Set[str]) -> Iterator[None]:
    """Lay the figure out for strange characters as wide as in readers' fonts, and keep that layout inside."""
    if not strange:
        yield
        return
    engine = figure.get_layout_engine()
    with _rewritten(figure, lambda text: "".join(_STAND_IN if c in strange and _is_wide(c) else c for c in text)):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    yield
    figure.set_layout_engine(engine)


@contextmanager
def readable(figure: Any, strange: Set[str]) -> Iterator[None]:
    """Write the figure's texts inside in fonts of this machine, with escapes for what none of them has; right-to-left
    text stays where it is in its label."""
    families, without = _fonts(frozenset(strange))

    def written(text: str) -> str:
        if without & set(text):
            text = "".join(_escape(c) if c in without else c for c in text)
            text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        return _LEFT_TO_RIGHT + text if any(unicodedata.bidirectional(c) in ("R", "AL") for c in text) else text

    with _rewritten(figure, written, families):
        yield


def strange_characters(figure: Any) -> set[str]:
    """Return the characters of a figure that matplotlib's font lacks."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_majorticklabels()  # makes them; drawing does, too, and takes a third of a page's time
    known = _characters(_FAMILY)
    from matplotlib.text import Text

    texts = (text.get_text() for text in figure.findobj(Text))
    return {c for text in texts for c in text if ord(c) not in known and not c.isspace()}


@lru_cache
def _characters(family: str) -> frozenset[int]:
    from matplotlib.font_manager import findfont

    return _of_file(str(findfont(family)))


@lru_cache
def _of_file(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


@lru_cache
def _fonts(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The families of this machine that have some of these characters, and the characters that none has."""
    from matplotlib.font_manager import fontManager

    families, left = [], set(wanted)
    for entry in sorted(fontManager.ttflist, key=lambda each: (each.name, each.fname)):
        if not left:
            break
        if "Last Resort" in entry.name or "Color" in entry.name or entry.style != "normal":
            continue  # boxes, and bitmaps, which matplotlib cannot draw
        try:
            has = {c for c in left if ord(c) in _of_file(entry.fname)}
        except (OSError, RuntimeError):
            continue  # the list of fonts is older than the fonts
        if has:
            families.append(entry.name)
            left -= has
    return tuple(families), frozenset(left)


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _escape(character: str) -> str:
    """A character's escape; empty for an invisible one, such as the mark that asks for a coloured emoji."""
    is_unseen = unicodedata.category(character) == "Cf" or unicodedata.name(character, "").startswith("VARIATION")
    return "" if is_unseen else character.encode("unicode_escape").decode()


@contextmanager
def _rewritten(figure: Any, change: Callable[[str], str], families: tuple[str, ...] = ()) -> Iterator[None]:
    from matplotlib.text import Text

    every = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    labels = [(axis, [label.get_text() for label in axis.get_majorticklabels()]) for axis in every]
    changed = [(axis, texts) for axis, texts in labels if [change(text) for text in texts] != texts]
    texts = [(text, text.get_text(), text.get_fontfamily()) for text in figure.findobj(Text)]
    for axis, names in changed:  # its texts are written again from these whenever it is drawn
        axis.set_ticks(axis.get_majorticklocs(), [change(name) for name in names])
    for text, content, _ in texts:
        text.set_text(change(content))
        if families:
            text.set_fontfamily([_FAMILY, *families])
    yield
    for axis, names in changed:
        axis.set_ticks(axis.get_majorticklocs(), names)
    for text, content, family in texts:
        text.set_text(content)
        text.set_fontfamily(family)
