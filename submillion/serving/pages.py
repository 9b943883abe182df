"""The page's routes: its files, reports and comparisons as separate pages, and JSON under /api.

Each route is a call: the modules it names decide its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from submillion.serving import explaining, planner, rendered
from submillion.serving.api import caller_of
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.guard import as_json
from submillion.serving.service import Question

if TYPE_CHECKING:
    from submillion.prediction.sharing import Loaded

Desk = Callable[[Callable[[], Any]], Any]
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

router = APIRouter()


class Asked(BaseModel):
    """A text to classify; a second one for runs trained on pairs. `strength`: of changed copies."""

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


@router.get("/runs/{name}/report.html")
async def report(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return the report of a run or a study, at the address that links between the folder's files use."""
    return await desk(partial(rendered.report, folder, name))


@router.get("/compare")
async def compared(folder: FolderOfApp, desk: DeskOfApp, runs: str = "") -> Response:
    """Return `submillion compare`'s result for the runs on validation, their names separated by commas."""
    return await desk(partial(rendered.comparison, folder, runs.split(",") if runs else [], "validation"))


@router.post("/compare")
async def compared_on_test(folder: FolderOfApp, desk: DeskOfApp, runs: str = "") -> Response:
    """Return the comparison on test: a POST, because the reading is recorded."""
    return await desk(partial(rendered.comparison, folder, runs.split(",") if runs else [], "test"))


@router.get("/curves.svg")
async def curves(runs: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return the training curves of runs so far, their names separated by commas, as a picture."""
    return await desk(partial(rendered.curves, folder, runs.split(",")))


@router.get("/runs/{name}/config")
async def run_config(name: str, folder: FolderOfApp, desk: DeskOfApp) -> Response:
    """Return a run's config.yaml, as text."""
    path = folder.file(folder.run(name).path, "config.yaml", "the run is damaged")
    return Response(await desk(path.read_bytes), media_type="text/plain; charset=utf-8")


@router.get("/api/list")
async def listed(request: Request, desk: DeskOfApp) -> Response:
    """Return the runs and studies of the folder."""
    return as_json(await desk(request.app.state.listing.values))


@router.get("/api/choices")
async def choices(desk: DeskOfApp) -> Response:
    """Return what the planner's form offers."""
    return as_json(await desk(planner.choices))


@router.post("/api/plan")
async def plan(wish: planner.Wish, desk: DeskOfApp) -> Response:
    """Return `submillion plan`'s result for the wishes."""
    return as_json(await desk(partial(planner.answer, wish)))


@router.post("/api/runs/{name}/load")
async def load(name: str, request: Request) -> Response:
    """Load a run, and return what the playground's form needs to know about it."""
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
