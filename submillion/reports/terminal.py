"""Sections in a terminal: titles, sentences, tables, code. Figures and quoted texts are left to the pages.

Cells are what people copy: a table is never cut, the terminal wraps it.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as Grid

from submillion.reports.sections import Section, Table


def plain() -> Console:
    """Return a console on stdout that prints text unchanged."""
    return Console(markup=False, highlight=False, emoji=False)


def show(sections: Iterable[Section]) -> None:
    """Print sections on stdout, an empty line between them."""
    console = plain()
    blocks = [block for section in sections for block in _blocks(section)]
    for number, block in enumerate(blocks):
        is_apart = number > 0 and (isinstance(block, str) or bool(block.caption))
        text = block if isinstance(block, str) else f"{block.caption}:" if block.caption else None
        if text is not None:
            console.print("\n" * is_apart + text, soft_wrap=True)
        if isinstance(block, Table):
            show_table(block, console)


def _blocks(section: Section) -> list[str | Table]:
    """What empty lines separate, except tables without a caption, which follow directly."""
    head = [section.title] * bool(section.title) + [f"- {sentence}" for sentence in section.sentences]
    code = ["\n".join([f"{what}:", *(f"  {line}" for line in text.splitlines())]) for what, text in section.code]
    return [*(["\n".join(head)] if head else []), *section.tables, *code]


def show_table(table: Table, console: Console | None = None) -> None:
    """Print a table without its caption; a column of numbers is aligned to the right."""
    grid = Grid(box=None, pad_edge=False, show_header=any(table.heads))
    for column, head in enumerate(table.heads):
        grid.add_column(head, justify="right" if table.are_numbers(column) else "left", no_wrap=True)
    for row in table.rows:
        grid.add_row(*row)
    wide(grid, console or plain())


def wide(grid: Grid, console: Console) -> None:
    """Print a table of rich's as wide as it needs to be, without the blanks that fill its last column."""
    needed = console.measure(grid, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    with console.capture() as lines:
        console.print(grid)
    print("\n".join(line.rstrip() for line in lines.get().splitlines()), file=console.file)
