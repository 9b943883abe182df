"""Laws of `submillion ask`: rows go out, labels come back, and the accuracy or a new run follows."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import submillion
from submillion import config, data, runs
from submillion.errors import ConfigError, DataError, RunError
from submillion.model import prefix
from submillion.runs import Run
from tests.data import write_csv
from tests.kit.calls import call
from tests.kit.several_labels import make_rows, write_rows

N_ROWS, N_OLD = 150, 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asking")


@pytest.fixture(scope="module")
def old(folder: Path) -> Path:
    """Rows to train on."""
    return write_csv(folder / "old.csv", N_OLD)


@pytest.fixture(scope="module")
def run(old: Path, folder: Path, encoders: dict[str, Path]) -> Run:
    """A run whose lower layer is frozen."""
    return submillion.train(
        old,
        model={"name": str(encoders["bert"]), "prefix": True},
        out=str(folder / "runs"),
        adapter={"layers": "top:1"},
        train={"steps": 12, "batch_size": 16, "evaluate_every": 12, "precision": "fp32"},
    )


@pytest.fixture(scope="module")
def truth(run: Run, folder: Path) -> dict[str, str]:
    """The labels of the rows of new.csv, which has none; the run was trained on the last 10 of them."""
    with open(write_csv(folder / "labelled.csv", N_ROWS, seed=7)) as file:
        new = list(csv.DictReader(file))
    old = [{"text": one.text, "label": str(one.label)} for one in data.read(run.config().data).train[:10]]
    rows = [{**row, "id": f"n{i}"} for i, row in enumerate([*new, *old])]
    with open(folder / "new.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return {row["id"]: row["label"] for row in rows}


@pytest.fixture
def source(folder: Path, truth: dict[str, str]) -> Path:
    return folder / "new.csv"


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def fill(file: Path, truth: dict[str, str], n: int | None = None) -> Path:
    """Label the first n rows of a file, all of them unless it is said."""
    rows = rows_of(file)
    return write(file, [{**row, "label": truth[row["id"]]} for row in rows[:n]] + (rows[n:] if n is not None else []))


@pytest.fixture
def asked(run: Run, source: Path, tmp_path: Path) -> Path:
    return submillion.ask(run, source, 40, output=tmp_path / "ask.csv").path


def test_the_labels_of_a_sample_give_the_accuracy_of_all_rows(
    run: Run, source: Path, truth: dict[str, str], asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = submillion.evaluate(run, source, labelled=fill(asked, truth))
    labels = submillion.predict(run, source)
    right = {row_id: label == truth[row_id] for row_id, label in zip(labels.ids, labels.labels, strict=True)}
    assert found.n_rows == N_ROWS
    assert found["accuracy"].low <= sum(list(right.values())[:N_ROWS]) / N_ROWS <= found["accuracy"].high
    assert found.sample is not None
    assert (found["accuracy"].n, found.sample.n_labelled, found.sample.n_unlabelled) == (40, 40, 0)
    assert any(f"10 of {N_ROWS + 10} rows were trained on, and left out" in each for each in found.warnings)
    assert call("evaluate", run.path, "--input", source, "--labelled", asked) == 0
    assert f"accuracy on all {found.n_rows} rows" in capsys.readouterr().out
    assert call("evaluate", run.path, "--input", source, "--labelled", asked, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["accuracy"] == vars(found["accuracy"])
    assert values["sample"]["n_labelled"] == 40


def test_with_all_rows_labelled_the_accuracy_is_that_of_an_evaluation(
    run: Run, source: Path, truth: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    asked = submillion.ask(run, source, N_ROWS, output=tmp_path / "all.csv")
    score = submillion.evaluate(run, source, labelled=fill(asked.path, truth))["accuracy"]
    unseen = {row["text"] for row in rows_of(asked.path)}
    rows = [{"text": row["text"], "label": truth[row["id"]]} for row in rows_of(source) if row["text"] in unseen]
    assert score.value == score.low == score.high == pytest.approx(submillion.evaluate(run, rows)["accuracy"].value)


def test_what_is_written_says_what_comes_next_and_does_it(
    run: Run, source: Path, truth: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ask.csv"
    assert call("ask", run.path, "--input", source, "-n", "30", "--output", file) == 0
    out = capsys.readouterr().out
    assert "30 of" in out
    assert "with: art, money, sport" in out
    commands = [line.split() for line in out.splitlines() if line.startswith("  submillion")]
    assert [words[1] for words in commands] == ["evaluate", "train"]
    assert list(rows_of(file)[0]) == [
        *("id", "text", "label", "predicted", "confidence", "stratum", "stratum_rows", "stratum_drawn"),
    ]
    fill(file, truth, 20)
    assert call(*commands[0][1:]) == 0
    assert "10 of 30 rows of" in capsys.readouterr().out
    assert call(*commands[1][1:], "--set", "train.steps=2", "--json") == 0
    new = runs.load(Path(json.loads(capsys.readouterr().out)["run"]))
    assert new.read_json("data.json")["rows"]["train"] == run.read_json("data.json")["rows"]["train"] + 20
    assert new.config().adapter.start_from == str(run.path)
    assert new.path.parent == run.path.parent


def test_the_sample_depends_on_the_seed_alone(run: Run, source: Path, tmp_path: Path) -> None:
    drawn = [
        submillion.ask(run, source, 20, purpose, output=tmp_path / f"{seed}-{i}.csv", seed=seed).ids
        for purpose in ("know", "learn")
        for i, seed in enumerate((0, 0, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[3] == drawn[4]


def test_rows_to_learn_from_are_the_least_sure_and_no_text_comes_twice(run: Run, source: Path, tmp_path: Path) -> None:
    rows = [*rows_of(source), *({**row, "id": f"again{i}"} for i, row in enumerate(rows_of(source)))]
    asked = submillion.ask(run, write(tmp_path / "twice.csv", rows), 10, "learn", output=tmp_path / "ask.csv")
    texts = [row["text"] for row in rows_of(asked.path)]
    assert len({*texts}) == 10
    assert asked.worth == ()
    assert "stratum" not in rows_of(asked.path)[0]
    with pytest.raises(DataError, match="different texts that the run was not trained on"):
        submillion.ask(run, tmp_path / "twice.csv", 200, "learn", output=tmp_path / "other.csv")


def test_labels_of_rows_to_learn_from_say_nothing_of_the_accuracy(
    run: Run, source: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    asked = submillion.ask(run, source, 10, "learn", output=tmp_path / "ask.csv")
    with pytest.raises(DataError, match=r"no column 'stratum' and 'stratum_rows'.* hard ones"):
        submillion.evaluate(run, source, labelled=fill(asked.path, truth))


def test_a_file_is_filled_in_part_by_part(run: Run, source: Path, truth: dict[str, str], asked: Path) -> None:
    with pytest.raises(DataError, match="none of its 40 rows has a label yet: fill in the column 'label'"):
        submillion.evaluate(run, source, labelled=asked)
    widths = []
    for n in (10, 25, 40):
        found = submillion.evaluate(run, source, labelled=fill(asked, truth, n))
        widths.append(found["accuracy"].high - found["accuracy"].low)
        assert found.sample is not None
        assert (found.sample.n_labelled, found.sample.n_unlabelled) == (n, 40 - n)
        assert any("no label yet" in each for each in found.warnings) == (n < 40)
    assert widths == sorted(widths, reverse=True)


def test_rows_that_were_deleted_are_noticed(run: Run, source: Path, truth: dict[str, str], asked: Path) -> None:
    rows = rows_of(fill(asked, truth))
    of_first = [row for row in rows if row["stratum"] == rows[0]["stratum"]]
    found = submillion.evaluate(run, source, labelled=write(asked, [row for row in rows if row is not of_first[-1]]))
    assert any("1 of 40 rows that were asked about is not in" in each for each in found.warnings)
    # Files that an earlier version wrote do not tell.
    older = [{k: v for k, v in row.items() if k != "stratum_drawn"} for row in rows[:-1]]
    warnings = submillion.evaluate(run, source, labelled=write(asked, older)).warnings
    assert not any("asked about" in each for each in warnings)


def test_everything_that_is_wrong_with_labels_is_told_at_once(
    run: Run, source: Path, truth: dict[str, str], asked: Path
) -> None:
    rows = rows_of(fill(asked, truth))
    rows[3]["label"], rows[7]["label"] = "sprot", "monney"
    with pytest.raises(DataError) as error:
        submillion.evaluate(run, source, labelled=write(asked, rows))
    assert len(error.value.problems) == 2
    assert "row 4 (line 5): label 'sprot'" in str(error.value)
    assert "money" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**rows[0], "text": "another text"}, *rows[1:]], r"row 1 .*the input has no row with this text"),
        (lambda rows: [*rows, rows[2]], r"row 41 .*the row appears twice"),
        (lambda rows: rows[:-1], None),
        (lambda rows: [row for row in rows if row["stratum"] != "2"], "keep all rows of the sample"),
        (lambda rows: [{**row, "stratum_rows": "7"} for row in rows], "is a sample of 28 rows"),
        (lambda rows: [{**rows[0], "stratum": "x"}, *rows[1:]], "row 1 .*do not hold whole numbers above 0"),
        (
            lambda rows: [{**row, "predicted": "art", "confidence": "0.5"} for row in rows],
            "give the run that was asked",
        ),
        (lambda rows: [{k: v for k, v in row.items() if k != "label"} for row in rows], "no column 'label'"),
        (lambda rows: [{**row, "id": i} for i, row in enumerate(rows)], None),
        (lambda rows: random.Random(0).sample(rows, len(rows)), None),
        (lambda rows: [{**row, "mine": "note"} for row in rows], None),
    ],
)
def test_a_changed_file_is_refused_where_it_would_mislead(
    run: Run, source: Path, truth: dict[str, str], asked: Path, change: Any, message: str | None
) -> None:
    write(asked, change(rows_of(fill(asked, truth))))
    if message is None:
        assert submillion.evaluate(run, source, labelled=asked).sample is not None
        return
    with pytest.raises(DataError, match=message):
        submillion.evaluate(run, source, labelled=asked)


def test_another_file_than_the_one_that_was_asked_about_is_refused(
    run: Run, source: Path, truth: dict[str, str], asked: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.csv", rows_of(source)[5:])
    with pytest.raises(DataError, match="give the file that was asked about"):
        submillion.evaluate(run, other, labelled=fill(asked, truth))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, r"-n \(n\) is 0: give the number of rows to label"),
        ({"n": None}, r"neither -n \(n\) nor --half-width \(half_width\) is set: give"),
        ({"half_width": 0.1}, r"-n \(n\) and --half-width \(half_width\) are both set: give"),
        ({"n": None, "half_width": 3}, r"--half-width \(half_width\) is 3: give a share between 0 and 0.5"),
        ({"purpose": "knwo"}, r"--for \(purpose\) is 'knwo': did you mean"),
        ({"seed": -1}, r"--seed \(seed\) is -1: give a whole number"),
        ({"output": "ask.jsonl"}, "end the name in .csv"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    run: Run, source: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    wishes = {"n": 10, "output": "ask.csv", **wrong}
    with pytest.raises(ConfigError, match=message):
        submillion.ask(run, source, **{**wishes, "output": tmp_path / str(wishes["output"])})
    assert not list(tmp_path.iterdir())


def test_rows_that_are_not_there_are_refused(run: Run, source: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"500 rows are asked for, but .* that .* was not trained on: ask for fewer"):
        submillion.ask(run, source, 500, output=tmp_path / "ask.csv")
    splits = data.read(run.config().data)
    trained = write(tmp_path / "trained.csv", [{"text": example.text} for example in splits.train])
    with pytest.raises(DataError, match=r"was trained on all .* rows: none is left"):
        submillion.ask(run, trained, 5, output=tmp_path / "ask.csv")
    (tmp_path / "empty.csv").write_text("text\n")
    with pytest.raises(DataError, match="has no rows"):
        submillion.ask(run, tmp_path / "empty.csv", 5, output=tmp_path / "ask.csv")


def test_labels_that_were_filled_in_are_not_replaced(
    run: Run, source: Path, truth: dict[str, str], asked: Path
) -> None:
    submillion.ask(run, source, 40, output=asked)  # as it was written
    fill(asked, truth, 3)
    with pytest.raises(ConfigError, match="already exists, but not as `ask` wrote it"):
        submillion.ask(run, source, 40, output=asked)
    submillion.ask(run, source, 40, output=asked, force=True)


def test_texts_in_memory_can_be_asked_about(run: Run, source: Path, truth: dict[str, str], tmp_path: Path) -> None:
    texts = [row["text"] for row in rows_of(source)]
    asked = submillion.ask(run, texts, 20, output=tmp_path / "ask.csv")
    by_text = {row["text"]: truth[row["id"]] for row in rows_of(source)}
    filled = write(asked.path, [{**row, "label": by_text[row["text"]]} for row in rows_of(asked.path)])
    assert submillion.evaluate(run, texts, labelled=filled)["accuracy"].n == 20


def test_rows_with_several_labels_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", make_rows(60), "joined")
    several = submillion.train(
        rows, model=str(encoders["bert"]), out=str(tmp_path / "runs"), train={"steps": 1, "precision": "fp32"}
    )
    with pytest.raises(RunError, match="have several labels: an empty cell means that none applies"):
        submillion.ask(several, rows, 5, output=tmp_path / "ask.csv")


def test_options_that_do_not_go_together_are_refused(run: Run, source: Path, asked: Path, capsys: Any) -> None:
    for words, message in (
        (["evaluate", run.path], "no rows are given"),
        (["evaluate", run.path, "--labelled", asked], "--input and --labelled go together"),
        (
            ["evaluate", run.path, "--input", source, "--labelled", asked, "--data", source],
            "--data: --labelled only measures accuracy",
        ),
        (["train", "--start", run.path], "--start trains on new rows"),
        (["train", "--start", run.path, "--data", asked, "--recipe", "demo"], "--recipe: --start takes the settings"),
    ):
        assert call(*words) == 1
        assert message in capsys.readouterr().err


# Going on with the labels.


def test_texts_in_windows_can_be_added_too(encoders: dict[str, Path], old: Path, tmp_path: Path) -> None:
    model = {"name": str(encoders["bert"]), "max_length": 8, "long_texts": "windows", "prefix": True}
    small = {"steps": 1, "precision": "fp32"}
    adapter = {"layers": "top:1"}
    before = submillion.train(old, model=model, out=str(tmp_path), adapter=adapter, train=small)
    more = write(
        tmp_path / "more.csv",
        [{"text": f"a film and a book {'of the world ' * 9} {i}", "label": "art"} for i in range(3)],
    )
    new = submillion.train(start=before, data=more, train={"steps": 2})
    assert len(data.read(new.config().data).train) == len(data.read(before.config().data).train) + 3


def test_a_run_that_trained_the_whole_encoder_goes_on_from_it(
    encoders: dict[str, Path], old: Path, tmp_path: Path
) -> None:
    small = {"steps": 2, "precision": "fp32"}
    whole = submillion.train(
        old, model=str(encoders["bert"]), out=str(tmp_path), adapter={"method": "none"}, train=small
    )
    more = write(tmp_path / "more.csv", [{"text": "a new film", "label": "art"}])
    new = submillion.train(start=whole, data=more)
    assert new.config().model.name == str(whole.path / "adapter")


def test_where_a_run_says_no_length_it_goes_on_for_two_epochs(run: Run, old: Path, folder: Path) -> None:
    assert runs.continued(run, old).train.epochs is None, "its steps were said"
    unsaid = config.changed(run.config(), {"train.steps": None})
    other = Run(folder / "unsaid-00000000")
    shutil.copytree(run.path, other.path)
    other.write("config.yaml", config.to_yaml(unsaid))
    other.mark_done()
    assert runs.continued(other, old).train.epochs == 2


def test_a_training_goes_on_with_the_new_rows_and_keeps_the_old_prefix(
    run: Run, source: Path, truth: dict[str, str], asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    write_prefix = prefix._write

    def noted(file: Path, walk: Any, split: Any, watch: Any) -> None:
        computed.append(len(split))
        write_prefix(file, walk, split, watch)

    monkeypatch.setattr(prefix, "_write", noted)
    new = submillion.train(start=run, data=fill(asked, truth, 30), train={"steps": 12})
    assert computed == [30], "the other rows' is found"
    before, after = (data.read(each.config().data) for each in (run, new))
    assert after.validation == before.validation
    assert after.train[: len(before.train)] == before.train
    assert [one.id for one in after.train[-30:]] == [f"{asked}:{row['id']}" for row in rows_of(asked)[:30]]
    with pytest.raises(DataError, match="was trained on the row, so it says nothing about new ones"):
        submillion.evaluate(new, source, labelled=asked)
    more = submillion.ask(new, source, 10, output=asked.with_name("more.csv"))
    assert not {*more.ids} & {row["id"] for row in rows_of(asked)[:30]}
    again = submillion.train(start=new, data=fill(more.path, truth), train={"steps": 2})
    assert len(data.read(again.config().data).train) == len(after.train) + 10


def test_rows_that_are_trained_on_are_not_trained_on_twice(run: Run, tmp_path: Path) -> None:
    before = data.read(run.config().data).train
    rows = [{"text": one.text, "label": one.label} for one in before[:3]]
    rows += [{"text": "a new row", "label": "art"}] * 2
    new = submillion.train(start=run, data=write(tmp_path / "more.csv", rows), train={"steps": 1})
    splits = data.read(new.config().data)
    assert (splits.n_more, len(splits.train)) == (1, len(before) + 1)
    assert any("4 of 5 rows have a text that is already trained on, and are left out" in w for w in splits.warnings)


def test_rows_that_are_held_out_are_not_trained_on(run: Run, tmp_path: Path) -> None:
    held_out = data.read(run.config().data).validation[:2]
    rows = [{"text": one.text.upper(), "label": one.label} for one in held_out] + [
        {"text": "a new row", "label": "art"}
    ]
    new = submillion.train(start=run, data=write(tmp_path / "more.csv", rows), train={"steps": 1})
    splits = data.read(new.config().data)
    assert splits.n_more == 1
    assert any("2 of 3 rows are also held out, in validation or test, and are left out" in w for w in splits.warnings)


def test_a_run_of_rows_in_memory_says_how_it_goes_on(encoders: dict[str, Path], old: Path, tmp_path: Path) -> None:
    rows = rows_of(old)
    run = submillion.train(
        rows, model=str(encoders["bert"]), out=str(tmp_path), train={"steps": 1, "precision": "fp32"}
    )
    with pytest.raises(RunError, match="trained on rows in memory, which are not stored"):
        submillion.train(start=run, data=old)
    with pytest.raises(ConfigError, match="leave the config out"):
        submillion.train({"budget": 5}, start=run, data=old)
