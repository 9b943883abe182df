"""Laws of robustness: what is measured on perturbed rows is what a file of such rows would score."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from submillion import config, data, prediction
from submillion.cli import main
from submillion.config import AugmentationKind
from submillion.data import augmentation
from submillion.errors import ConfigError
from submillion.prediction import robustness
from submillion.prediction.robustness import Robustness
from submillion.runs import Run
from submillion.training import workflow
from tests.data import write_csv

N_ROWS = 60


def write_titled(path: Path, n_rows: int) -> Path:
    """Rows with a title of one word, an empty one here and there; capitals and punctuation."""
    with write_csv(path, n_rows).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = random.Random(0)
    for row in rows:
        words = row.pop("text").split()
        title = words.pop(0).capitalize() if rng.random() < 0.8 else ""
        row |= {"title": title, "body": f"{' '.join(words)}, a Market of the automobiles."}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "title", "body", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_titled(tmp_path_factory.mktemp("rows") / "rows.csv", N_ROWS)


@pytest.fixture(scope="module")
def run(rows: Path, encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = ["train.steps=60", "train.learning_rate=3e-3", "train.precision=fp32", "data.text=[title,body]"]
    overrides += [
        "adapter.method=none",
        "train.decide=accuracy",  # a checkpoint that takes sides
        f"model.name={encoders['bert']}",
        f"data.source={rows}",
        f"out={tmp_path_factory.mktemp('runs')}",
    ]
    return workflow.train(config.load(overrides=overrides))


@pytest.fixture(scope="module")
def found(run: Run, rows: Path) -> Robustness:
    return robustness.measure(run, rows)


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_every_perturbation_is_measured_at_its_strengths(found: Robustness, run: Run, rows: Path) -> None:
    measured = {kind: tuple(each.rate for each in levels) for kind, levels in found.by_kind.items()}
    assert measured == augmentation.STRENGTHS
    assert found.plain == prediction.evaluate(run, rows)
    plain = found.plain["accuracy"].value
    for each in found.perturbed:
        assert each.accuracy.n == each.difference.n == N_ROWS
        assert each.difference.value == pytest.approx(each.accuracy.value - plain)
        assert each.difference.p <= each.p_holm <= 1
        assert each.n_flipped <= each.n_changed <= N_ROWS
    assert sum(each.n_flipped for each in found.perturbed) > 0


@pytest.mark.parametrize("kind", ["typos", "upper", "truncation", "punctuation", "first-column"])
def test_a_higher_rate_changes_no_fewer_rows(found: Robustness, kind: str) -> None:
    counts = [each.n_changed for each in found.by_kind[kind]]
    assert counts == sorted(counts)
    assert counts[-1] > 0


@pytest.mark.parametrize("kind", ["typos", "first-column"])
def test_the_accuracy_is_that_of_a_file_of_perturbed_rows(
    found: Robustness, run: Run, rows: Path, tmp_path: Path, kind: AugmentationKind
) -> None:
    strongest = found.by_kind[kind][-1]
    examples = data.read_rows(rows, run.config().data, labels=run.labels())
    new = [augmentation.perturbed(e, kind, strongest.rate, ["robustness", e.id]) for e in examples]
    assert [(e.id, e.label) for e in new] == [(e.id, e.label) for e in examples]
    with (tmp_path / "new.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "title", "body", "label"), *((e.id, "", e.text, e.label) for e in new)])
    assert prediction.evaluate(run, tmp_path / "new.csv")["accuracy"] == strongest.accuracy


def test_the_order_of_rows_and_the_other_kinds_do_not_matter(
    found: Robustness, run: Run, rows: Path, tmp_path: Path
) -> None:
    header, *lines = rows.read_text().splitlines()
    (tmp_path / "reversed.csv").write_text("\n".join([header, *lines[::-1]]))
    alone = robustness.measure(run, tmp_path / "reversed.csv", ["typos", "typos"])
    assert [replace(each, p_holm=1) for each in alone.perturbed] == [
        replace(each, p_holm=1) for each in found.by_kind["typos"]
    ]


def test_an_opening_is_noted_once_and_progress_ends_at_its_end(run: Run, rows: Path) -> None:
    log = run.path.parent / "test-reads.jsonl"
    before = log.read_text().splitlines() if log.exists() else []
    seen: list[tuple[int, int]] = []
    robustness.measure(run, rows, ["lower", "swap"], watch=lambda done, every: seen.append((done, every)))
    (entry,) = log.read_text().splitlines()[len(before) :]
    assert json.loads(entry)["purpose"] == "evaluate"
    assert seen == sorted(seen)
    assert seen[-1] == (7 * N_ROWS, 7 * N_ROWS)


def test_one_text_column_has_no_first(run: Run, tmp_path: Path) -> None:
    """A run is its config: the same folder with one column stands for a run that was trained so."""
    single = Run(tmp_path / "single-00000000")
    single.path.mkdir()
    single.write("config.yaml", config.to_yaml(config.changed(run.config(), {"data.text": "body"})))
    with pytest.raises(ConfigError, match=r"first-column .* one text column"):
        robustness.applicable(["first-column"], single)
    assert robustness.applicable(None, single) == [kind for kind in augmentation.STRENGTHS if kind != "first-column"]


def test_the_table_has_strengths_as_columns(run: Run, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", run.path, "--data", rows, "--perturb", "typos, first-column") == 0
    out = capsys.readouterr().out
    for part in ("mild", "moderate", "strong", "typos", "10, 20, 40 %", "first-column", "25, 50, 100 %", "60 rows"):
        assert part in out
    assert "swap" not in out


def test_json_adds_perturbations_to_the_scores(
    found: Robustness, run: Run, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "figure.svg"
    assert call("evaluate", run.path, "--data", rows, "--perturb", "typos,swap", "--figure", figure, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in printed.pop("perturbations")] == ["typos"] * 3 + ["swap"] * 3
    scores = {name: vars(score) for name, score in found.plain.scores.items()}
    assert printed == scores | {"n_trained_on": found.plain.n_trained_on, "warnings": [*found.plain.warnings]}
    assert call("evaluate", run.path, "--data", rows, "--perturb", "swap") == 0
    assert found.plain.warnings[0] in capsys.readouterr().out
    assert all(word in figure.read_text() for word in ("typos", "swap", "mild", "strong"))
    assert call("evaluate", run.path, "--data", rows, "--perturb", "swap", "--figure", figure) == 0, "its own"
    figure.write_text("<svg>mine</svg>")
    assert call("evaluate", run.path, "--data", rows, "--perturb", "swap", "--figure", figure) == 1
    assert (
        call("evaluate", run.path, "--data", rows, "--perturb", "swap", "--figure", run.path / "new.svg", "--force")
        == 1
    )
    assert figure.read_text() == "<svg>mine</svg>"
    assert call("evaluate", run.path, "--data", rows, "--perturb", "swap", "--figure", figure, "--force") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--perturb", "typo"], "did you mean 'typos'? Or give all, alone"),
        (["--perturb", "all,typos"], "all cannot be combined with others"),
        (["--perturb", ""], "; or all, alone"),
        (["--figure", "a.svg"], "add --perturb all"),
        (["--perturb", "all", "--figure", "a.jpg"], ".svg or .png"),
        (["--perturb", "all", "--figure", "nowhere/a.png"], "no such folder"),
    ],
)
def test_mistakes_have_a_sentence_before_anything_is_opened(
    run: Run, rows: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run.path.parent / "test-reads.jsonl"
    before = log.exists() and log.read_text()
    assert call("evaluate", run.path, "--data", rows, *options) == 1
    assert words in capsys.readouterr().err
    assert (log.exists() and log.read_text()) == before
