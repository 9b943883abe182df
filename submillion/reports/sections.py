"""What a section of a report is made of; the HTML page and the Markdown show the same ones.

`findings` says what the predictions show, `making` how the run came about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from submillion.reports.drawing import Drawn

MAX_CHARACTERS = 400  # of a text that is shown
_LONGEST_LABEL = 60  # in a sentence
CUT = " … [cut]"
# A number as in tables, with its unit and its interval; or a duration; or a dash for none.
_NUMBER = re.compile(r"(< |± )?[+-]?\d[\d,.]*( [^\d\s]{1,6}){0,1}( \d+ [^\d\s]{1,3})?( \[[^\]]*\])?|[–-]")


@dataclass(frozen=True)
class Table:
    """A table: its caption, the columns' heads, the rows' cells; the first cell of a row names it.

    is_sortable: the page lets readers sort it; then a cell starts with its number, or has none.
    """

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    is_sortable: bool = False

    def are_numbers(self, column: int) -> bool:
        """Say whether a column holds numbers, which are aligned to the right; the first one names its rows.

        >>> Table("", ("", "score", "verdict"), [("a", "0.9 [0.8, 1.0]", "tied"), ("b", "–", "–")]).are_numbers(1)
        True
        """
        cells = [row[column] for row in self.rows if row[column]]
        return column > 0 and any(cell[-1:] != "–" for cell in cells) and all(map(_NUMBER.fullmatch, cells))


@dataclass(frozen=True)
class Quote:
    """A row's text and what is said about it."""

    text: str
    about: str


@dataclass(frozen=True)
class Section:
    """A heading that states the finding; sentences; a figure by name with how to read it; tables; texts; code blocks.

    code: (what it is, the text).
    """

    anchor: str
    nav: str
    title: str
    sentences: tuple[str, ...] = ()
    figure: str | None = None
    reading: str = ""
    tables: tuple[Table, ...] = ()
    quotes: tuple[Quote, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A report in full: what it is about, the folder or command that it comes from, sections in their order, and
    figures by name. links: names, of runs and trials, that link to a page of their own wherever they occur."""

    name: str
    origin: str
    sections: list[Section]
    figures: dict[str, Drawn]
    links: Mapping[str, str] = field(default_factory=dict)


def as_sentences(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes with a capital and a full stop; a file's name that one begins with stays unchanged.

    >>> as_sentences(["expect less on new rows"])
    ('Expect less on new rows.',)
    """
    return tuple(f"{note[:1].upper() if note.partition(' ')[0].isalpha() else note[:1]}{note[1:]}." for note in notes)


def cut(text: str) -> str:
    """Return a text, a very long one cut with a mark."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rstrip() + CUT


def quoted(label: str) -> str:
    """Return a label for a sentence, a very long one cut.

    >>> quoted("Sci/Tech")
    '“Sci/Tech”'
    """
    return f"“{label}”" if len(label) <= _LONGEST_LABEL else f"“{label[: _LONGEST_LABEL - 1]}…”"
