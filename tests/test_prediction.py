"""Laws of predicting files: any format, any chunks, any way of computing and any kill give the same rows once."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import submillion
from submillion import config, runs
from submillion.cli import main
from submillion.data import chunks
from submillion.data.formats import read_table
from submillion.errors import ConfigError, DataError, NotFiniteError, RunError, SubmillionError
from submillion.model.classifier import Classifier
from submillion.prediction import Form, How, Labelled, Progress, predict_file
from submillion.runs import Run
from submillion.training import workers, workflow
from tests.data import write_csv
from tests.kit.calls import call
from tests.kit.formats import write

N_ROWS = 50


@pytest.fixture(scope="module")
def members(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Runs of two encoders on the same labels."""
    folder = tmp_path_factory.mktemp("runs")
    rows = write_csv(folder / "rows.csv", 60)
    common = [
        f"data.source={rows}",
        f"out={folder}",
        "train.learning_rate=0.01",
        "train.steps=25",
        "train.precision=fp32",
        "data.test=null",
    ]
    return [
        workflow.train(config.load(overrides=[*common, f"model.name={encoders[family]}"]))
        for family in ("bert", "mpnet")
    ]


@pytest.fixture(scope="module")
def run(members: list[Run]) -> Run:
    return members[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of N_ROWS rows of different lengths."""
    return write_csv(tmp_path_factory.mktemp("source") / "source.csv", N_ROWS, seed=1)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)


def texts_of(source: Path) -> list[str]:
    return read_table(source, {"text"}).columns["text"]


def write_table(path: Path, table: dict[str, list[Any]]) -> Path:
    """Write columns to a file of the format and the packing that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return path
    text, rows = (
        io.StringIO(newline=""),
        [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)],
    )
    if ".jsonl" in path.name:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(table), delimiter="," if ".csv" in path.name else "\t")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def labelled(run: Run | list[Run], source: Path) -> Labelled:
    return submillion.predict(run, source)


def written(run: Any, source: Path, output: Path, **more: Any) -> bytes:
    predict_file(run, source, output, **more)
    assert not output.with_name(f"{output.name}.partial").exists()
    return output.read_bytes()


def columns_of(path: Path) -> dict[str, list[Any]]:
    names = {"id", "label", "ID", "Label", *(f"prob_{label}" for label in ("art", "money", "sport"))}
    return read_table(path, names).columns


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.tsv.bz2", "a.jsonl.xz", "a.ndjson.zst"]
)
@pytest.mark.parametrize("label_ids", [False, True])
def test_every_format_holds_the_same_rows(run: Run, source: Path, tmp_path: Path, name: str, label_ids: bool) -> None:
    rows = write(tmp_path / f"in-{name}", texts_of(source))
    output = tmp_path / f"out-{name}"
    predict_file(run, rows, output, Form(probabilities=True, label_ids=label_ids))
    found, expected = columns_of(output), labelled(run, rows)
    assert found["ID" if label_ids else "id"] == expected.ids
    numbers = [str(run.labels().index(label)) for label in expected.labels]
    assert [*map(str, found["Label" if label_ids else "label"])] == (numbers if label_ids else expected.labels)
    probs = np.array([found[f"prob_{label}"] for label in expected.classes], dtype=float).T
    np.testing.assert_allclose(probs, expected.probs, atol=2e-6)


def test_parquet_keeps_its_compression_and_csv_its_form(run: Run, source: Path, tmp_path: Path) -> None:
    table = pq.ParquetFile(write(tmp_path / "a.parquet", texts_of(source))).read()
    for codec in ("zstd", "none"):
        pq.write_table(table, tmp_path / "a.parquet", compression=codec)
        predict_file(run, tmp_path / "a.parquet", tmp_path / "b.parquet")
        column = pq.ParquetFile(tmp_path / "b.parquet").metadata.row_group(0).column(0)
        assert column.compression == {"zstd": "ZSTD", "none": "UNCOMPRESSED"}[codec]
    predict_file(run, source, tmp_path / "ids.csv", Form(label_ids=True))
    lines = (tmp_path / "ids.csv").read_text().splitlines()
    expected = labelled(run, source)
    assert lines == [
        "ID,Label",
        *(f"{i},{run.labels().index(x)}" for i, x in zip(expected.ids, expected.labels, strict=True)),
    ]


