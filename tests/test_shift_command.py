"""Laws of `submillion shift`: labels are never read, sealed files never touched, the page says what the numbers say."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from submillion import data, prediction, runs
from submillion.errors import RunError
from submillion.judging.shift import estimates
from submillion.reports import shift as pages
from submillion.runs import Run
from submillion.text import percents
from tests.data import write_csv
from tests.kit.calls import call
from tests.kit.pages import ATTACK, Tags, make_run, text_of


@pytest.fixture(autouse=True, scope="module")
def _few_draws():
    """Intervals have a test file of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "_N_DRAWS", 10)
        yield


def unlabelled(folder: Path, n_rows: int = 60, word: str = "word1", name: str = "new.csv") -> Path:
    path = folder / name
    lines = [f"n{i},{word} {'x ' * (i % 17)}number {i}" for i in range(n_rows)]
    path.write_text("\n".join(["id,text", *lines]) + "\n", encoding="utf-8")
    return path


def with_predictions(run: Run, source: Path, seed: int = 0) -> Path:
    """Save random predictions where the command looks for its own; return their folder."""
    (asked,) = pages.ask([run], source)
    probs = np.random.default_rng(seed).dirichlet(np.ones(len(run.labels())), len(asked.examples))
    runs.save_unlabelled(asked.folder, asked.ids, probs, run.labels())
    return asked.folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("shift"))


@pytest.fixture(scope="module")
def written(run: Run) -> Path:
    """The folder of a report."""
    source = unlabelled(run.path.parent.parent)
    folder = with_predictions(run, source)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert call("shift", run.path, "--input", source) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    runs.verify(run)
    return folder


def test_every_number_stands_in_the_page_in_the_markdown_and_in_the_json(run: Run, written: Path) -> None:
    text, markdown = text_of((written / "shift.html").read_text()), (written / "shift.md").read_text().replace("\\", "")
    (asked,) = pages.ask([run], run.path.parent.parent / "new.csv")
    probs = runs.load_unlabelled(asked.folder, asked.ids, run.labels())
    assert probs is not None
    report = pages.read([asked], [probs], "new.csv")
    (one,) = report.runs
    for score in (one.verdict.accuracy, one.estimates.atc, one.estimates.doc, *one.estimates.bbse, *one.estimates.em):
        assert percents(score) in text
        assert percents(score) in markdown
    values = json.loads((written / "shift.json").read_text())
    assert values["runs"][0]["verdict"]["accuracy"] == vars(one.verdict.accuracy)
    assert values["runs"][0]["after_selection"]
    assert "after selection of the checkpoint" in text
    once = pages.sections(replace(report, runs=(replace(one, after_selection=False),)))
    assert not [row for section in once for table in section.tables for row in table.rows if "selection" in str(row)]
    assert sum(share["value"] for share in values["runs"][0]["estimates"]["em"]) == pytest.approx(1)


