"""The page's routes: its files, reports and comparisons as pages of their own, and JSON under /api.

Each route is a call: what it answers is decided in the modules that it names.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from submillion.serving import planner, rendered
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.listing import Listing
from submillion.serving.models import Loaded, Models

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

router = APIRouter()


class Asked(BaseModel):
    """A text to classify; a second one for runs that were trained on pairs. `strength` is of changed copies."""

    model_config = ConfigDict(extra="forbid")

    text: str
    text_pair: str | None = None
    strength: Literal["mild", "moderate", "strong"] = "moderate"


def _folder(request: Request) -> Folder:
    return request.app.state.folder


def _listing(request: Request) -> Listing:
    return request.app.state.listing


def _models(request: Request) -> Models:
    return request.app.state.models


FolderOfApp = Annotated[Folder, Depends(_folder)]
ListingOfApp = Annotated[Listing, Depends(_listing)]
ModelsOfApp = Annotated[Models, Depends(_models)]


def _loaded(name: str, folder: FolderOfApp, models: ModelsOfApp) -> Loaded:
    return models.get(folder.run(name))


LoadedRun = Annotated[Loaded, Depends(_loaded)]


@router.get("/")
def page() -> Response:
    """Return the page."""
    return _page_file("submillion.serving", "page", "index.html")


@router.get("/page/report.css")
def report_style() -> Response:
    """Return the reports' style sheet: the page looks as they do."""
    return _page_file("submillion.reports", "page.css")


@router.get("/page/{name}")
def page_file(name: str) -> Response:
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
def report(name: str, folder: FolderOfApp) -> Response:
    """Return the report of a run or a study, as links between the files of the folder name it."""
    return rendered.report(folder, name)


@router.get("/compare")
def compared(folder: FolderOfApp, runs: str = "") -> Response:
    """Return what `submillion compare` says of the runs on validation, their names parted by commas."""
    return rendered.comparison(folder, runs.split(",") if runs else [], "validation")


@router.post("/compare")
def compared_on_test(folder: FolderOfApp, runs: str = "") -> Response:
    """Return the same on test: a POST, because the reading is noted."""
    return rendered.comparison(folder, runs.split(",") if runs else [], "test")


@router.get("/curves.svg")
def curves(runs: str, folder: FolderOfApp) -> Response:
    """Return the training curves of runs so far, their names parted by commas, as a picture."""
    return rendered.curves(folder, runs.split(","))


@router.get("/runs/{name}/config")
def run_config(name: str, folder: FolderOfApp) -> Response:
    """Return a run's config.yaml, as text."""
    path = folder.file(folder.run(name).path, "config.yaml", "the run is damaged")
    return Response(path.read_bytes(), media_type="text/plain; charset=utf-8")


@router.get("/api/list")
def listed(listing: ListingOfApp) -> dict[str, Any]:
    """Return the runs and studies of the folder."""
    return listing.values()


@router.get("/api/choices")
def choices() -> dict[str, Any]:
    """Return what the planner's form offers."""
    return planner.choices()


@router.post("/api/plan")
def plan(wish: planner.Wish) -> dict[str, Any]:
    """Return what `submillion plan` says of the wishes."""
    return planner.answer(wish)


@router.post("/api/runs/{name}/load")
def load(loaded: LoadedRun) -> dict[str, Any]:
    """Load a run, and return what the playground's form needs to know of it."""
    from submillion.serving import explaining  # imports torch, which the rest of the page needs not

    return explaining.facts(loaded)


@router.post("/api/runs/{name}/predict")
def predict(asked: Asked, loaded: LoadedRun) -> dict[str, Any]:
    """Return the class probabilities of a text."""
    from submillion.serving import explaining

    return explaining.prediction(loaded, (asked.text, asked.text_pair))


@router.post("/api/runs/{name}/words")
def words(asked: Asked, loaded: LoadedRun) -> dict[str, Any]:
    """Return each word's effect on the most probable class."""
    from submillion.serving import explaining

    return explaining.words(loaded, (asked.text, asked.text_pair))


@router.post("/api/runs/{name}/variants")
def variants(asked: Asked, loaded: LoadedRun) -> dict[str, Any]:
    """Return the class probabilities of the text and of its changed copies."""
    from submillion.serving import explaining

    return {"variants": explaining.variants(loaded, (asked.text, asked.text_pair), asked.strength)}