@pytest.mark.parametrize("n_rows", [1, 7, N_ROWS, 1000])
def test_the_size_of_chunks_does_not_change_predictions(
    run: Run, source: Path, tmp_path: Path, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", n_rows)
    predict_file(run, source, tmp_path / "a.parquet", Form(probabilities=True))
    found, expected = columns_of(tmp_path / "a.parquet"), labelled(run, source)
    assert (found["id"], found["label"]) == (expected.ids, expected.labels)
    probs = np.array([found[f"prob_{label}"] for label in expected.classes]).T
    np.testing.assert_allclose(probs, expected.probs, atol=1e-5)


def test_a_folder_is_predicted_as_its_files_are_alone(run: Run, source: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    (rows / "deep").mkdir(parents=True)
    names = ["a.csv.gz", "deep/b.jsonl", "c.parquet"]
    for number, name in enumerate(names):
        write(rows / name, texts_of(source)[number * 9 : number * 9 + 20])
    (rows / "d.csv").write_text("id,text\n")
    result = predict_file(run, rows, tmp_path / "out", Form(probabilities=True))
    assert result.n_rows == sum(result.counts.values()) == 60
    for name in names:
        alone = tmp_path / Path(name).name
        assert written(run, rows / name, alone, form=Form(probabilities=True)) == (tmp_path / "out" / name).read_bytes()
    assert (tmp_path / "out" / "d.csv").read_text().splitlines() == ["id,label,prob_art,prob_money,prob_sport"]
    (tmp_path / "out" / "old.csv").touch()
    with pytest.raises(ConfigError, match=r"holds old\.csv, not part of this output"):
        predict_file(run, rows, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.parquet"])
def test_ids_are_those_of_a_chosen_column_and_kept_columns_are_copied(
    run: Run, source: Path, tmp_path: Path, name: str
) -> None:
    n_rows = 20
    table = {
        "PhraseId": [f"p{i}" for i in range(n_rows)],
        "id": ["same"] * n_rows,
        "text": texts_of(source)[:n_rows],
        "n": [None if i == 3 else i for i in range(n_rows)],
        "note, quoted": [f'"{i}"\n' for i in range(n_rows)],
    }
    rows, output = write_table(tmp_path / f"in-{name}", table), tmp_path / f"out-{name}"
    form = Form(probabilities=True, id="PhraseId", keep=("n", "text", "note, quoted"))
    assert not predict_file(run, rows, output, form).is_numbered
    found = read_table(output, {*table, "label", "prob_art"})
    assert found.names[:5] == ("PhraseId", "n", "text", "note, quoted", "label")
    is_text = ".csv" in name or ".tsv" in name
    for column in ("PhraseId", "n", "text", "note, quoted"):
        expected = ["" if cell is None else str(cell) for cell in table[column]] if is_text else table[column]
        assert found.columns[column] == expected
    assert found.columns["label"] == submillion.predict(run, rows, id="PhraseId").labels
    assert submillion.predict(run, rows, id="PhraseId").ids == table["PhraseId"]


def test_a_killed_command_may_go_on_with_other_columns(run: Run, source: Path, tmp_path: Path) -> None:
    output, form = tmp_path / "out.csv", Form(keep=("text",))
    begun(run, source, output)
    assert predict_file(run, source, output, form).n_kept
    assert read_table(output, {"text"}).columns["text"] == texts_of(source)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form(id="Id2"), "has no column 'Id2'; it has id, text, label"),
        (Form(id="txt"), "did you mean 'text'?"),
        (Form(keep=("text", "lable")), "has no column 'lable'.*did you mean 'label'"),
        (Form(keep=("label",)), "two columns 'label'"),
        (Form(keep=("text", "text")), "two columns 'text'"),
        (Form(id="label"), "two columns 'label'"),
        (Form(id="label", label_ids=True), r"the label is missing or repeats an earlier row's: .* or choose another"),
    ],
)
def test_columns_that_cannot_be_taken_are_named(
    run: Run, source: Path, tmp_path: Path, form: Form, message: str
) -> None:
    with pytest.raises(SubmillionError, match=message.replace("?", r"\?")):
        predict_file(run, source, tmp_path / "out.csv", form)
    assert not [*tmp_path.iterdir()]


