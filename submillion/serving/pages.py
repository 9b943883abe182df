"""The page's routes: its files, the reports, and JSON under /api.

Each route is a call: what it answers is decided in the modules that it names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from submillion.errors import ConfigError, command
from submillion.judging import comparison
from submillion.runs.compared import compare
from submillion.serving import explaining, planner
from submillion.serving.api import caller_of
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.guard import REPORT_POLICY, as_json
from submillion.serving.service import Question

if TYPE_CHECKING:
    from submillion.prediction.sharing import Loaded

Desk = Callable[[Callable[[], Any]], Any]
MAX_COMPARED = 60
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_REPORT_HEADERS = {"content-security-policy": REPORT_POLICY}

router = APIRouter()


class Compared(BaseModel):
    """The runs that were ticked, and the split to compare them on."""

    model_config = ConfigDict(extra="forbid")

    runs: list[str]
    split: Literal["validation", "test"] = "validation"


class Asked(BaseModel):
    """A text to classify; a second one for runs that were trained on pairs. `strength` is of changed copies."""

    model_config = ConfigDict(extra="forbid")

    text: str
    text_pair: str | None = None
    strength: Literal["mild", "moderate", "strong"] = "moderate"


def _folder(request: Request) -> Folder:
    return request.app.state.folder


def _desk(request: Request) -> Desk:
    return partial(request.app.state.service.at_desk, caller_of(request))


FolderOfApp = Annotated[Folder, Depends(_folder)]
DeskOfApp = Annotated[Desk, Depends(_desk)]


@router.get("/")
async def page() -> Response:
    """Return the page."""
    return _page_file("submillion.serving", "page", "index.html")


@router.get("/page/report.css")
async def report_style() -> Response:
    """Return the reports' style sheet: the page looks as they do."""
    return _page_file("submillion.reports", "page.css")


@router.get("/page/{name}")
async def page_file(name: str) -> Response:
    """Return a script, the style sheet or the icon."""
    return _page_file("submillion.serving", "page", name)


def _page_file(package: str, *path: str) -> Response:
    name = path[-1]
    folder = files(package).joinpath(*path[:-1])
    if name not in {file.name for file in folder.iterdir()} or name.rpartition(".")[2] not in _TYPES:
        raise UnknownNameError(f"there is no {name[:80]!r} here")
    content = folder.joinpath(name).read_bytes()
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]])


@router.get("/runs/{name}/report")
async def run_report(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return a run's report as it lies in its folder."""
    run = folder.run(name)
    path = folder.file(run.path, "report.html", f"`{command('report', run.path)}` writes it")
    return Response(await desk(path.read_bytes), media_type="text/html", headers=_REPORT_HEADERS)


@router.get("/studies/{name}/report")
async def study_report(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return a study's report as it lies in its folder."""
    path = folder.file(await desk(partial(folder.study, name)), "report.html", "its summary.md has the results")
    return Response(await desk(path.read_bytes), media_type="text/html", headers=_REPORT_HEADERS)


@router.get("/studies/{name}/summary")
async def study_summary(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return a study's summary.md, as text."""
    path = folder.file(await desk(partial(folder.study, name)), "summary.md", "it is written when the study ends")
    return Response(await desk(path.read_bytes), media_type="text/plain; charset=utf-8")


@router.get("/runs/{name}/config")
async def run_config(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return a run's config.yaml, as text."""
    path = folder.file(folder.run(name).path, "config.yaml", "the run is damaged")
    return Response(await desk(path.read_bytes), media_type="text/plain; charset=utf-8")


@router.get("/api/list")
async def listed(request: Request, desk: DeskOfApp) -> Response:
    """Return the runs and studies of the folder."""
    return as_json(await desk(request.app.state.listing.values))


@router.post("/api/compare")
async def compared(asked: Compared, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return what `submillion compare` says of the runs."""
    if len(asked.runs) > MAX_COMPARED:
        raise ConfigError(f"{len(asked.runs)} runs are ticked: at most {MAX_COMPARED} are compared at once here")
    found = await desk(partial(compare, [folder.run(name) for name in asked.runs], asked.split))
    return as_json(comparison.values(found) | {"sentences": comparison.sentences(found)})


@router.get("/api/choices")
async def choices(desk: DeskOfApp) -> Response:
    """Return what the planner's form offers."""
    return as_json(await desk(planner.choices))


@router.post("/api/plan")
async def plan(wish: planner.Wish, desk: DeskOfApp) -> Response:
    """Return what `submillion plan` says of the wishes."""
    return as_json(await desk(partial(planner.answer, wish)))


@router.post("/api/runs/{name}/load")
async def load(name: str, request: Request) -> Response:
    """Load a run, and return what the playground's form needs to know of it."""
    return await _explained(request, name, lambda loaded: Question([], lambda _: explaining.facts(loaded)))


@router.post("/api/runs/{name}/predict")
async def predict(name: str, asked: Asked, request: Request) -> Response:
    """Return the class probabilities of a text."""
    return await _explained(request, name, partial(explaining.prediction, (asked.text, asked.text_pair)))


@router.post("/api/runs/{name}/words")
async def words(name: str, asked: Asked, request: Request) -> Response:
    """Return each word's effect on the most probable class."""
    return await _explained(request, name, partial(explaining.words, (asked.text, asked.text_pair)))


@router.post("/api/runs/{name}/variants")
async def variants(name: str, asked: Asked, request: Request) -> Response:
    """Return the class probabilities of the text and of its changed copies."""
    question = partial(explaining.variants, (asked.text, asked.text_pair), asked.strength)
    return await _explained(request, name, question)


async def _explained(request: Request, name: str, question: Callable[[Loaded], Question]) -> Response:
    return as_json(await request.app.state.service.explain(name, question, caller_of(request)))
