"""Sections in a terminal: titles, sentences, tables, code. Figures and quoted texts are left to the pages.

Cells are what people copy: a table is never cut, the terminal wraps it.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as Grid

from submillion.reports.sections import Section, Table


def plain() -> Console:
    """Return a console on stdout that prints text as it is."""
    return Console(markup=False, highlight=False, emoji=False)


def show(sections: Iterable[Section]) -> None:
    """Print sections on stdout, an empty line between them."""
    console = plain()
    for number, section in enumerate(sections):
        if number:
            console.print()
        if section.title:
            console.print(section.title, soft_wrap=True)
        for sentence in section.sentences:
            console.print(f"- {sentence}", soft_wrap=True)
        for table in section.tables:
            if table.caption:
                console.print(f"\n{table.caption}:", soft_wrap=True)
            show_table(table, console)
        for what, text in section.code:
            console.print("\n".join([f"\n{what}:", *(f"  {line}" for line in text.splitlines())]), soft_wrap=True)


def show_table(table: Table, console: Console | None = None) -> None:
    """Print a table without its caption; a column of numbers is aligned to the right."""
    grid = Grid(box=None, pad_edge=False, show_header=any(table.heads))
    for column, head in enumerate(table.heads):
        cells = [row[column] for row in table.rows if row[column]]
        is_number = column > 0 and bool(cells) and all(cell[0].isdigit() or cell[0] in "+-–<" for cell in cells)
        grid.add_column(head, justify="right" if is_number else "left", no_wrap=True)
    for row in table.rows:
        grid.add_row(*row)
    wide(grid, console or plain())


def wide(grid: Grid, console: Console) -> None:
    """Print a table of rich's, as wide as it needs to be."""
    needed = console.measure(grid, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(grid)