def test_an_ensemble_of_one_and_of_equals_is_that_run(run: Run, source: Path, tmp_path: Path) -> None:
    alone = written(run, source, tmp_path / "a.csv", form=Form(probabilities=True))
    assert written([run], source, tmp_path / "b.csv", form=Form(probabilities=True)) == alone
    equal = Run(shutil.copytree(run.path, tmp_path / "equal"))
    assert written([run, equal], source, tmp_path / "c.csv", form=Form(probabilities=True)) == alone
    assert (labelled([run, equal], source).probs == labelled(run, source).probs).all()
    with pytest.raises(RunError, match="is given twice: give it once"):
        labelled([run, run], source)


def test_an_ensemble_is_the_mean_of_its_members(members: list[Run], source: Path, tmp_path: Path) -> None:
    predict_file(members, source, tmp_path / "a.parquet", Form(probabilities=True))
    found = columns_of(tmp_path / "a.parquet")
    probs = np.array([found[f"prob_{label}"] for label in members[0].labels()]).T
    mean = np.mean([labelled(member, source).probs for member in members], axis=0)
    np.testing.assert_allclose(probs, mean, atol=1e-5)
    np.testing.assert_allclose(submillion.predict(members, texts_of(source)).probs, mean, atol=1e-6)


def test_members_of_other_labels_are_refused(members: list[Run], source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(members[1].path, other)
    (other / "labels.json").write_text('["art", "gold", "sport"]')
    Run(other).mark_done()
    with pytest.raises(RunError, match=r"gives the labels art, gold, sport, and .* must have the same labels"):
        predict_file([members[0], other], source, tmp_path / "a.csv")


class Killer:
    """Kills this process before the n-th file is renamed or removed."""

    def __init__(self, n: int) -> None:
        self.n = n

    def around(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any, **options: Any) -> Any:
            self.n -= 1
            if self.n < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments, **options)

        return acting


def killed_before(n: int, run: Run, source: Path, output: Path) -> bool:
    """Predict in another process that is killed before its n-th change of a folder; say whether it was."""

    def predict() -> None:
        gc.freeze()  # what the tests have is not gone through when this process collects
        killer = Killer(n)
        os.replace = killer.around(os.replace)
        Path.unlink = killer.around(Path.unlink)
        predict_file(run, source, output, Form(probabilities=True))

    child = multiprocessing.get_context("fork").Process(target=predict)
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


@pytest.mark.parametrize("name", ["a.csv", "folder"])
def test_killed_and_resumed_is_never_killed(run: Run, source: Path, tmp_path: Path, name: str) -> None:
    rows = tmp_path / f"in-{name}"
    if name == "folder":
        rows.mkdir()
        write(rows / "a.jsonl.gz", texts_of(source)[:10])
        write(rows / "b.parquet", texts_of(source)[10:26])
    else:
        write(rows, texts_of(source)[:20])
    whole, output = tmp_path / f"whole-{name}", tmp_path / f"out-{name}"
    predict_file(run, rows, whole, Form(probabilities=True))

    def files(path: Path) -> dict[str, bytes]:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        return {str(file.relative_to(path)): file.read_bytes() for file in found}

    n = 0
    while killed_before(n, run, rows, output):
        result = predict_file(run, rows, output, Form(probabilities=True))
        assert files(output) == files(whole), f"killed before change {n}"
        assert not output.with_name(f"{output.name}.partial").exists()
        assert result.n_kept or n < 3 or n > 8, "what was finished is kept"
        shutil.rmtree(output) if output.is_dir() else output.unlink()
        n += 1
    assert n > 8
    assert files(output) == files(whole)


def test_it_goes_on_with_the_threads_that_it_began_with(run: Run, source: Path, tmp_path: Path) -> None:
    notes, seen = list[str](), set[int]()

    def watch(done: Progress) -> None:
        notes.extend(done.notes)
        seen.add(torch.get_num_threads())
        if done.n_done == 16 and done.phase == "predicting" and not notes:
            raise KeyboardInterrupt

    with workers.threads(2), pytest.raises(KeyboardInterrupt):
        predict_file(run, source, tmp_path / "out.csv", watch=watch)
    assert (notes, seen) == ([], {2})
    predict_file(run, source, tmp_path / "out.csv", watch=watch)
    assert seen == {1, 2}
    assert "threads: 2, as when it began, instead of 1, which would change the last bits" in notes


def begun(run: Run, source: Path, output: Path, n: int = 6) -> Path:
    """The journal of a command that was killed when some chunks were done."""
    assert killed_before(n, run, source, output)
    return output.with_name(f"{output.name}.partial")