def test_the_page_loads_nothing_and_its_figures_are_files(written: Path) -> None:
    page = (written / "shift.html").read_text()
    for tag, attributes in Tags(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        assert all(str(value).startswith("#") for name, value in attributes.items() if name in ("src", "href"))
    assert {path.name for path in (written / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("accuracy", "shares") for kind in ("svg", "png")
    }
    assert "submillion shift" in page


def test_the_json_is_json_alone(run: Run, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("shift", run.path, "--input", run.path.parent.parent / "new.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((written / "shift.json").read_text())


def test_a_label_column_is_not_read_and_evaluate_is_offered(run: Run, tmp_path: Path, written: Path) -> None:
    plain = (run.path.parent.parent / "new.csv").read_text().splitlines()
    labelled = tmp_path / "new.csv"
    labelled.write_text("\n".join([f"{plain[0]},label", *(f"{line},no such class" for line in plain[1:])]) + "\n")
    assert call("shift", run.path, "--input", labelled) == 0
    values = json.loads((written / "shift.json").read_text())  # the same rows: the same folder
    assert values["has_labels"]
    assert "submillion evaluate" in (written / "shift.md").read_text()
    assert "no such class" not in (written / "shift.html").read_text()


def test_rows_that_were_trained_on_are_counted_where_that_was_noted(run: Run, tmp_path: Path) -> None:
    older = Run(tmp_path / "older-0a1b2c3d")
    shutil.copytree(run.path, older.path)
    noted = Run(tmp_path / "noted-0a1b2c3d")
    shutil.copytree(run.path, noted.path)
    train = data.read(run.config().data).train
    runs.note_trained_on(noted, train)
    noted.mark_done()
    source = tmp_path / "mixed.csv"
    lines = [
        *(f"t{i},{example.text.upper()}" for i, example in enumerate(train[:7])),
        *(f"n{i},new {i}" for i in range(30)),
    ]
    source.write_text("\n".join(["id,text", *lines]) + "\n", encoding="utf-8")
    for each, n_seen in ((older, None), (noted, 7)):
        folder = with_predictions(each, source)
        assert call("shift", each.path, "--input", source) == 0
        values = json.loads((folder / "shift.json").read_text())["runs"][0]
        assert values["n_trained_on"] == n_seen
        assert any("7 of 37 rows were trained on" in each for each in values["verdict"]["cautions"]) == (n_seen == 7)


def test_of_a_large_file_a_fixed_draw_is_read_and_both_counts_are_stated(run: Run, tmp_path: Path) -> None:
    source = unlabelled(tmp_path, 200)
    (asked,) = pages.ask([run], source, 50)
    assert (asked.n_rows, len(asked.examples)) == (200, 50)
    assert asked == pages.ask([run], source, 50)[0]
    assert asked.ids == sorted(asked.ids, key=lambda row_id: int(row_id[1:]))
    runs.save_unlabelled(asked.folder, asked.ids, np.full((50, 3), 1 / 3), run.labels())
    assert call("shift", run.path, "--input", source, "--rows", 50) == 0
    assert "50 of the 200 rows were read" in text_of((asked.folder / "shift.html").read_text())


def test_predictions_of_other_rows_are_not_taken(run: Run, tmp_path: Path) -> None:
    first = with_predictions(run, unlabelled(tmp_path))
    (other,) = pages.ask([run], unlabelled(tmp_path, word="word2"))
    lines = (tmp_path / "new.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    (mixed,) = pages.ask([run], tmp_path / "new.csv")
    assert len({first, other.folder, mixed.folder}) == 3
    assert runs.load_unlabelled(first, [*other.ids[1:], "else"], run.labels()) is None


def test_a_run_whose_data_is_gone_says_so_and_the_rest_stands(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    source = unlabelled(tmp_path)
    folder = with_predictions(run, source)
    (tmp_path / "rows.jsonl").unlink()
    assert call("shift", run.path, "--input", source) == 0
    text = text_of((folder / "shift.html").read_text())
    assert "cannot be read again" in text
    assert "Not to be trusted" in text
    assert json.loads((folder / "shift.json").read_text())["runs"][0]["drift"] is None


def test_two_runs_are_shown_with_their_disagreement(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path, right=0.9)
    source = unlabelled(tmp_path)
    folder = with_predictions(run, source)
    with_predictions(other, source, seed=1)
    assert call("shift", run.path, other.path, "--input", source) == 0
    (pair,) = json.loads((folder / "shift.json").read_text())["pairs"]
    assert pair["here"]["n"] == 60
    assert pair["validation"] is not None
    assert "underestimates" in text_of((folder / "shift.html").read_text())


def test_what_users_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, extra=ATTACK)
    folder = with_predictions(run, unlabelled(tmp_path, word=ATTACK.replace('"', "'").replace(",", " ")))
    assert call("shift", run.path, "--input", tmp_path / "new.csv") == 0
    assert not {"script", "img"} & {tag for tag, _ in Tags((folder / "shift.html").read_text()).tags}
    assert "<script" not in (folder / "shift.md").read_text()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("shift RUN --input {tmp}/none.csv", 1, "none.csv"),
        ("shift RUN RUN --input {tmp}/new.csv", 1, "given twice"),
        ("shift RUN OTHER --input {tmp}/new.csv", 1, "different labels"),
        ("shift OPEN --input {tmp}/new.csv", 1, "is not finished"),
        ("shift RUN --input {tmp}/few.csv", 1, "4 rows to estimate for"),
        ("shift RUN --input {tmp}/new.csv --correct-priors {tmp}/new.csv", 1, "is also the input"),
        ("shift RUN --input {tmp}/new.csv --rows 5", 2, "--rows"),
        ("shift RUN", 2, "--input"),
    ],
)
def test_mistakes_are_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, code: int, message: str
) -> None:
    with_predictions(run, unlabelled(tmp_path))
    with_predictions(run, unlabelled(tmp_path, 4, name="few.csv"))
    other = make_run(tmp_path, n_classes=2)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "config.yaml").write_text((run.path / "config.yaml").read_text())
    names = {"RUN": run.path, "OTHER": other.path, "OPEN": tmp_path / "open"}
    words = [str(names.get(word, word)) for word in command.format(tmp=tmp_path).split()]
    assert call(*words) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_an_edited_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "predictions-validation.parquet").write_bytes(b"else")
    with pytest.raises(RunError, match="predictions-validation"):
        pages.ask([run], unlabelled(tmp_path))


def test_a_tiny_run_predicts_once_and_corrects_on_request(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out, corrected = write_csv(tmp_path / "rows.csv", 120), tmp_path / "runs", tmp_path / "corrected.csv"
    sets = [f"model.name={encoders['bert']}", "train.steps=4", "train.precision=fp32", "data.validation=40"]
    assert call("train", "--data", rows, "--out", out, *(word for text in sets for word in ("--set", text))) == 0
    (path,) = (folder for folder in out.iterdir() if folder.is_dir())
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    new = tmp_path / "new.jsonl"
    rows_of = ["the game of the team", "a film", "market news", "a poor book"] * 5
    new.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows_of), encoding="utf-8")
    assert call("shift", path, "--input", new, "--correct-priors", corrected) == 0
    with corrected.open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [str(i) for i in range(20)]
    for row in written:
        probs = {name.removeprefix("prob_"): float(row[name]) for name in row if name.startswith("prob_")}
        assert sum(probs.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(probs, key=lambda label: probs[label])
    assert all(file.read_bytes() == content for file, content in before.items())
    runs.verify(Run(path))

    def again(*_: object, **__: object) -> None:
        raise AssertionError("the predictions were saved")

    monkeypatch.setattr(prediction, "predict", again)
    assert call("shift", path, "--input", new) == 0
