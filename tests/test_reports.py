"""Laws of reports: they say what the folder says, load nothing, run nothing that users wrote, repeat to the byte."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from submillion import config, data, reports, runs
from submillion.cli import main
from submillion.errors import RunError
from submillion.judging.comparison import Difference
from submillion.judging.metrics import Score
from submillion.reports import brief, figures, findings, forests, glyphs, page, read, terminal, write
from submillion.reports.drawing import WIDTH, Drawn, files, style
from submillion.reports.forests import Row
from submillion.reports.sections import CUT, Page, Section, Table
from submillion.runs import Run
from submillion.text import interval
from tests.data import write_csv
from tests.kit import forks
from tests.kit.pages import ATTACK, Tags, make_run, text_of

SOURCE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("report"))
    write(run)
    return run


def page_of(run: Run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


def test_every_score_stands_in_the_page_and_in_the_markdown(written: Run) -> None:
    text, markdown = text_of(page_of(written)), (written.path / "report.md").read_text().replace("\\", "")
    for scores in written.scores().values():
        for each in scores.values():
            assert interval(each) in text
            assert interval(each) in markdown
    assert written.read_json("report.json")["scores"] == written.read_json("scores.json")


def test_the_page_loads_nothing_and_runs_nothing(written: Run) -> None:
    for tag, attributes in Tags(page_of(written)).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert str(value).startswith("#"), (tag, name, value)
    assert "@import" not in page_of(written)
    assert not re.search(r"url\((?!#)", page_of(written))


def test_headings_tables_and_figures_can_be_read_aloud_and_linked_to(written: Run) -> None:
    tags = Tags(page_of(written)).tags
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"])[1:] for tag, attributes in tags if tag == "a"}
    assert links <= set(ids)
    assert len(links) == 13
    assert [tag for tag, _ in tags].count("h1") == 1
    assert all(attributes.get("role") == "img" and attributes["aria-label"] for tag, attributes in tags if tag == "svg")
    n_tables = sum(tag == "table" for tag, _ in tags)
    assert sum(tag == "caption" for tag, _ in tags) == n_tables > 10
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


def test_each_figure_is_a_file_too(written: Run) -> None:
    folder = written.path / "figures"
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {path.stem for path in folder.glob("*.png")}
    assert names == set(reports.figures.draw(read(written), with_png=False)) >= {"plan", "confusion", "cost"}
    for path in folder.glob("*.svg"):
        ElementTree.parse(path)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    linked = re.findall(r"\]\((figures/[^)]+)\)", (written.path / "report.md").read_text())
    assert len(linked) == len(names)
    assert all((written.path / link).exists() for link in linked)


def test_a_report_written_again_is_the_same_to_the_byte_and_the_run_is_untouched(written: Run) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in written.path.rglob("*") if path.is_file()}

    before = content()
    write(written)
    assert content() == before
    runs.verify(written)
    written.mark_done()
    sealed = json.loads((written.path / "DONE").read_text())["files"]
    assert "adapter/README.md" not in sealed
    assert "report.json" not in sealed
    assert {"cost.json", "scores.json"} <= set(sealed)


@pytest.mark.usefixtures("drawn_once")
def test_what_users_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, extra=ATTACK + " $x^2$ | `a` \x07")
    write(run)
    tags = [tag for tag, _ in Tags(page_of(run)).tags]
    assert "script" not in tags
    assert "img" not in tags
    assert 'alert("x")' in text_of(page_of(run))
    for name in ("report.md", "adapter/README.md"):
        assert "<script" not in (run.path / name).read_text()
    for path in (run.path / "figures").glob("*.svg"):
        assert not [node for node in ElementTree.parse(path).iter() if node.tag.endswith("script")]


@pytest.mark.usefixtures("drawn_once")
def test_very_long_texts_are_cut_with_a_mark(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_rows=60, extra="long " * 5000)
    write(run)
    assert CUT.strip() in text_of(page_of(run))
    assert len(page_of(run)) < 1_500_000


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not drawn, which is nine tenths of a page's time: other tests look at them."""

    def files(name: str, figure: Any, _: bool = True) -> Drawn:
        return Drawn(name, "<svg></svg>", b"", figure.get_figwidth() > WIDTH)

    monkeypatch.setattr(figures, "files", files)


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn as SVG alone: other tests look at PNG files."""
    monkeypatch.setattr(figures, "files", lambda name, figure, _=True: files(name, figure, False))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("n_evaluations", [1, 2])
@pytest.mark.parametrize(("test", "is_opened"), [(None, False), (0.2, False), (0.2, True)])
def test_selection_and_the_seal_are_spoken_of_where_there_was_any(
    n_evaluations: int, test: float | None, is_opened: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, test=test, is_opened=is_opened, n_evaluations=n_evaluations)
    write(run)
    several = n_evaluations > 1
    title = re.search(r"<h1[^>]*>(.*?)</h1>", page_of(run))
    assert title is not None
    assert ("after selection" in text_of(title[1])) == (several and not is_opened)
    card = (run.path / "adapter" / "README.md").read_text()
    for text in (text_of(page_of(run)), (run.path / "report.md").read_text(), card):
        assert ("The test split is sealed" in text) == (test is not None and not is_opened)
        assert ("There is no test split" in text) == (test is None)
        assert ("fter selection" in text) == several
        assert ("Not selected on: there was one evaluation" in text) == (not several and not is_opened)
    assert ("was chosen from 2 evaluated" in text_of(page_of(run))) == several
    assert json.loads((run.path / "report.json").read_text())["after_selection"] == (several and not is_opened)
    line = brief.accuracy(run).rows[-1][-1]
    assert ("after selection: the checkpoint was chosen on it" in line) == several
    assert ("not selected on: one evaluation" in line) != several
    assert "after selection: the setting was chosen on it" in brief.accuracy(run, is_chosen=True).rows[-1][-1]
    with pytest.raises(SystemExit):
        main(["runs", "show", str(run.path)])
    assert ("validation, after selection" in capsys.readouterr().out) == several
    assert read(run).n_test_reads == int(is_opened)


def test_texts_of_test_rows_are_not_shown(written: Run) -> None:
    splits = data.read(written.config().data)
    text = text_of(page_of(written))
    mistakes = read(written).mistakes
    assert mistakes
    assert {each.text for each in mistakes} <= {example.text for example in splits.validation}
    assert not [example.text for example in splits.test if f" {example.text} " in text]
    confidences = [each.confidence for each in mistakes]
    assert confidences == sorted(confidences, reverse=True)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("n_classes", [2, 150])
def test_few_and_many_classes(tmp_path: Path, n_classes: int) -> None:
    run = make_run(tmp_path, n_classes, n_rows=max(240, 8 * n_classes))
    write(run)
    text = text_of(page_of(run))
    assert all(f"class {number}" in text for number in range(n_classes))
    assert (f"Of {n_classes} classes, the 12 most confused are drawn" in text) == (n_classes > 20)
    wide = 'figure class="wide"' in page_of(run)
    assert wide == (n_classes > 20)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", ["none", "ia3", "dora"])
def test_every_method_has_a_page_and_a_card(tmp_path: Path, method: str) -> None:
    run = make_run(tmp_path, overrides=[f"adapter.method={method}"])
    write(run)
    total = run.read_json("plan.json")["total"]
    assert f"{total:,} parameters train" in text_of(page_of(run))
    assert (run.path / "figures" / "plan.svg").exists() == (method != "none")
    card = (run.path / "adapter" / "README.md").read_text()
    assert f"library_name: {'transformers' if method == 'none' else 'peft'}\n" in card
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert ("PeftModel" in card) == (method != "none")


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_a_mistake_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, right=1.1)
    assert run.scores()["test"]["accuracy"].value == 1.0
    write(run)
    text = text_of(page_of(run))
    assert "No class is mistaken for another" in text
    assert "All classes have the same F1: 1.0000" in text
    assert "No validation row is wrong" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("change", ["gone", "changed"])
def test_without_its_data_a_report_says_so_and_the_rest_stands(tmp_path: Path, change: str) -> None:
    run = make_run(tmp_path)
    source = tmp_path / "rows.jsonl"
    if change == "gone":
        source.unlink()
    else:
        source.write_text(source.read_text() + json.dumps({"id": "new", "label": "class 1", "text": "one more"}) + "\n")
    write(run)
    text = text_of(page_of(run))
    assert ("cannot be read again" if change == "gone" else "is not what the run was trained on") in text
    assert "There is no baseline on words" in text
    assert interval(run.scores()["test"]["accuracy"]) in text
    assert "majority class" in text
    assert read(run).mistakes is None


def test_the_title_of_the_surest_rows_says_whether_they_gain_anything(written: Run) -> None:
    report = read(written)
    low, high = Score(0.8, 0.7, 0.9, 80), Score(0.9, 0.8, 1.0, 100)
    near, every = report.coverage[0], report.coverage[-1]
    for surest, of_all, title in (
        (high, low, "Answering the surest 80.0 % gives accuracy 0.9000, all rows 0.8000"),
        (high, high, "Answering only the surest 80.0 % gains nothing: accuracy 0.9000, all rows 0.9000"),
        (low, high, "Answering only the surest 80.0 % gains nothing: accuracy 0.8000, all rows 0.9000"),
    ):
        points = [replace(near, share=0.8, accuracy=surest), replace(every, share=1.0, accuracy=of_all)]
        assert findings.coverage(replace(report, coverage=points)).title == title


def test_a_baseline_has_its_article_and_a_change_of_the_ece_no_double_sign(written: Run) -> None:
    words, majority = read(written).baselines
    for difference in (Difference(0.01, -0.1, 0.1, 100, p=0.9), Difference(0.1, 0.05, 0.2, 100, p=0.001)):
        assert "the majority class" in findings._against(replace(majority, difference=difference))
        assert " words + " in findings._against(replace(words, difference=difference))
        assert "the words" not in findings._against(replace(words, difference=difference))
    assert findings._scaling(Score(0.03, 0.01, 0.05, 9), "it") == "It raises the ECE by 0.0300 [0.0100, 0.0500]"
    assert findings._scaling(Score(-0.03, -0.05, -0.01, 9), "it") == "It lowers the ECE by 0.0300 [0.0100, 0.0500]"


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_an_older_version_gets_a_report_that_says_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "cost.json").unlink()
    plan, facts = run.read_json("plan.json"), run.read_json("data.json")
    del plan["n_prefix_layers"], facts["validation_fingerprint"]
    run.write_json("plan.json", plan)
    run.write_json("data.json", facts)
    run.mark_done()
    write(run)
    assert "An older version made this run" in text_of(page_of(run))
    assert not (run.path / "figures" / "cost.svg").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("DONE", None, "is not finished"),
        ("scores.json", "{}", "is not what training wrote"),
        ("scores.json", "{", "damaged"),
        ("predictions-test.parquet", "x", "is not what training wrote"),
        ("predictions-test.parquet", None, "is missing"),
        ("DONE", '{"format": 99, "submillion": "9", "files": {}}', "update submillion"),
    ],
)
def test_bad_folders_get_a_message_and_no_page(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    run = make_run(tmp_path)
    if content is None:
        (run.path / name).unlink()
    else:
        (run.path / name).write_text(content)
    with pytest.raises(RunError, match=message):
        write(run)
    assert not (run.path / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_command_writes_and_prints_paths(
    written: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "write", write)
    run = tmp_path / written.name
    shutil.copytree(written.path, run, ignore=shutil.ignore_patterns("figures", "report.*"))
    with pytest.raises(SystemExit) as stop:
        main(["report", "demo", "--out", str(tmp_path)])
    assert stop.value.code == 0
    paths = capsys.readouterr().out.split()
    assert str(run / "report.html") in paths
    assert all(Path(path).exists() for path in paths)


def test_the_card_is_yaml_that_the_hub_reads(written: Run) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(written.path / "adapter" / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.license is None
    (accuracy, _) = card.data.eval_results or []
    assert accuracy.metric_value == written.scores()["test"]["accuracy"].value
    assert accuracy.dataset_split == "test"
    front = (written.path / "adapter" / "README.md").read_text().split("---")[1]
    assert str(SOURCE) not in yaml.safe_dump(yaml.safe_load(front))


def test_the_baselines_are_those_of_scikit_learn_on_the_same_rows(written: Run) -> None:
    """The label is a word of the text, so that words are enough; the commonest class is a third."""
    words, majority = read(written).baselines
    predictions = written.load_predictions("test")
    assert words.accuracy.value == 1.0
    assert words.difference.value == pytest.approx((predictions.predicted == predictions.label_ids).mean() - 1)
    counts = list(written.read_json("data.json")["classes"]["train"].values())
    assert majority.accuracy.value == (predictions.label_ids == np.argmax(counts)).mean()


@pytest.fixture(scope="module")
def trained(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real, tiny run, whose training wrote its report."""
    from submillion.training import workflow

    source = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)
    overrides = ["train.steps=8", "train.batch_size=8", "train.precision=fp32", "data.test=0.2"]
    overrides += [f"model.name={encoders['bert']}", f"data.source={source}", f"out={tmp_path_factory.mktemp('runs')}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "write", write)
        patch.setattr(figures, "files", lambda name, figure, _=True: files(name, figure, False))
        return workflow.train(config.load(overrides=overrides))


@pytest.mark.usefixtures("drawn_once")
def test_a_training_writes_its_report_and_what_it_cost(trained: Run) -> None:
    cost = trained.read_json("cost.json")
    assert cost["report"]["seconds"] > 0
    assert cost["report"]["peak_mib"] >= cost["peak_mib"]["process"]
    assert list(cost["phases_s"]) == ["reading", "tokenising", "building", "training", "saving", "testing"]
    assert cost["peak_mib"]["process"] > 50
    steps = [record.seconds for record in trained.records()]
    assert 0 < sum(steps) < sum(cost["phases_s"].values()) + 1
    before = page_of(trained)
    write(trained)  # the rows are read again, those of training were at hand
    assert page_of(trained) == before
    runs.verify(trained)


def test_a_report_that_fails_does_not_fail_the_run(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submillion.training import workflow

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no figure")

    monkeypatch.setattr(reports, "write", broken)
    notes: list[str] = []
    settings = trained.config().model_copy(update={"out": str(tmp_path)})
    run = workflow.train(settings, lambda seen: bool(notes.extend(getattr(seen, "notes", ()))))
    assert run.is_done
    assert "ZeroDivisionError: no figure" in notes
    assert f"`submillion report {run.path}` tries again" in notes[-1]


@pytest.mark.slow
def test_the_code_of_the_card_runs_as_it_stands(trained: Run) -> None:
    code = (trained.path / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = forks.run(code, os.environ, "peft", trained.path / "adapter")
    assert done.returncode == 0, done.stderr[-2000:]
    labels = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert len(labels) == 2
    assert set(labels) <= set(trained.labels())


def test_no_label_is_a_row_of_boxes() -> None:
    """The SVG has the characters, for the reader's fonts; the PNG what fonts of this machine have, else escapes."""
    names = ["中文 体育", "हिन्दी", "فئة 2", "plain"]
    with style():
        figure = forests.forest([Row(name, Score(0.8, 0.7, 0.9, 100), True) for name in names], "accuracy", "")
        drawn = files("forest", figure)
        assert all(name in drawn.svg for name in names)
        with glyphs.readable(figure, glyphs.strange_characters(figure)):
            figure.draw_without_rendering()
            labels = list(figure.axes[0].get_yticklabels())
            fonts = [glyphs._of_file(path) for label in labels for path in findfonts(label)]
            assert all(any(ord(c) in font for font in fonts) for label in labels for c in label.get_text())
            assert labels[2].get_text().endswith("فئة 2"), "matplotlib's own font has it"
        figure.draw_without_rendering()
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names


def findfonts(label: Any) -> list[str]:
    from matplotlib.font_manager import fontManager

    return fontManager._find_fonts_by_props(label.get_fontproperties())


def test_letters_from_right_to_left_do_not_turn_a_sentence_round() -> None:
    made = Page("demo", "x", [Section("a", "A", "“فئة 2” has 12 rows, عربي, עברית 3", ("<b> فئة",))], {})
    html = page.html(made)
    assert "“<bdi>فئة 2</bdi>” has 12 rows, <bdi>عربي</bdi>, <bdi>עברית</bdi> 3" in html
    assert "&lt;b&gt; <bdi>فئة</bdi>" in html


def test_numbers_are_aligned_right_and_text_left() -> None:
    rows = [
        ("a", "1,000", "0.9 [0.8, 1.0]", "3 min 21 s", "tied", "–"),
        ("b", "–", "–", "7.2 s", "2 runs or more", "–"),
    ]
    table = Table("t", tuple("uvwxyz"), rows)
    assert [table.are_numbers(column) for column in range(6)] == [False, True, True, True, False, False]
    assert page.table_lines(table)[3] == "| --- | ---: | ---: | ---: | --- | --- |"


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 30])
def test_a_phone_scrolls_no_page_sideways(tmp_path: Path, n_classes: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium on this machine")
    run = make_run(tmp_path, n_classes, extra="averyverylongwordwithoutanyblank" * 9)
    write(run)
    # The page allows no script: a page around it, of the phone's width, measures it.
    (tmp_path / "phone.html").write_text(
        f'<iframe id="page" src="{run.path}/report.html" style="width:390px;height:800px;border:0"></iframe>'
        "<script>onload = () => { const root = document.getElementById('page').contentDocument.documentElement;"
        "document.title = root.scrollWidth + ' of ' + root.clientWidth }</script>"
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/phone.html"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = re.search(r"<title>(\d+) of (\d+)</title>", done.stdout)
    assert found, done.stderr[-500:]
    assert found[1] == found[2]
    assert int(found[2]) >= 370


def test_a_terminal_shows_all_of_a_section_and_cuts_no_cell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path, attack = "runs/" + "x" * 200, f"[bold]{ATTACK}[/bold] :smile:"
    table = Table("Runs", ("run", "rows"), [(path, "1,000"), (attack, "–")])
    terminal.show([Section("a", "A", attack, (path,), tables=(table,), code=(("next", f"submillion train {path}"),))])
    printed = capsys.readouterr().out
    assert not [line for line in printed.splitlines() if line != line.rstrip()], "no blanks at the end of a line"
    assert [printed.count(part) for part in (path, attack, "Runs:", "1,000", "–", "next:")] == [3, 2, 1, 1, 1, 1]