def test_a_changed_input_is_noticed_and_what_did_not_change_is_kept(run: Run, source: Path, tmp_path: Path) -> None:
    texts, output = texts_of(source), tmp_path / "out.csv"
    rows = write(tmp_path / "rows.csv", texts)
    begun(run, rows, output)
    write(rows, [*texts[:10], "quite another text", *texts[11:]])
    seen: list[Progress] = []
    result = predict_file(run, rows, output, Form(probabilities=True), watch=seen.append)
    notes = " ".join(note for progress in seen for note in progress.notes)
    assert f"{rows} has changed since this was started" in notes
    assert 0 < result.n_kept < 24
    assert output.read_bytes() == written(run, rows, tmp_path / "fresh.csv", form=Form(probabilities=True))


def test_what_another_command_left_is_refused(members: list[Run], source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    left = begun(members[0], source, output)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(source.read_bytes())
    with pytest.raises(ConfigError, match=f"its input was {source}, not {copy}"):
        predict_file(members[0], copy, output)
    with pytest.raises(ConfigError, match=f"its runs were {members[0].name} .*, not {members[1].name}"):
        predict_file(members[1], source, output)
    with runs.locked(left), pytest.raises(RunError, match="another process is writing it"):
        predict_file(members[0], source, output)
    assert predict_file(members[0], source, output).n_rows == N_ROWS
    begun(members[0], source, output, n=1)  # killed before its first chunk: nothing would be lost
    assert predict_file(members[1], source, output).n_kept == 0
    left.mkdir()
    (left / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds mine\.txt"):
        predict_file(members[0], source, output)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.99])
def test_a_flipped_bit_in_what_is_finished_is_said_and_predicted_again(
    run: Run, source: Path, tmp_path: Path, place: float
) -> None:
    output, notes = tmp_path / "out.csv", list[str]()
    damaged = sorted(begun(run, source, output, n=9).glob("*.parquet"))[0]
    n_finished, content = len([*damaged.parent.glob("*.parquet")]), bytearray(damaged.read_bytes())
    content[int(place * len(content))] ^= 1
    damaged.write_bytes(content)
    result = predict_file(run, source, output, Form(probabilities=True), watch=lambda done: notes.extend(done.notes))
    assert f"1 of {n_finished} finished chunks in {damaged.parent} are damaged" in notes[0]
    assert result.n_kept == 8 * (n_finished - 1)
    assert output.read_bytes() == written(run, source, tmp_path / "fresh.csv", form=Form(probabilities=True))


def test_a_flipped_bit_in_the_journals_own_facts_is_refused(run: Run, source: Path, tmp_path: Path) -> None:
    manifest = begun(run, source, tmp_path / "out.csv") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"threads": 1', '"threads": 3'))
    with pytest.raises(RunError, match=f"{manifest} is damaged"):
        predict_file(run, source, tmp_path / "out.csv")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_predicted(
    run: Run, source: Path, tmp_path: Path, number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, batch: forward(self, batch) * number)
    rows = write_csv(tmp_path / "rows.csv", 9)
    for ask in (
        lambda: submillion.predict(run, ["a good film"]),
        lambda: predict_file(run, source, tmp_path / "out.csv"),
        lambda: submillion.evaluate(run, rows),
    ):
        with pytest.raises(NotFiniteError, match=r"logits are not finite numbers for \d of \d rows \(ids r?0"):
            ask()
    assert not (tmp_path / "out.csv").exists()


def test_rows_without_a_known_token_are_counted_also_after_a_kill(
    run: Run, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "rows.csv", [*texts_of(source)[:20], "\U0001f600", "\u4e2d\u6587"])
    found = submillion.predict(run, rows)
    sentence = "2 of 22 rows (9.1 %) have no token that the encoder knows: they all look the same to it"
    assert found.warnings == (sentence,)
    begun(run, rows, tmp_path / "out.csv")
    assert predict_file(run, rows, tmp_path / "out.csv").n_blank == 2
    assert call("predict", run.path, "--input", rows, "--output", tmp_path / "out.csv") == 0
    assert f"warning: {sentence}" in capsys.readouterr().out
    assert submillion.predict(run, ["good"]).warnings == ()


def test_a_way_of_computing_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="inline is one process, not 3"):
        How("inline", 3)
    with pytest.raises(ConfigError, match="give --executor ray too"):
        How("processes", 2, "10.0.0.1:6379")


