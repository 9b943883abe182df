"""The service's routes: predictions and models under /v1, health, numbers, and their description as OpenAPI.

`service` decides the answers; `app` turns errors into sentences.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from submillion.config import Precision
from submillion.judging.confidence import RAW, Answering, Rules
from submillion.serving import counting
from submillion.serving.guard import as_json, refusal
from submillion.serving.service import LONGEST_CHARACTERS, MAX_TEXTS, Service

if TYPE_CHECKING:
    from submillion.prediction.sharing import Loaded

router = APIRouter()
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_CHARACTERS)]
SeveralTexts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Name = Annotated[str, Field(max_length=200)]


class Asked(BaseModel):
    """Texts to classify, by one run or several. Runs trained on pairs take as many second texts."""

    model_config = ConfigDict(extra="forbid")

    texts: SeveralTexts
    text_pairs: SeveralTexts | None = None
    run: Name | None = Field(None, description="Required if there are several runs, unless `runs` names some.")
    runs: Annotated[list[Name], Field(min_length=1, max_length=MAX_TEXTS)] | None = Field(
        None, description="Each run classifies all texts; shared layers are computed once."
    )
    calibrated: bool = Field(False, description="Scale probabilities by the run's temperature; labels do not change.")
    max_error: float | None = Field(
        None, gt=0, lt=1, description="A label only where at most this share of labels is wrong, else null."
    )
    coverage: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Also sets of labels, which contain the true one for at least this share of texts.",
    )

    @model_validator(mode="after")
    def _as_many(self) -> Asked:
        if self.text_pairs is not None and len(self.text_pairs) != len(self.texts):
            raise ValueError(
                f"there are {len(self.texts)} texts and {len(self.text_pairs)} text_pairs: give one for each text"
            )
        if self.runs is not None and self.run is not None:
            raise ValueError("run and runs are both given: give one of them")
        if self.runs is not None and len(set(self.runs)) < len(self.runs):
            raise ValueError("a run is named twice in runs: name each once")
        if self.max_error is not None and self.coverage is not None:
            raise ValueError("max_error and coverage are both given: a text gets one label or none, or a set; give one")
        if len(self.texts) * len(self.runs or [""]) > MAX_TEXTS:
            raise ValueError(
                f"there are {len(self.texts)} texts for {len(self.runs or [])} runs: at most {MAX_TEXTS} texts "
                "times runs are allowed at once; send fewer in each request"
            )
        return self


Label = str | int | bool  # as in the training rows; bool is separate, since pydantic would make it 0 or 1


class Prediction(BaseModel):
    """From a run whose rows have one label: the most probable one, and the probability of each, by its name."""

    label: Label
    probs: dict[str, float]


class Answered(BaseModel):
    """A prediction with `max_error`: the label is null if the run is not sure enough."""

    label: Label | None
    answered: bool
    probs: dict[str, float]


class LabelSet(BaseModel):
    """A prediction with `coverage`: `labels` are those the text may have, at least the most probable one."""

    label: Label
    labels: list[Label]
    probs: dict[str, float]


class SeveralLabels(BaseModel):
    """From a run whose rows have several labels: those that reach their thresholds, perhaps none; the probability of
    each label by itself, and its threshold."""

    labels: list[Label]
    probs: dict[str, float]
    thresholds: dict[str, float]


class Answer(BaseModel):
    """Predictions in the order of the texts, the run that made them, and its precision.

    without_known_tokens: the places, from 0, of texts without a token that the encoder knows: all look the same to it.
    """

    run: str
    precision: Precision
    predictions: list[Prediction] | list[Answered] | list[LabelSet] | list[SeveralLabels]
    without_known_tokens: list[int]


class Answers(BaseModel):
    """The answers of several runs, in the order they were named."""

    answers: list[Answer]


class Model(BaseModel):
    """A finished run of the folder; whether its rows have several labels, and whether it is in memory already."""

    run: str
    labels: list[Label]
    has_several_labels: bool
    takes_pairs: bool
    model: str
    trainable_params: int
    is_loaded: bool


class Models(BaseModel):
    """The finished runs of the folder, by name."""

    models: list[Model]


class Health(BaseModel):
    """Whether the server is up, or ready."""

    status: str


class Problems(BaseModel):
    """What was found, what is allowed, what to do: one or more sentences."""

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
        "description": "The server is stopping, or too many texts are waiting: wait for Retry-After seconds",
    },
}


_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problems, "description": "The first answer is being prepared"}
}


@router.post("/v1/predict", responses=_PREDICT_ERRORS)
async def predict(asked: Asked, request: Request) -> Answer | Answers:
    """Return labels and probabilities of texts, in their order."""
    pairs = asked.text_pairs or [None] * len(asked.texts)
    texts = list(zip(asked.texts, pairs, strict=True))
    answers = []
    answering = Answering(asked.calibrated, asked.max_error, asked.coverage)
    results = await _service(request).answer(asked.runs or [asked.run], texts, caller_of(request), answering)
    for loaded, rules, raw, is_blank in results:
        predictions = [_prediction(loaded, probs, rules) for probs in raw]
        facts = {"run": loaded.run.name, "precision": loaded.classifier.precision, "predictions": predictions}
        answers.append(Answer(**facts, without_known_tokens=[i for i, blank in enumerate(is_blank) if blank]))
    return answers[0] if asked.runs is None else Answers(answers=answers)


def _prediction(
    loaded: Loaded, raw: np.ndarray, rules: Rules = RAW
) -> Prediction | Answered | LabelSet | SeveralLabels:
    names, classes = loaded.classifier.labels, loaded.classes
    by_name = dict(zip(names, rules.probs(raw).tolist(), strict=True))
    if loaded.thresholds is not None:
        labels = [classes[i] for i in np.flatnonzero(raw >= loaded.thresholds)]
        thresholds = dict(zip(names, rules.probs(loaded.thresholds).tolist(), strict=True))
        return SeveralLabels(labels=labels, probs=by_name, thresholds=thresholds)
    label = classes[int(raw.argmax())]
    answered, members = rules.answered(raw[None]), rules.members(raw[None])
    if answered is not None:
        return Answered(label=label if answered[0] else None, answered=bool(answered[0]), probs=by_name)
    if members is not None:
        return LabelSet(label=label, labels=[classes[i] for i in np.flatnonzero(members[0])], probs=by_name)
    return Prediction(label=label, probs=by_name)


@router.get("/v1/models", responses=_ERRORS, response_model=Models)
async def models(request: Request) -> Response:
    """Return the finished runs now in the folder."""
    service = _service(request)
    rows = await service.at_desk(caller_of(request), request.app.state.listing.models)
    loaded = {each.run.name for each in service.loaded()}
    return as_json({"models": [row | {"is_loaded": row["run"] in loaded} for row in rows]})


@router.get("/healthz")
async def health() -> Health:
    """Report that the server is up, ready or not; no token is needed."""
    return Health(status="ok")


@router.get("/readyz", responses=_NOT_READY, response_model=Health)
async def ready(request: Request) -> Response:
    """Report that an answer takes no longer than later ones; the first call prepares that. No token is needed."""
    if not _service(request).is_ready():
        return refusal(503, ["the server is up and preparing its first answer: try again"], {"retry-after": "1"})
    return as_json({"status": "ok"})


@router.get(
    "/metrics",
    response_class=Response,
    responses=_ERRORS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Return the server's metrics in Prometheus' format."""
    return Response(request.app.state.counts.exposition(), media_type=counting.CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request) -> dict[str, Any]:
    """Return the description of these routes."""
    servers = [{"url": request.scope["root_path"]}] if request.scope.get("root_path") else None
    return get_openapi(title="submillion serve", version=version("submillion"), routes=router.routes, servers=servers)


def caller_of(request: Request) -> str:
    """Return the caller among whom work is shared: an address; a proxy on this machine passes it on."""
    return "" if request.client is None else request.client.host


def _service(request: Request) -> Service:
    return request.app.state.service
