"""The report as one HTML file that loads nothing, and as Markdown. What it says stands in `sections`.

Everything that users wrote, texts, labels, names, settings, is escaped; a content security policy in the page forbids
scripts and loading besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from submillion.reports.drawing import Drawn, inlined
from submillion.reports.sections import Section, Table

if TYPE_CHECKING:
    from markupsafe import Markup

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+|~$>-])")


def html(run: str, sections: Sequence[Section], figures: Mapping[str, Drawn], command: str = "report") -> str:
    """Return the page about a run, by its name: UTF-8, its figures inside, nothing to load."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("submillion.reports")

    def figure(section: Section) -> Markup:
        return Markup(inlined(figures[str(section.figure)], alt(section)))

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    style = Markup(folder.joinpath("page.css").read_text(encoding="utf-8"))
    return template.render(run=run, command=command, sections=sections, figures=figures, inlined=figure, style=style)


def markdown(run: str, sections: Sequence[Section], figures: Mapping[str, Drawn]) -> str:
    """Return the report as Markdown; figures are those of the folder `figures` beside it."""
    lines = [f"`{run}`", ""]
    for number, section in enumerate(sections):
        lines += [f"{'#' if number == 0 else '##'} {plain(section.title)}", ""]
        lines += [f"{plain(sentence)}\n" for sentence in section.sentences]
        if section.figure in figures:
            lines += [f"![{plain(alt(section))}](figures/{section.figure}.png)", "", plain(section.reading), ""]
        for table in section.tables:
            lines += [*table_lines(table), ""]
        lines += [f"> {plain(quote.text)}\n>\n> {plain(quote.about)}\n" for quote in section.quotes]
        for what, text in section.code:
            lines += [f"{what}:", "", *(f"    {line}" for line in text.splitlines()), ""]
    return "\n".join(lines).rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """Return a table as the lines of a Markdown table, its caption above."""
    heads = " | ".join(plain(head) for head in table.heads)
    marks = " | ".join("---" if column == 0 else "---:" for column in range(len(table.heads)))
    rows = [" | ".join(plain(cell) for cell in row) for row in table.rows]
    return [f"{plain(table.caption)}:", "", *(f"| {line} |" for line in (heads, marks, *rows))]


def plain(text: str) -> str:
    r"""Return text that Markdown shows as it is, in one line: its marks and HTML's are escaped.

    >>> plain("<b> a|b *c*")
    '&lt;b&gt; a\\|b \\*c\\*'
    """
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace("\\>", "&gt;")


def alt(section: Section) -> str:
    """Return what a figure shows, for those who do not see it: its finding, and what is drawn."""
    return f"{section.title}. {section.reading}"