def test_bad_rows_are_reported_before_anything_is_predicted(run: Run, source: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", [*texts_of(source), "", "fine", " "])
    with pytest.raises(DataError, match=r"rows 51, 53 \(lines 52, 54\): the text"):
        predict_file(run, rows, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    ("source", "output", "found"),
    [
        ("in.csv", "in.csv", "is also the input"),
        ("in.csv", "link.csv", "is also the input"),
        ("in.csv", "out.xlsx", "give one that ends in .csv"),
        ("in.csv", "out.parquet.gz", "give one that ends in .csv"),
        ("in.csv", "rows", "is a folder, and"),
        ("rows", "in.csv", "is a file, and"),
        ("rows", "rows", "is also the input"),
        ("rows", "rows/out", "are inside one another"),
        ("rows/deep", "rows", "are inside one another"),
        ("in.csv", "other.csv", "but not as `predict` wrote it"),
        ("in.csv", "labels.csv", "but not as `predict` wrote it"),
        ("rows/deep", "parts", "but not as `predict` wrote it"),
    ],
)
def test_outputs_that_would_harm_are_refused(run: Run, tmp_path: Path, source: str, output: str, found: str) -> None:
    (tmp_path / "rows" / "deep").mkdir(parents=True)
    write(tmp_path / "in.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    write(tmp_path / "other.csv")
    (tmp_path / "labels.csv").write_text("id,label\n0,art\n")  # as predictions look, and somebody's own
    write(tmp_path / "rows/deep/in.csv")
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts/in.csv")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=found.replace(".", r"\.")):
        predict_file(run, tmp_path / source, tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", ["predictions-test.parquet", "new.csv", "adapter/new.jsonl", "parts"])
def test_nothing_is_written_into_a_run_folder(members: list[Run], source: Path, tmp_path: Path, inside: str) -> None:
    run = Run(tmp_path / "renamed")
    shutil.copytree(members[0].path, run.path)
    (tmp_path / "link").symlink_to(run.path)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    rows = source.parent if inside == "parts" else source
    for folder in (run.path, tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"is inside the run folder .*/renamed"):
            predict_file(members[1], rows, folder / inside, Form(force=True))
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_an_output_replaces_its_own_earlier_one_and_others_by_force_alone(
    run: Run, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    first = written(run, source, output)
    assert written(run, source, output, form=Form(probabilities=True)) != first
    output.write_text("id,label\n0,corrected by hand\n")
    with pytest.raises(ConfigError, match="replace it with --force"):
        predict_file(run, source, output)
    with pytest.raises(ConfigError, match="but not as `shift` wrote it"):
        submillion.shift(run, source, correct_priors=output)
    assert written(run, source, output, form=Form(force=True)) == first
    output.rename(tmp_path / "kept.csv")
    with pytest.raises(ConfigError, match="already exists"):
        predict_file(run, source, tmp_path / "kept.csv")


def test_progress_goes_from_what_is_kept_to_all_rows(run: Run, source: Path, tmp_path: Path) -> None:
    begun(run, source, tmp_path / "out.csv")
    seen: list[Progress] = []
    result = predict_file(run, source, tmp_path / "out.csv", watch=seen.append)
    done = [progress.n_done for progress in seen if progress.phase == "predicting"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (result.n_kept, N_ROWS)
    assert {progress.phase for progress in seen} == {"checking", "predicting", "joining"}


def test_the_command_takes_several_runs(
    members: list[Run], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", *members, "--input", source, "--output", tmp_path / "a.jsonl", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([str(word.path if isinstance(word, Run) else word) for word in words])
    printed = json.loads(capsys.readouterr().out)
    assert (stop.value.code, printed["rows"], printed["numbered"]) == (0, N_ROWS, False)
    assert printed["predicted"].keys() == set(members[0].labels())
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == labelled(members, source).labels


@pytest.mark.slow
def test_processes_go_on_and_give_the_bytes_of_one_process(run: Run, source: Path, tmp_path: Path) -> None:
    alone = written(run, source, tmp_path / "alone.csv", form=Form(probabilities=True))
    begun(run, source, tmp_path / "out.csv")
    how = How("processes", 2)
    assert written(run, source, tmp_path / "out.csv", form=Form(probabilities=True), how=how) == alone
