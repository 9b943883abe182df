"""`submillion report`: the pages of a finished run, or of a study, written again, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.options import JsonOption, OutOption

WhichArgument = Annotated[
    str, typer.Argument(metavar="RUN|STUDY", help="A run's folder, name or hash, or a study's folder or name.")
]


def report(which: WhichArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Write the report of a run or of a study again: report.html, report.md, report.json, figures.

    Nothing is trained or predicted. A run's model card is written too; for it its data is read again. A study that is
    not finished gets a page that says so.
    """
    from submillion import reports, runs

    folder = _study(which, out or "runs")
    written = reports.write_study(folder) if folder else reports.write(runs.Run(_run(which, out or "runs")))
    if as_json:
        typer.echo(written[2].read_text(encoding="utf-8").rstrip())
        return
    typer.echo("\n".join(map(str, written)))


def _study(which: str, out: str) -> Path | None:
    """The folder of a study by its path, or by its name within `out`; None if there is none."""
    from submillion import reports

    places = (Path(which).expanduser(), Path(out).expanduser() / which)
    return next((place for place in places if reports.is_study(place)), None)


def _run(which: str, out: str) -> Path:
    """The folder of a run; where there is none, the error names the studies too."""
    from submillion import reports, runs
    from submillion.errors import RunError

    try:
        return runs.locate(which, out)
    except RunError as error:
        inside = sorted(Path(out).expanduser().glob("*/summary.json"))
        studies = [path.parent.name for path in inside if reports.is_study(path.parent)]
        raise RunError(*error.problems, *([f"studies in {out}: {', '.join(studies)}"] if studies else [])) from None
