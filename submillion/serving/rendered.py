"""Reports, comparisons and curves as the server shows them: the usual pages, with links back to the list.

A run's report is served unchanged from its folder; a study's and a comparison are made on request, so they are never
older than the folder.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from urllib.parse import quote

from fastapi.responses import Response
from markupsafe import Markup

from submillion.errors import MAX_PROBLEMS, ConfigError, SubmillionError
from submillion.judging.comparison import Split
from submillion.reports import comparing, drawing, page, sweep
from submillion.reports import curves as training
from submillion.reports.curves import Curve
from submillion.reports.sections import Page, Section
from submillion.runs import Run
from submillion.runs.compared import compare
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.listing import state_of

MAX_COMPARED = 60
_SORTING = files("submillion.reports").joinpath("page.js").read_bytes()
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(_SORTING).digest()).decode()}'"
)
# A stored report may be a stranger's. Sandboxed, it has no origin, so it cannot query this server; and of its scripts
# only the one that sorts tables runs, known by its hash.
_REPORT_HEADERS = {"content-security-policy": f"{_POLICY}; form-action 'none'; sandbox allow-popups allow-scripts"}
# Its form is sent with an Origin, by which the guard recognises it.
_COMPARISON_HEADERS = {"content-security-policy": f"{_POLICY}; form-action 'self'", "referrer-policy": "same-origin"}
_SVG_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_WAYS = (("Runs", "#runs"), ("Planner", "#planner"), ("Playground", "#playground"))


def report(folder: Folder, name: str) -> Response:
    """Return the report of the run or study of this name; for a run without one, its progress."""
    study = next((path for path in folder.studies() if path.name == name), None)
    if study is not None:
        html = page.html(sweep.page_of(sweep.read(study), [run.name for run in folder.runs()], with_png=False))
        ways = [("Its runs", f"#runs?filter={quote(name)}")]
        return _page(html, "../../", [*_WAYS, *ways], _REPORT_HEADERS)
    run = folder.run(name)
    if (run.path / "report.html").exists():
        html = folder.file(run.path, "report.html", "it leads out of the folder").read_text(
            encoding="utf-8", errors="replace"
        )
    else:
        html = page.html(training.page(run, *state_of(run)))
    return _page(html, "../../", [*_WAYS, *_ways_of(folder, run)], _REPORT_HEADERS)


def _ways_of(folder: Folder, run: Run) -> list[tuple[str, str]]:
    study = run.name.rpartition("-")[0]
    study_links = (
        [("Its study", f"runs/{quote(study)}/report.html")] if (folder.path / study / "summary.json").exists() else []
    )
    tries = [("Try this run", f"#playground/{quote(run.name)}")] if run.is_done else []
    return [*study_links, *tries, ("Its config", f"runs/{quote(run.name)}/config")]


def comparison(folder: Folder, names: Sequence[str], split: Split) -> Response:
    """Return the comparison of runs as a page; errors are a page too."""
    status, form = 200, Markup("")
    try:
        result = _compared(folder, names, split)
        if split == "validation":
            form = _form(names)
    except SubmillionError as error:
        status = 404 if isinstance(error, UnknownNameError) else 400
        problems = SubmillionError(*error.problems[:MAX_PROBLEMS]).problems
        result = _says("These runs cannot be compared", problems)
    if not names:
        status, result = 200, _says("Nothing to compare yet", ["Tick at least two finished runs in the list."])
    return _page(page.html(result), "", _WAYS, _COMPARISON_HEADERS, form, status)


def _compared(folder: Folder, names: Sequence[str], split: Split) -> Page:
    if len(names) > MAX_COMPARED:
        raise ConfigError(f"{len(names)} runs are ticked: at most {MAX_COMPARED} can be compared at once here")
    runs = [folder.run(name) for name in names]
    links = {name: f"runs/{name}/report.html" for name in names}
    return comparing.page_of(compare(runs, split), {run.name: run.records() for run in runs}, links)


def _says(title: str, sentences: Sequence[str]) -> Page:
    return Page("comparison", "submillion serve", [Section("answer", "Answer", title, tuple(sentences))], {})


def _form(names: Sequence[str]) -> Markup:
    return Markup(
        '<form method="post" action="compare?runs={}"><button>Compare on test</button> '
        "Each reading is noted in test-reads.jsonl.</form>"
    ).format(",".join(map(quote, names)))


def _page(
    html: str,
    root: str,
    ways: Sequence[tuple[str, str]],
    headers: dict[str, str],
    form: Markup | None = None,
    status: int = 200,
) -> Response:
    """Return a page with links back at its top; root: from its address to the list's."""
    items = Markup("").join(
        Markup('<li><a href="{}">{}</a></li>').format(f"{root or './'}{href}", text) for text, href in ways
    )
    head = Markup('<body>\n<nav aria-label="Submillion"><ul>{}</ul></nav>{}').format(items, form or Markup(""))
    return Response(html.replace("<body>", head, 1), status, headers, "text/html")


def curves(folder: Folder, names: Sequence[str]) -> Response:
    """Return the curves of runs in one picture, which follows the reader's light or dark setting."""
    runs = [folder.run(name) for name in names[: training.MAX_CURVES]]
    drawn = training.draw([Curve(run.name, tuple(run.records())) for run in runs], with_png=False)
    if not drawn:
        raise UnknownNameError("none of these runs has made a step yet: try again later")
    return Response(drawing.standalone(drawn["curves"]), 200, _SVG_HEADERS, "image/svg+xml")
