"""The service's routes: predictions and models under /v1, health, numbers, and their description as OpenAPI.

What is answered is decided in `service`; errors become sentences in `app`.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from submillion.config import Precision
from submillion.serving import counting
from submillion.serving.service import Service, model_values

MAX_TEXTS = 256
MAX_CHARACTERS = 20_000
COUNTED = ("/v1/predict", "/v1/models")
_GONE = 499  # nobody reads it: nginx's number for a client that closed the connection

router = APIRouter()
Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
SeveralTexts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class Asked(BaseModel):
    """Texts to classify, of one run. Runs that were trained on pairs take as many second texts."""

    model_config = ConfigDict(extra="forbid")

    texts: SeveralTexts
    text_pairs: SeveralTexts | None = None
    run: Annotated[str, Field(max_length=200)] | None = Field(None, description="Needed where there are several runs.")

    @model_validator(mode="after")
    def _as_many(self) -> Asked:
        if self.text_pairs is not None and len(self.text_pairs) != len(self.texts):
            raise ValueError(f"there are {len(self.texts)} texts and {len(self.text_pairs)} text_pairs: give as many")
        return self


Label = str | int | bool  # as the training rows had it; bool apart, which pydantic would make 0 or 1


class Prediction(BaseModel):
    """The most probable label, and the probability of each, by its name."""

    label: Label
    probs: dict[str, float]


class Answer(BaseModel):
    """Predictions in the order of the texts, the run that made them, and the precision it computed in."""

    run: str
    precision: Precision
    predictions: list[Prediction]


class Model(BaseModel):
    """A finished run of the folder; whether it is in memory already."""

    run: str
    labels: list[Label]
    takes_pairs: bool
    model: str
    trainable_params: int
    is_loaded: bool


class Models(BaseModel):
    """The finished runs of the folder, by name."""

    models: list[Model]


class Health(BaseModel):
    """That the server answers."""

    status: str


class Problems(BaseModel):
    """What was found, what is allowed, what to do: a sentence or several."""

    problems: list[str]


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problems, "description": "The token is missing or wrong"},
    503: {"model": Problems, "description": "The server is stopping"},
}
_PREDICT_ERRORS = _ERRORS | {
    400: {"model": Problems, "description": "The run cannot read the texts, is damaged, or is not named"},
    404: {"model": Problems, "description": "There is no such run"},
    413: {"model": Problems, "description": "The request is too large"},
    422: {"model": Problems, "description": "The request is not as described here"},
    503: {
        "model": Problems,
        "description": "The server is stopping, or too many texts are in hand: wait for Retry-After seconds",
    },
}


@router.post("/v1/predict", responses=_PREDICT_ERRORS)
async def predict(asked: Asked, request: Request) -> Answer:
    """Return labels and probabilities of texts, in their order."""
    service: Service = request.app.state.service
    pairs = asked.text_pairs or [None] * len(asked.texts)
    answer = asyncio.ensure_future(service.answer(asked.run, list(zip(asked.texts, pairs, strict=True))))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(_GONE, "the client closed the connection")
        loaded, found = answer.result()
    finally:
        answer.cancel()
        gone.cancel()
    labels = loaded.classifier.labels
    predictions = [
        Prediction(label=loaded.classes[int(probs.argmax())], probs=dict(zip(labels, probs.tolist(), strict=True)))
        for probs in found
    ]
    return Answer(run=loaded.run.name, precision=loaded.classifier.precision, predictions=predictions)


@router.get("/v1/models", responses=_ERRORS)
def models(request: Request) -> Models:
    """Return the finished runs of the folder, as they are now."""
    state = request.app.state
    return Models.model_validate({"models": model_values(state.folder, state.listing, state.models)})


@router.get("/healthz")
async def health() -> Health:
    """Say that the server answers; no token is needed."""
    return Health(status="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses=_ERRORS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Return the server's numbers as Prometheus reads them."""
    return Response(request.app.state.counts.exposition(), media_type=counting.CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
def description() -> dict[str, Any]:
    """Return what these routes take and give."""
    return get_openapi(title="submillion serve", version=version("submillion"), routes=router.routes)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
