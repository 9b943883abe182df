"""The report as one HTML file that loads nothing, and as Markdown. What it says is in `sections`.

Everything that users wrote, texts, labels, names, settings, is escaped; a content security policy in the page forbids
loading, and every script but the one that sorts tables, which is known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from submillion.reports.drawing import inlined
from submillion.reports.sections import Page, Section, Table
from submillion.runs import write_atomically

if TYPE_CHECKING:
    from markupsafe import Markup

# Right-to-left letters. Text that holds one is isolated, so that it does not turn the sentence round.
_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_ISOLATED = (
    f"“[^”]*[{_RIGHT_TO_LEFT}][^”]*”|[{_RIGHT_TO_LEFT}](?:[^A-Za-z0-9,;:=|·+\\[\\](){{}}“”]*[{_RIGHT_TO_LEFT}])?"
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+|~$>-])")


def save(page: Page, folder: Path, stem: str = "report") -> list[Path]:
    """Write <stem>.html, <stem>.md and figures/ into a folder, in place of older ones; return their paths."""
    write_atomically(folder / f"{stem}.html", html(page))
    write_atomically(folder / f"{stem}.md", markdown(page))
    shutil.rmtree(folder / "figures", ignore_errors=True)
    (folder / "figures").mkdir()
    for name, figure in page.figures.items():
        write_atomically(folder / "figures" / f"{name}.svg", figure.svg)
        write_atomically(folder / "figures" / f"{name}.png", figure.png)
    return [folder / name for name in (f"{stem}.html", f"{stem}.md", "figures")]


def html(page: Page) -> str:
    """Return the page: UTF-8, its figures inside, nothing to load."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("submillion.reports")
    shown = partial(_shown, re.compile("|".join([*_names(page.links), _ISOLATED])), page.links)

    def figure(section: Section) -> Markup:
        return Markup(inlined(page.figures[str(section.figure)], alt(section)))

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["shown"] = shown
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    style = Markup(folder.joinpath("page.css").read_text(encoding="utf-8"))
    is_sortable = any(table.is_sortable for section in page.sections for table in section.tables)
    script = Markup(folder.joinpath("page.js").read_text(encoding="utf-8")) if is_sortable else None
    digest = base64.b64encode(hashlib.sha256((script or "").encode()).digest()).decode()
    return template.render(page=page, inlined=figure, style=style, script=script, script_sha256=digest)


def _names(links: Mapping[str, str]) -> list[str]:
    """A pattern for each name with a link, longer ones first, that matches it as a word of its own."""
    return [rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in sorted(links, key=len, reverse=True)]


def _shown(special: re.Pattern[str], links: Mapping[str, str], text: str) -> Markup:
    """Text as in the page: escaped, names as links, right-to-left parts isolated."""
    from markupsafe import Markup, escape

    parts, end = [], 0
    for match in special.finditer(text):
        part = match.group()
        parts.append(escape(text[end : match.start()]))
        if part in links:
            parts.append(Markup('<a href="{}"><bdi>{}</bdi></a>').format(links[part], part))
        elif part.startswith("“"):
            parts.append(Markup("“<bdi>{}</bdi>”").format(part[1:-1]))
        else:
            parts.append(Markup("<bdi>{}</bdi>").format(part))
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def markdown(page: Page) -> str:
    """Return the report as Markdown; figures are those in the folder `figures` next to it."""
    lines = [f"`{page.name}`", ""]
    for number, section in enumerate(page.sections):
        lines += [f"{'#' if number == 0 else '##'} {plain(section.title)}", ""]
        lines += [f"{plain(sentence)}\n" for sentence in section.sentences]
        if section.figure in page.figures:
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
    marks = " | ".join("---:" if table.are_numbers(column) else "---" for column in range(len(table.heads)))
    rows = [" | ".join(plain(cell) for cell in row) for row in table.rows]
    return [f"{plain(table.caption)}:", "", *(f"| {line} |" for line in (heads, marks, *rows))]


def plain(text: str) -> str:
    r"""Return text that Markdown shows unchanged, in one line: its marks and HTML's are escaped.

    >>> plain("<b> a|b *c*")
    '&lt;b&gt; a\\|b \\*c\\*'
    """
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace("\\>", "&gt;")


def alt(section: Section) -> str:
    """Return a figure's alternative text: its finding, and what is drawn."""
    return f"{section.title}. {section.reading}"
