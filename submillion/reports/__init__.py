"""Run folders → pages for people: report.html, report.md, report.json, figures, a model card; without torch.

`run` reads a folder, with the `baselines`; `findings` says in `sections` what it shows, `acting` what it would answer
at a stated error, `several` what rows with several labels add, `making` how the run came about; `figures` draws it in
the style of `drawing`; `page` and `card` write it, `terminal` prints it, and `brief` is what commands print about a
run. Everything can be made again from the folder alone. `sweep` does the same for a study's folder, `folds` for one of
folds, `comparing` for compared runs, with `verdicts` and `forests`.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from submillion import runs
from submillion.data import Splits
from submillion.errors import RunError
from submillion.reports import acting, card, figures, findings, making, page, run, several
from submillion.reports.folds import write as write_folds
from submillion.reports.run import Report, read
from submillion.reports.sections import Page, Section
from submillion.reports.sweep import write as write_study
from submillion.runs import Run, Which
from submillion.runs.folds import inside as folds_inside
from submillion.runs.folds import is_folds
from submillion.runs.study import is_study
from submillion.text import closest

__all__ = ["Report", "is_study", "read", "report", "write", "write_folds", "write_study"]


def report(which: Which, out: Path | str = "runs") -> list[Path]:
    """Write the report of a finished run, of a study, or of folds, again; return the paths of its files.

    which: a run, a folder, the name or hash of a run in `out`, or the name of a study or of folds there. Nothing is
    trained or predicted. If there is no such run, RunError names the studies and folds too.
    """
    if isinstance(which, Run) or not isinstance(which, str | os.PathLike):
        return write(runs.load(which, out))
    places = (Path(which).expanduser(), Path(out).expanduser() / which)
    if (folder := next(filter(is_folds, places), None)) is not None:
        return write_folds(folder)
    folder = next(filter(is_study, places), None)
    return write_study(folder) if folder else write(Run(_run(str(which), out)))


def _run(which: str, out: Path | str) -> Path:
    try:
        return runs.locate(which, out)
    except RunError as error:
        inside = sorted(Path(out).expanduser().glob("*/summary.json"))
        others = {"studies": [path.parent for path in inside if is_study(path.parent)], "folds": folds_inside(out)}
        named = [
            f"{kind} in {out}: {', '.join(path.name for path in paths)}" for kind, paths in others.items() if paths
        ]
        names = [path.name for paths in others.values() for path in paths]
        near = closest(which, names)
        meant = [f"did you mean {near!r}?"] if near else []
        raise RunError(*error.problems, *(named or [f"no study or folds in {out} either"]), *meant) from None


def write(of: Run, splits: Splits | None = None) -> list[Path]:
    """Write the reports of a finished run into its folder, in place of older ones; return their paths.

    `splits` are the run's rows if they are at hand; otherwise its data is read again. The same folder and data give
    the same bytes. RunError says why a run cannot be reported.
    """
    report = run.read(of, splits)
    origin = f"submillion report from the run folder {of.name}"
    page.save(Page(report.run, origin, sections(report), figures.draw(report)), of.path)
    of.write_json("report.json", asdict(report))
    (of.path / "adapter").mkdir(exist_ok=True)
    of.write("adapter/README.md", card.markdown(of, report))
    return [of.path / name for name in ("report.html", "report.md", "report.json", "adapter/README.md", "figures")]


def sections(report: Report) -> list[Section]:
    """Return the report's sections in reading order."""
    of_several = report.several
    return [
        findings.answer(report),
        making.plan(report),
        making.training(report),
        *([findings.confusion(report), findings.classes(report)] if of_several is None else []),
        *([several.labels(report, of_several), several.together(report, of_several)] if of_several is not None else []),
        findings.distribution(report),
        findings.calibration(report),
        *([findings.coverage(report)] if of_several is None else []),
        *(
            [acting.section(report.acting, report.labels, report.split, len(report.evaluations) > 1)]
            if of_several is None
            else []
        ),
        findings.lengths(report),
        findings.mistakes(report),
        making.cost(report),
        making.setup(report),
    ]
