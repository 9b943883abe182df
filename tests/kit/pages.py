"""Pages of reports: a finished run's folder without a training, and how a page is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from submillion import config, data, planning, runs
from submillion.judging.metrics import Predictions, score, thresholds
from submillion.runs import EvalRecord, Run, StepRecord

ATTACK = '<script>alert("x")</script><img src="http://evil.example/x.png">'


def make_run(
    parent: Path, n_classes: int = 3, n_rows: int = 240, test: float | None = 0.2, extra: str = "", **options: Any
) -> Run:
    """A finished run's folder without a training: labels are in the texts, three predictions in four are right.

    options: has_several, rows have any number of labels, also none · right, the share of predictions that are right ·
    overrides, more settings · n_evaluations, of which the first is the best · is_opened, false for a test split that
    was not · hash8, the end of its name.
    """
    rng = np.random.default_rng(0)
    labels = [f"class {number}{extra}" for number in range(n_classes)]
    source, has_several = parent / "rows.jsonl", options.get("has_several", False)
    rows = []
    for i in range(n_rows):
        own = [j for j in range(n_classes) if i % (j + 2) == 0] if has_several else [i % n_classes]
        text = f"{' '.join(f'word{j}' for j in own)} {'x ' * (i % 17)}number {i} {extra}"
        rows.append({"id": f"r{i}", "label": [labels[j] for j in own] if has_several else labels[own[0]], "text": text})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    overrides = ["model.name=all-MiniLM-L6-v2", f"data.source={source}", "data.validation=0.3"]
    overrides += options.get("overrides", ["adapter.layers=top:2"])
    settings = config.load(overrides=[*overrides, f"data.test={'null' if test is None else test}"])
    splits = data.read(settings.data)
    run = runs.create(parent / "runs", "demo", options.get("hash8", "0a1b2c3d"))
    run.write("config.yaml", config.to_yaml(settings))
    run.write("plan.json", planning.to_json(planning.plan(settings, n_classes)))
    run.write_json(
        "environment.json", {"device": "cpu", "command": ["submillion", "train"], "packages": {"torch": "2"}}
    )
    run.write_labels(splits.labels, has_several)
    run.write_json("data.json", splits.summary())
    if has_several:
        settings = settings.model_copy(update={"data": splits.settings})
        run.write("config.yaml", config.to_yaml(config.changed(settings, {"train.metric": "micro-f1"})))
    scores = {}
    is_opened = bool(test) and options.get("is_opened", True)
    for name in ("validation", "test") if is_opened else ("validation",):
        examples = getattr(splits, name)
        if has_several:
            found = _several(run, [e.id for e in examples], [e.label for e in examples], splits.labels, options)
            run.save_predictions(name, found)
            scores[name] = score(run.load_predictions(name))
            continue
        true = np.array([splits.labels.index(str(example.label)) for example in examples])
        said = np.where(rng.random(len(true)) < options.get("right", 0.75), true, rng.integers(0, n_classes, len(true)))
        probs = (
            rng.dirichlet(np.ones(n_classes), len(true))
            + (2 * rng.random((len(true), 1)) + int("right" in options)) * np.eye(n_classes)[said]
        )
        run.save_predictions(name, Predictions([e.id for e in examples], true, probs / probs.sum(1, keepdims=True)))
        scores[name] = score(run.load_predictions(name))
    for number in range(1, 1 + options.get("n_evaluations", 2)):
        run.append(StepRecord(number, number / 2, 1 / number, 1e-3, 900, 0.25))
        run.append(EvalRecord(number, number / 2, 0.5, 1e-3, 0, 0.1, 1.5, scores["validation"], best=number == 1))
    run.write_scores(scores)
    (run.path / "adapter").mkdir()
    run.write_json("adapter/adapter_config.json", {"base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2"})
    run.write_json(
        "cost.json",
        {"phases_s": {"reading": 1.0, "training": 61.0}, "peak_mib": {"process": 512.0}, "resumed_from_step": 0},
    )
    run.mark_done()
    if is_opened:
        runs.append_test_read(run.path.parent, str(splits.test_fingerprint), run, "train")
    return run


def _several(run: Run, ids: list[str], truth: list[Any], labels: Sequence[str], options: dict[str, Any]) -> Predictions:
    """Predictions of rows with several labels; the first ones are of validation, and the run's thresholds theirs."""
    rng = np.random.default_rng(len(ids))
    label_ids = np.array([[int(label in own) for label in labels] for own in truth])
    said = np.where(rng.random(label_ids.shape) < options.get("right", 0.9), label_ids, 1 - label_ids)
    probs = np.clip(0.1 + 0.6 * said + 0.25 * rng.random(said.shape), 0, 1)
    if not (run.path / "thresholds.json").exists():
        run.write_thresholds(thresholds.chosen(probs, label_ids, "one"))
        return Predictions(ids, label_ids, probs, thresholds.out_of_fold(probs, label_ids, ids, "one"))
    return Predictions(ids, label_ids, probs, run.thresholds())


def text_of(page: str) -> str:
    """The page's text, figures left out."""
    bare = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


class Tags(HTMLParser):
    """Every start tag with its attributes; ids twice or tags left open are errors."""

    VOID = ("meta", "br", "img", "link", "path", "rect", "use", "circle")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag
