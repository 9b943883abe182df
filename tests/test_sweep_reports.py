"""Laws of the pages of studies and comparisons: they say what summary.json says, load nothing, repeat to the byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from submillion import config, reports
from submillion.errors import ConfigError, RunError
from submillion.judging import comparison
from submillion.judging.metrics import Predictions, wilson
from submillion.reports import comparing, page, write_study
from submillion.reports.sections import Page
from submillion.reports.sweep import course, figures, read, sections
from submillion.reports.verdicts import amount, rounded
from submillion.runs import Output, Run
from submillion.runs.study import FORMAT
from submillion.sweeps import executors, study_names
from submillion.sweeps.sitting import sweep
from submillion.sweeps.space import load_study, options
from submillion.sweeps.study import prepare
from submillion.text import interval
from tests.kit import forks
from tests.kit.calls import call
from tests.kit.pages import ATTACK, Tags, make_run, text_of
from tests.kit.studies import settings
from tests.kit.studies import write_study as write_study_file

__all__ = ["settings"]  # a fixture
N_ROWS = 400


def study(**keys: Any) -> dict[str, Any]:
    """A summary as a sweep writes it, without a training: a grid of two factors, scores falling by a point a trial.

    choices: of both factors · seeds, apart (rows between neighbours), finished, states: the first trials' · the rest
    replaces keys.
    """
    own = {"choices": (("1", "2"), ("a", "b")), "seeds": 1, "apart": 4, "finished": True, "states": (), "text": ""}
    own |= {key: keys.pop(key) for key in list(keys) if key in own}
    trials = []
    for number, (rank, site) in enumerate(product(*own["choices"])):
        state = own["states"][number] if number < len(own["states"]) else "done"
        trials.append(trial(number, {"rank": rank, "sites": site + own["text"]}, state, own["seeds"], own["apart"]))
    done = [each for each in trials if each["state"] == "done"]
    values = {
        "format": FORMAT,
        "study": "demo",
        "kind": "grid",
        "finished": own["finished"],
        "n_planned": len(trials),
        "scale": 1.0,
        "encoder": "encoder" + own["text"],
        "factors": [
            {"factor": "rank", "choices": list(own["choices"][0]), "log": False},
            {"factor": "sites", "choices": [site + own["text"] for site in own["choices"][1]], "log": False},
        ],
        "claims": [],
        "stages": [],
        "trials": trials,
    }
    if own["finished"]:
        best = done[0]["validation_score"]["by_seed"][0]
        compared = verdict(done) if len(done) * own["seeds"] > 1 else None
        recommended = done[0]["runs"][0] if compared is None else taken(compared)
        values |= {"recommended": f"runs/{recommended}", "scores": {"validation": {"accuracy": best}}}
        values |= {"n_test_reads": 0, "rank_correlation": None, "notes": [], "comparison": compared}
    return values | keys


def trial(number: int, choices: dict[str, str], state: str, n_seeds: int, apart: int) -> dict[str, Any]:
    scores = [vars(wilson(N_ROWS - 40 - max(0, apart * number - seed), N_ROWS)) for seed in range(n_seeds)]
    is_done = state == "done"
    return {
        "stage": "grid",
        "choices": choices,
        "settings": {},
        "resolved": {"adapter.rank": int(choices["rank"]), "adapter.sites": [choices["sites"]], "adapter.alpha": None},
        "seeds": list(range(n_seeds)),
        "rank": {},
        "total": 1000 + 100 * int(choices["rank"]),
        "budget": 2000,
        "fits": state != "over budget",
        "largest_rank": 3 if state == "over budget" else None,
        "over_budget": "too large" if state == "over budget" else None,
        "state": state,
        "why": None if state in ("done", "unfinished") else f"{state}: for a reason",
        "runs": [f"demo-{number:04x}{seed:04x}" for seed in range(n_seeds)] if is_done else [],
        "validation_score": {
            "after_selection": True,
            "mean": sum(score["value"] for score in scores) / n_seeds if is_done else None,
            "by_seed": scores if is_done else [],
        },
        "seconds": [{"training": 60.5, "evaluation": 2.25}] * n_seeds if is_done else [],
        "course": [],
    }


def verdict(trials: list[dict[str, Any]], n_tied: int = 2) -> dict[str, Any]:
    """A comparison of the trials, the first of which is the best, `n_tied` of them tied."""
    settings = [
        {
            "setting": f"setting {number}",
            "runs": each["runs"],
            "n_seeds": len(each["runs"]),
            "scores": {"accuracy": each["validation_score"]["by_seed"][0]},
            "after_selection": True,
            "n_params": each["total"],
            "training_s": 60.5,
        }
        for number, each in enumerate(trials)
    ]
    differences = [s["scores"]["accuracy"]["value"] - settings[0]["scores"]["accuracy"]["value"] for s in settings]
    against = [
        {
            "setting": each["setting"],
            "about": "runs",
            "is_tied": number < n_tied,
            "differences": {
                "accuracy": {"value": value, "low": value - 0.01, "high": value + 0.01, "n": N_ROWS}
                | {"p": 0.3 if number < n_tied else 0.0001, "p_holm": 0.4321 if number < n_tied else 0.0123}
            },
        }
        for number, (each, value) in enumerate(zip(settings, differences, strict=True))
        if number
    ]
    group = [each["setting"] for each in settings[:n_tied]]
    taken = min(settings[:n_tied], key=lambda each: each["n_params"])
    return {
        "split": "validation",
        "n_rows": N_ROWS,
        "settings": settings,
        "against_best": against,
        "tie_group": group,
        "recommended": taken["setting"],
        "rows_needed": [
            {"difference": 0.004, "basis": "seen", "by_score": {"n_rows": 4321, "n_seeds": 1}, "by_log_loss": None},
            {"difference": 0.014, "basis": "largest", "by_score": {"n_rows": 2100, "n_seeds": 1}, "by_log_loss": None},
        ],
        "notes": ["with one seed, a test is about these runs"],
    }


def taken(compared: dict[str, Any]) -> str:
    return next(s["runs"][0] for s in compared["settings"] if s["setting"] == compared["recommended"])


def stage(trials: list[dict[str, Any]], name: str, fixed: str | None, n_tied: int = 2) -> dict[str, Any]:
    """A stage of these trials, which from now on are its own."""
    for each in trials:
        each["stage"] = name
    return {"stage": name, "fixed": fixed, "comparison": verdict(trials, n_tied)}


def one_factor(n_tied: int = 2, **keys: Any) -> dict[str, Any]:
    """One factor at a time: two ranks, then two sites; a tie or not."""
    values = study(kind="one-factor", **keys)
    first, second = values["trials"][:2], values["trials"][2:]
    for each, rank in zip(first, ("1", "2"), strict=True):
        each["choices"] = {"rank": rank}
    for each, site in zip(second, ("a", "b"), strict=True):
        each["choices"] = {"rank": "1", "sites": site}
    values["stages"] = [stage(first, "rank", "1", n_tied), stage(second, "sites", "a", n_tied)]
    return values


def two_stages() -> dict[str, Any]:
    values = study(kind="two-stage")
    full = [trial(10 + i, dict(each["choices"]), "done", 1, 1) for i, each in enumerate(values["trials"][:3])]
    stages = [stage(values["trials"], "short", None), stage(full, "full", None)]
    correlated = {"n": 3, "tau": 0.33, "rho": 0.5, "low": None, "high": None, "of_all": None}
    compared = stages[1]["comparison"]
    values |= {"stages": stages, "comparison": compared, "recommended": f"runs/{taken(compared)}"}
    return values | {"trials": values["trials"] + full, "rank_correlation": correlated, "notes": ["kept 3 of 4"]}


def drawn() -> dict[str, Any]:
    values = study(kind="random", choices=(("1", "2", "3", "8"), ("a",)))
    values["factors"][0] |= {"choices": None, "log": True}
    return values


def folder_of(parent: Path, values: dict[str, Any]) -> Path:
    folder = parent / "demo"
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text("name: demo\n")
    (folder / "summary.json").write_text(json.dumps(values))
    return folder


def page_of(parent: Path, values: dict[str, Any], drawn: bool = True) -> Page:
    """The page of a summary, its figures as SVG alone; those that are not drawn are missing."""
    report = read(folder_of(parent, values))
    return Page("demo", "a test", sections(report), figures.draw(report, with_png=False) if drawn else {})


def words_of(parent: Path, values: dict[str, Any]) -> str:
    """The page's text."""
    return text_of(page.html(page_of(parent, values, drawn=False)))


def numbers(value: Any) -> Iterator[float]:
    """Every number within plain values."""
    if isinstance(value, dict):
        yield from (found for each in value.values() for found in numbers(each))
    elif isinstance(value, list):
        yield from (found for each in value for found in numbers(each))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


STUDIES = {
    "grid": study,
    "three seeds": lambda: study(seeds=3),
    "one factor": one_factor,
    "two stages": two_stages,
    "drawn": drawn,
    "one trial": lambda: study(choices=(("1",), ("a",))),
    "some over budget, some failed": lambda: study(states=("done", "done", "over budget", "diverged")),
    "unfinished": lambda: study(finished=False, states=("done", "done", "unfinished", "unfinished")),
    "nothing trained": lambda: study(finished=False, states=("over budget", "diverged", "ruled out", "over budget")),
    "none begun": lambda: study(finished=False) | {"trials": [], "n_planned": 4},
    "130 trials": lambda: study(choices=(tuple(map(str, range(1, 14))), tuple("abcdefghij")), apart=1),
}


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_every_number_is_of_the_summary_and_every_score_is_shown(make: Any, tmp_path: Path) -> None:
    values = make()
    made = page_of(tmp_path, values, drawn=False)
    text, markdown = text_of(re.sub("<script.*?</script>", "", page.html(made))), page.markdown(made)
    known = {f"{sign}{abs(number):.4f}" for number in numbers(values) for sign in ("", "-", "+")}
    effects = course.factor_effects(read(folder_of(tmp_path, values)))
    known |= {f"{number:{sign}.4f}" for e in effects for number in (e.value, e.low, e.high) for sign in ("", "+")}
    assert set(re.findall(r"[+-]?\d\.\d{4}\b", text)) <= known
    for each in values["trials"]:
        if len(each["runs"]) == 1:
            assert interval(wilson(*shares(each["validation_score"]["by_seed"][0]))) in text
    compared = values.get("comparison")
    for each in compared["settings"] if compared else ():
        assert interval(wilson(*shares(each["scores"]["accuracy"]))) in text
        assert interval(wilson(*shares(each["scores"]["accuracy"]))) in markdown.replace("\\", "")
    assert "None" not in text


def shares(score: dict[str, Any]) -> tuple[int, int]:
    return round(score["value"] * score["n"]), score["n"]


def test_a_summary_of_format_2_still_opens(tmp_path: Path) -> None:
    values = two_stages()
    values["format"] = 2
    del values["rank_correlation"]["of_all"]
    for verdict in (values["comparison"], *(stage["comparison"] for stage in values["stages"])):
        verdict.pop("rows_needed", None)
        verdict["n_rows_needed"] = 4321
    record = read(folder_of(tmp_path, values)).summary
    assert record.comparison is not None
    assert record.comparison.rows_needed == ()


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_what_is_read_of_a_summary_is_written_again(make: Any, tmp_path: Path) -> None:
    record = read(folder_of(tmp_path, make())).summary
    values = record.values()
    assert {key: values[key] for key in make() if key not in ("stages", "comparison")} == {
        key: value for key, value in make().items() if key not in ("stages", "comparison")
    }
    assert read(folder_of(tmp_path, values)).summary == record


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_a_page_loads_nothing_and_its_one_script_is_ours(make: Any, tmp_path: Path) -> None:
    made = page_of(tmp_path, make())
    text = page.html(made)
    tags = Tags(text).tags
    for tag, attributes in tags:
        assert tag not in ("link", "iframe", "object", "embed", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href", "xlink:href") or str(value).startswith("#")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    (script,) = re.findall("<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in tags].count("h1") == 1
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags)
    for figure in made.figures.values():
        height = ElementTree.fromstring(figure.svg).get("height")
        assert float(str(height).removesuffix("pt")) < 14 * 72  # also of 130 trials
    assert {section.figure for section in made.sections if section.figure} == set(made.figures)
    assert len(text) < 1_500_000


def test_the_same_summary_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, one_factor() | {"claims": [claim()]})

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    written = write_study(folder)
    before = content()
    assert all(path.exists() for path in written)
    assert {path.stem for path in folder.rglob("*.svg")} == {path.stem for path in folder.rglob("*.png")}
    assert json.loads(written[2].read_text())["summary"]["n_planned"] == 4
    assert {"ties.svg", "factors.png", "frontier.svg", "settings.svg", "time.svg"} <= {Path(p).name for p in before}
    write_study(folder)
    assert content() == before


def test_folders_of_this_machine_stay_out_of_the_page(tmp_path: Path) -> None:
    text = words_of(
        tmp_path, study(encoder="/home/me/my-encoder", claims=[claim()], recommended="/home/me/demo-00000000")
    )
    assert "my-encoder" in text
    assert "/home" not in text


def test_what_users_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    values = study(text=ATTACK + " $x^2$ | `a` \x07", states=("done", "done", "done", "diverged"))
    values["trials"][3]["why"] = f"diverged: {ATTACK}"
    values["claims"] = [claim("sites", values["factors"][1]["choices"][0]) | {"says": ATTACK}]
    made = page_of(tmp_path, values)
    tags = [tag for tag, _ in Tags(page.html(made)).tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert 'alert("x")' in text_of(page.html(made))
    assert "<script" not in page.markdown(made)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "grid",
            ["2 of 4 settings tie with the best", "Take trial 1", "4,320 rows", "after selection"],
        ),
        (
            "one factor",
            ["rank: 1 was fixed inside a tie; these rows cannot tell it from 2", "No winner was told from all"],
        ),
        ("two stages", ["Kendall 0.33, Spearman 0.50", "Kept 3 of 4."]),
        ("one trial", ["One setting finished"]),
        ("some over budget, some failed", ["1 over budget, 1 diverged", "rank 3", "diverged: for a reason"]),
        (
            "unfinished",
            ["Unfinished: 2 of 4 trials", "Run the same command again to resume", "Nothing is recommended yet"],
        ),
        ("nothing trained", ["No trial could be trained", "rank 3", "ruled out: for a reason"]),
        ("none begun", ["Unfinished: 0 of 4 trials", "none begun"]),
        ("130 trials", ["Of 130 settings, the 40 best are drawn", "Of 130 settings, the 80 best are drawn"]),
    ],
)
def test_the_page_says_what_came_out(name: str, words: list[str], tmp_path: Path) -> None:
    made = page_of(tmp_path, STUDIES[name](), drawn=False)
    text = text_of(page.html(made)) + " ".join(section.reading for section in made.sections)
    assert [each for each in words if each not in text] == []


def claim(factor: str = "rank", winner: str = "1", **keys: Any) -> dict[str, Any]:
    return {"factor": factor, "winner": winner, "scores": {}, "rows": None, "says": None} | keys


@pytest.mark.parametrize(
    ("values", "winner", "judgement"),
    [
        (one_factor(n_tied=1), "1", "holds"),
        (one_factor(n_tied=1), "2", "told apart against it"),
        (one_factor(n_tied=2), "1", "a tie"),
        (one_factor(n_tied=2), "2", "a tie"),
        (study(), "1", "holds"),  # both tied trials have rank 1
        (study(), "2", "told apart against it"),
        (study(choices=(("1", "2"), ("a",))), "2", "a tie"),
        (study(choices=(("1", "2"), ("a",)), states=("done", "over budget")), "2", "not tested here"),
        (study(choices=(("1", "2"), ("a",)), states=("done", "over budget")), "1", "not tested here"),
        (study(choices=(("1",), ("a",))), "1", "not tested here"),
        (two_stages(), "1", "holds"),
    ],
    ids=str,
)
def test_a_claim_is_judged_by_the_tie_group(
    values: dict[str, Any], winner: str, judgement: str, tmp_path: Path
) -> None:
    values = values | {"claims": [claim(winner=winner)]}
    (judged,) = read(folder_of(tmp_path, values)).claims
    assert judged.judgement == judgement
    assert (judged.why is not None) == (judgement == "not tested here")
    assert judgement in words_of(tmp_path, values)


def test_choices_that_are_the_same_runs_are_no_tie(tmp_path: Path) -> None:
    values = study(choices=(("1", "2", "3"), ("a",)))
    values["trials"][1] |= {key: values["trials"][0][key] for key in ("runs", "validation_score")}
    values["comparison"] = verdict([values["trials"][0], values["trials"][2]], n_tied=1)
    values["claims"] = [claim(winner="2")]
    report = read(folder_of(tmp_path, values))
    assert report.claims[0].judgement == "holds"
    assert report.panels[0].found == "told apart"
    assert len(report.timed) == 2


def test_a_claims_own_interval_is_wilsons_on_its_rows(tmp_path: Path) -> None:
    known = claim(scores={"1": 585 / 640, "2": 583 / 640}, rows=640)
    unknown = claim("sites", "a", scores={"a": 0.857})
    text = words_of(tmp_path, study(claims=[known, unknown]))
    assert interval(wilson(585, 640)) in text
    assert "± 2.2 points" in text
    assert "1 was claimed +0.3 points from 2, on 640 rows, where the 95 % interval is ± 2.2 points" in text
    assert "0.8570 not known" in text


def test_a_recommendation_that_its_own_factor_tells_apart_is_said(tmp_path: Path) -> None:
    values = one_factor(n_tied=1)
    compared = verdict(values["trials"], n_tied=4)
    compared["recommended"] = "setting 1"
    values |= {"comparison": compared, "recommended": f"runs/{taken(compared)}"}
    text = words_of(tmp_path, values)
    assert "Among the choices of rank alone it was told from 1 (p 0.0123)" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values | {"format": FORMAT + 1}, "update submillion"),
        (lambda values: {k: v for k, v in values.items() if k != "format"}, "an older version wrote it"),
        (lambda values: {k: v for k, v in values.items() if k != "trials"}, "damaged.*trials"),
        (lambda values: values | {"n_planned": "many"}, "damaged.*n_planned"),
        (lambda values: values | {"trials": values["trials"][:2]}, "damaged.*no finished trial has the compared run"),
        (lambda values: values | {"recommended": "runs/other"}, "no finished trial has the recommended run"),
        (lambda _: [], "damaged"),
        (None, "is missing: nothing of the study is finished"),
    ],
)
def test_bad_summaries_get_a_message_and_no_page(change: Any, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, study())
    if change is None:
        (folder / "summary.json").unlink()
    else:
        (folder / "summary.json").write_text(json.dumps(change(study())))
    with pytest.raises(RunError, match=message):
        write_study(folder)
    assert not (folder / "report.html").exists()


def test_a_name_that_nothing_has_is_answered_with_the_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path, study())
    assert call("report", "demmo", "--out", tmp_path) == 1
    said = capsys.readouterr().err
    assert f"studies in {tmp_path}: demo" in said
    assert "no such run folder" in said
    assert "did you mean 'demo'?" in said


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([claim("rnk")], "a claim names factor rnk: did you mean 'rank'"),
        ([claim(winner="3")], "the claim about rank names '3', which is not a choice: allowed: 1, 2"),
        ([claim(scores={"9": 0.5})], "names '9', which is not a choice"),
        ([claim(scores={"1": 91.4})], r"claims.0.scores.1 is 91.4"),
        ([claim(rows=0)], "claims.0.rows is 0"),
        ([claim() | {"row": 640}], "unknown key claims.0.row: did you mean 'rows'"),
        ([{"factor": "rank"}], "claims.0.winner: field required"),
    ],
)
def test_claims_that_the_study_cannot_have_are_refused(
    claims: list[dict[str, Any]], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(write_study_file(tmp_path, settings, claims=claims))


def test_a_claim_names_choices_as_the_study_writes_them(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "train.learning_rate", "values": [0.00002, 0.001]}]
    wanted = claim("learning_rate", 0.00002, scores={0.00002: 0.9, 0.001: 0.8})  # type: ignore[arg-type]
    study, _ = load_study(write_study_file(tmp_path, settings, factors=factors, claims=[wanted]))
    assert study.claims[0].winner == "2e-05"
    assert set(study.claims[0].scores) == {option.label for option in options(study.factors[0])}


def test_the_five_studies_state_what_they_claimed() -> None:
    studies = {name: load_study(name)[0] for name in study_names() if name != "quick"}
    assert len(studies) == 5
    assert all(each.claims for each in studies.values())
    assert {each.rows for each in studies["study-b"].claims} == {640}


def test_a_sweep_ends_with_its_report_which_the_command_writes_again(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "write_study", write_study)
    factors = [{"key": "adapter.rank", "values": [1, 2]}, {"key": "adapter.alpha", "values": ["2r"]}]
    claims = [claim("alpha", "2r", scores={"2r": 0.9}, rows=640)]
    file = write_study_file(tmp_path, settings, kind="one-factor", factors=factors, claims=claims)
    found = sweep(file)
    written = (found.folder / "report.html").read_bytes()
    summary = read(found.folder).summary
    best = max(found.outcomes[:2], key=lambda each: each.score or 0).trial.candidate.choices["rank"]
    assert [stage.fixed for stage in summary.stages] == [best, "2r"]
    assert summary.trials[2].resolved["adapter.alpha"] == 2 * int(best)
    assert summary.n_planned == len(summary.trials) == 3
    text = text_of(written.decode())
    assert interval(found.recommended.scores()["test"]["accuracy"]) in text
    assert "of this study's trials only this one opened them" in text
    for path in found.folder.glob("report.*"):
        path.unlink()
    moved = tmp_path / "elsewhere"
    shutil.copytree(found.folder, moved / found.folder.name)  # without its runs
    code = (
        "import sys\nfrom submillion.cli import main\n"
        f"try:\n    main(['report', 'tiny', '--out', {str(moved)!r}, '--json'])\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'transformers', 'peft', 'optuna', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = forks.run(code, os.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claims"][0]["claim"]["winner"] == "2r"
    assert (moved / "tiny" / "report.html").read_bytes() == written
    monkeypatch.setattr(reports, "write_study", lambda _: 1 / 0)
    capsys.readouterr()
    assert call("sweep", file) == 0  # a report that fails costs no study
    out, err = capsys.readouterr()
    assert "recommended" in out
    assert "no report: ZeroDivisionError" in err


def test_a_study_that_was_stopped_has_a_page_of_what_ended(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_begun = executors.run_job, 0

    def killed(job: executors.Job, watch: Any) -> executors.Result:
        nonlocal n_begun
        n_begun += 1
        if n_begun == 3:
            written = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())  # as kill -9 leaves it
            assert [each["state"] for each in written["trials"]] == ["done", "done", "unfinished"]
            raise KeyboardInterrupt
        return real(job, watch)

    monkeypatch.setattr(executors, "run_job", killed)
    factors = [{"key": "adapter.rank", "values": [1, 2, 3]}]
    with pytest.raises(KeyboardInterrupt):
        sweep(write_study_file(tmp_path, settings, factors=factors))
    made = sections(read(tmp_path / "runs" / "tiny"))
    assert made[0].title == "Unfinished: 2 of 3 trials ended"


def compared(n_settings: int, n_seeds: int = 1) -> comparison.Verdict:
    rng = np.random.default_rng(0)
    label_ids = rng.integers(0, 3, N_ROWS)
    found = []
    for number in range(n_settings):
        predictions = []
        for _ in range(n_seeds):
            said = np.where(rng.random(N_ROWS) < 0.95 - 0.02 * number, label_ids, (label_ids + 1) % 3)
            probs = 0.7 * np.eye(3)[said] + 0.1
            predictions.append(Predictions([f"r{i}" for i in range(N_ROWS)], label_ids, probs))
        names = tuple(f"demo-{number:04x}{seed:04x}" for seed in range(n_seeds))
        name = f"adapter.rank={number}, model.name={ATTACK}"
        found.append(comparison.Setting(name, names, tuple(predictions), 1000 + number, 60.0, 3))
    return comparison.conclude(found)


@pytest.mark.parametrize(("n_settings", "n_seeds"), [(1, 2), (2, 1), (5, 3)])
def test_a_comparisons_page_says_what_compare_says(n_settings: int, n_seeds: int, tmp_path: Path) -> None:
    found = compared(n_settings, n_seeds)
    file = tmp_path / "page.html"
    comparing.write(found, Output(file, "compare"))
    content = file.read_text()
    tags = [tag for tag, _ in Tags(content).tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    text = text_of(content)
    for each in found.settings:
        assert all(interval(score) in text for score in each.scores.values())
    for pair in found.pairs:
        assert f"{pair.differences['accuracy'].value:+.4f}" in text
    for note in found.notes:
        assert note[1:] in text
    for each in found.rows_needed:
        assert amount("accuracy", each.difference) in text
        assert each.by_score is None or f"{rounded(each.by_score.n_rows)} rows" in text
    known = {f"{sign}{abs(each):.4f}" for each in numbers(comparison.values(found)) for sign in ("", "+", "-")}
    assert set(re.findall(r"[+-]?\d\.\d{4}\b", re.sub("<script.*?</script>", "", text))) <= known | {"0.0001"}
    comparing.write(found, Output(tmp_path / "again.html", "compare"))
    assert (tmp_path / "again.html").read_text() == content


@pytest.mark.parametrize(
    ("name", "message"), [("page.txt", "the page is an HTML file"), ("no/page.html", "there is no folder")]
)
def test_a_wrong_file_is_named_before_anything_is_read(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", "a", "b", "--report", tmp_path / name) == 1
    assert message in capsys.readouterr().err


def test_the_command_writes_the_page_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_run(tmp_path)
    second = Run(first.path.with_name("demo-0a1b2c3e"))
    shutil.copytree(first.path, second.path)
    second.write("config.yaml", config.to_yaml(config.changed(first.config(), {"train.learning_rate": 0.5})))
    second.mark_done()
    assert call("compare", first.path, second.path, "--report", tmp_path / "page.html") == 0
    assert str(tmp_path / "page.html") in capsys.readouterr().out
    assert "These 2 runs cannot be told apart" in text_of((tmp_path / "page.html").read_text())
