"""Laws of the served folder: it says what the commands say, answers its own page alone, and never leaves the folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from submillion import prediction, runs
from submillion.data.augmentation import STRENGTHS
from submillion.errors import ConfigError, RunError, install_line
from submillion.reports import comparing
from submillion.serving import app, folders, guard, service
from tests.kit.calls import beside, call
from tests.kit.pages import text_of
from tests.served import TEXT, client_of, finished

WISH = {
    "model": "roberta-base",
    "n_classes": 4,
    "budget": 1_000_000,
    "method": "lora",
    "sites": ["query", "value"],
    "layers": None,
    "rank": None,
    "head": "full",
}
BEGUN = {"format": 1, "study": "x", "kind": "grid", "finished": False, "n_planned": 2, "scale": 1.0, "encoder": "e"}
BEGUN |= {"factors": [], "claims": [], "stages": [], "trials": []}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def client(served: Path) -> TestClient:
    return client_of(served)


@pytest.fixture(scope="module")
def first(served: Path) -> str:
    return finished(served)[0]


def problem(answer: Any, status: int) -> str:
    """The sentences of an answer that went wrong."""
    assert answer.status_code == status, answer.text
    return "\n".join(answer.json()["problems"])


# The list ------------------------------------------------------------------------------------------------------------


def test_the_list_has_every_run_with_its_state_and_why(client: TestClient, served: Path) -> None:
    values = client.get("/api/list").json()
    rows = {row["run"]: row for row in values["runs"]}
    assert values["folder"] == str(served.resolve())
    names = {run.name for run in runs.list_runs(served)}
    assert set(rows) == names - {"out-00000005"}
    for name in finished(served):
        expected = runs.facts(runs.Run(served / name))
        assert {key: rows[name][key] for key in expected} == expected | {"state": "finished"}
        assert rows[name]["metric_name"] == "accuracy"
        assert rows[name]["why"] == ""
        assert rows[name]["studies"] == ["tiny"]
        assert rows[name]["settings"]["train.steps"] == "6"
    assert rows["cut-00000001"]["state"] == rows["half-00000003"]["state"] == "unfinished"
    assert f"submillion train --config {served / 'cut-00000001' / 'config.yaml'}" in rows["cut-00000001"]["why"]
    assert "labels.json is damaged" in rows["bad-00000002"]["why"]
    assert "unknown key gone" in rows["old-00000004"]["why"]
    assert {rows[name]["state"] for name in ("bad-00000002", "old-00000004")} == {"damaged"}


def test_the_list_has_studies(client: TestClient, served: Path) -> None:
    (study,) = client.get("/api/list").json()["studies"]
    summary = json.loads((served / "tiny" / "summary.json").read_text())
    assert (study["state"], study["n_done"], study["n_trials"]) == ("finished", 2, 2)
    assert study["runs"] == finished(served)
    assert study["recommended"] == Path(summary["recommended"]).name
    assert study["score"] == {"split": "test", "name": "accuracy", **summary["scores"]["test"]["accuracy"]}
    page = client.get("/runs/tiny/report.html").text
    assert all(f'href="../{name}/report.html"' in page for name in study["runs"])
    assert 'href="../../#runs?filter=tiny"' in page


@pytest.mark.parametrize(
    ("summary", "state", "why"),
    [
        (None, "unfinished", "before its first trial"),
        (json.dumps(BEGUN), "unfinished", "the same command resumes it"),
        ("{", "damaged", "summary.json is damaged"),
        ("[]", "damaged", "summary.json is damaged"),
        ('{"finished": true, "trials": []}', "damaged", "has no format"),
        (json.dumps(BEGUN | {"finished": True}), "damaged", "the recommended run, or its scores are missing"),
        (json.dumps(BEGUN | {"kind": "\ud800"}), "damaged", "kind"),
    ],
)
def test_studies_that_are_not_finished(tmp_path: Path, summary: str | None, state: str, why: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "study.yaml").write_text("name: x\n")
    if summary is not None:
        (tmp_path / "x" / "summary.json").write_text(summary)
    (study,) = client_of(tmp_path).get("/api/list").json()["studies"]
    assert study["state"] == state
    assert why in study["why"]


def test_the_list_follows_the_folder(served: Path, first: str, tmp_path: Path) -> None:
    client = client_of(tmp_path)
    assert client.get("/api/list").json() == {"folder": str(tmp_path), "runs": [], "studies": []}
    shutil.copytree(served / first, tmp_path / first)
    assert client.get("/api/list").json()["runs"][0]["has_report"] is False
    (tmp_path / first / "report.html").write_text("<p>hello")
    assert client.get("/api/list").json()["runs"][0]["has_report"] is True
    shutil.rmtree(tmp_path / first)
    assert client.get("/api/list").json()["runs"] == []


@pytest.mark.parametrize(
    ("name", "old", "new", "odd"),
    [
        ("scores.json", r'"value": [\d.]+', '"value": null', "validation_accuracy"),
        ("plan.json", r'"total": \d+', '"total": "many"', "trainable_params"),
        ("metrics.jsonl", r'"seconds": ?[\d.e-]+', '"seconds": null', "minutes"),
    ],
)
def test_one_edited_file_leaves_the_list(
    served: Path, first: str, tmp_path: Path, name: str, old: str, new: str, odd: str
) -> None:
    shutil.copytree(served / first, tmp_path / first)
    shutil.copytree(served / first, tmp_path / "other-00000000")
    file = tmp_path / first / name
    file.write_text(re.sub(old, new, file.read_text()))
    row = next(row for row in client_of(tmp_path).get("/api/list").json()["runs"] if row["run"] == first)
    assert (row["state"], row[odd]) == ("damaged", None)
    assert odd in row["why"]


ODD: dict[str, Callable[[Path], object]] = {
    "half a character as label": lambda run: (run / "labels.json").write_text('["\\ud800", "b"]'),
    "half a character as name": lambda run: (run / "config.yaml").write_text('name: "\\ud800"\n'),
    "half a character as model": lambda run: (run / "config.yaml").write_text('model: {name: "\\ud800"}\n'),
    "half a character in a plan": lambda run: (run / "plan.json").write_text('{"total": "\\ud800"}'),
    "half a character as score": lambda run: (run / "scores.json").write_text(
        '{"validation": {"accuracy": "\\ud800"}}'
    ),
    "half a character as key": lambda run: (run / "scores.json").write_text('{"\\ud800": {}}'),
    "deep lists": lambda run: (run / "labels.json").write_text("[" * 100_000),
    "deep plan": lambda run: (run / "plan.json").write_text("[" * 100_000),
    "deep settings": lambda run: (run / "config.yaml").write_text("[" * 2_000),
    "no numbers": lambda run: (run / "metrics.jsonl").write_text('{"kind": "step"}\n'),
    "infinity": lambda run: (run / "scores.json").write_text('{"test": {"accuracy": {"value": Infinity}}}'),
    "bytes": lambda run: (run / "plan.json").write_bytes(bytes(range(256))),
    "a folder as a file": lambda run: ((run / "plan.json").unlink(), (run / "plan.json").mkdir()),
    "a pipe": lambda run: ((run / "plan.json").unlink(), os.mkfifo(run / "plan.json")),
    "a device": lambda run: ((run / "plan.json").unlink(), (run / "plan.json").symlink_to("/dev/zero")),
    "a link to itself": lambda run: ((run / "plan.json").unlink(), (run / "plan.json").symlink_to("plan.json")),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_one_run_holds_hides_no_other(served: Path, first: str, tmp_path: Path, odd: str) -> None:
    for name in ("odd-00000001", "fine-00000002"):
        shutil.copytree(served / first, tmp_path / name)
    ODD[odd](tmp_path / "odd-00000001")
    client = client_of(tmp_path)
    answer = client.get("/api/list")
    assert answer.status_code == 200, answer.text
    rows = {row["run"]: row for row in answer.json()["runs"]}
    assert rows["fine-00000002"]["state"] == "finished"
    assert rows["odd-00000001"]["state"] == "damaged"
    assert rows["odd-00000001"]["why"]
    assert [each["run"] for each in client.get("/v1/models").json()["models"]] == ["fine-00000002"]
    for path in ("predict", "words", "load"):
        assert client.post(f"/api/runs/odd-00000001/{path}", json={"text": TEXT}).status_code in (200, 400)
    asked = {"texts": [TEXT], "run": "odd-00000001"}
    assert client.post("/v1/predict", json=asked).status_code in (200, 400)
    assert client.post("/v1/predict", json=asked | {"run": "fine-00000002"}).status_code == 200


@pytest.mark.parametrize("content", ['{"notes": ["\\ud800"]}', "[" * 100_000, "null", '"\\ud800"', "{}", "\0"])
def test_what_one_study_holds_hides_no_run(served: Path, first: str, tmp_path: Path, content: str) -> None:
    shutil.copytree(served / first, tmp_path / first)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "summary.json").write_text(content)
    found = client_of(tmp_path).get("/api/list").json()
    assert [row["state"] for row in found["runs"]] == ["finished"]
    assert [study["state"] for study in found["studies"]] == ["damaged"]


def test_one_run_folder_is_served_alone(served: Path, first: str) -> None:
    client = client_of(served / first)
    assert [row["run"] for row in client.get("/api/list").json()["runs"]] == [first]
    assert client.get(f"/runs/{first}/config").text == (served / first / "config.yaml").read_text()
    assert "no run" in problem(client.get(f"/runs/{finished(served)[1]}/config"), 404)


@pytest.mark.parametrize("name", ["best", "Bestes Modell (März)", "v1.2"])
def test_a_renamed_run_is_the_same_run_everywhere(served: Path, first: str, tmp_path: Path, name: str) -> None:
    shutil.copytree(served / first, tmp_path / name)
    shutil.copytree(served / first, tmp_path / ".hidden")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.yaml").write_text("of: another program")
    client = client_of(tmp_path)
    assert [run.name for run in runs.list_runs(tmp_path)] == [name]
    assert runs.load(name, tmp_path).path == tmp_path / name
    assert [row["run"] for row in client.get("/api/list").json()["runs"]] == [name]
    assert [each["run"] for each in client.get("/v1/models").json()["models"]] == [name]
    assert client.get(f"/runs/{quote(name)}/config").text == (tmp_path / name / "config.yaml").read_text()
    for other in (".hidden", "project"):
        assert client.get(f"/runs/{other}/config").status_code == 404


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "..%2fruns", "%2fetc", "tiny", "out-00000005", "nothing", "a%00b", "x" * 5000]
)
@pytest.mark.parametrize("path", ["/runs/{}/config", "/runs/{}/report.html", "/curves.svg?runs={}"])
def test_a_name_means_a_folder_inside_or_nothing(client: TestClient, name: str, path: str) -> None:
    is_study = name == "tiny" and "report" in path
    assert client.get(path.format(name)).status_code == (200 if is_study else 404)


def test_links_that_lead_out_are_refused(served: Path, first: str, tmp_path: Path) -> None:
    shutil.copytree(served / first, tmp_path / first)
    (tmp_path / "secret.html").write_text("secret")
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.move(tmp_path / first, inner / first)
    (inner / first / "report.html").symlink_to(tmp_path / "secret.html")
    answer = client_of(inner).get(f"/runs/{first}/report.html")
    assert "no report.html" in problem(answer, 404)


@pytest.mark.parametrize("name", ["index.htm", "%2e%2e%2fapp.py", "app.py", "__init__.py"])
def test_page_files_are_those_of_the_page(client: TestClient, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")


def test_folders_that_cannot_be_served(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="does not exist: give a folder of runs"):
        folders.opened(tmp_path / "none")
    with pytest.raises(RunError, match="is a file"):
        folders.opened(tmp_path / "file")


# Guards --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "0.0.0.0"])
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/list", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000"])
def test_the_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/choices", headers={"host": host}).status_code == 200


def test_the_given_host_is_answered(tmp_path: Path) -> None:
    client = client_of(tmp_path, hosts=("box.lan",))
    assert client.get("/", headers={"host": "box.lan:8000"}).status_code == 200
    assert client.get("/", headers={"host": "lan"}).status_code == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "https://127.0.0.1:8000x"])
def test_other_origins_are_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/api/plan", json=WISH, headers={"origin": origin})
    assert "answers only its own page" in problem(answer, 403)
    assert "access-control-allow-origin" not in answer.headers
    assert client.post("/api/plan", json=WISH, headers={"origin": "http://127.0.0.1:8000"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_bounded(client: TestClient, chunked: bool) -> None:
    body = b'{"text": "' + b"a" * 1_000_000 + b'"}'
    content = iter([body[:500_000], body[500_000:]]) if chunked else body
    answer = client.post("/api/plan", content=content, headers={"content-type": "application/json"})
    assert f"more than {guard.MAX_BODY_BYTES:,} bytes" in problem(answer, 413)


def test_every_answer_binds_the_browser(client: TestClient, served: Path, first: str) -> None:
    (served / first / "report.html").write_text("<script>alert(1)</script>")
    try:
        for path in (
            "/",
            "/page/app.js",
            "/api/list",
            "/api/none",
            f"/compare?runs={first}",
            f"/runs/{first}/report.html",
        ):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "'unsafe" not in headers["content-security-policy"].replace("style-src 'unsafe-inline'", "")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
        assert re.search(r"script-src 'sha256-[^' ]+'(;|$)", headers["content-security-policy"]), "one script, ours"
        assert "sandbox allow-popups allow-scripts" in headers["content-security-policy"]
        assert "same-origin" not in headers["content-security-policy"]
    finally:
        (served / first / "report.html").unlink()


def test_nothing_in_the_page_makes_html_of_text_or_names_another_host(client: TestClient) -> None:
    folder = Path(guard.__file__).parent / "page"
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not any(
            word in text for word in ("http:", "https:", "innerHTML", "insertAdjacentHTML", "document.write")
        )
        assert "style=" not in text
        assert text.count("\n") <= 300, file


# Comparison and plans ------------------------------------------------------------------------------------------------


def test_compare_says_what_the_command_says(client: TestClient, served: Path, tmp_path: Path) -> None:
    names = finished(served)
    comparing.compare([served / name for name in names], report=tmp_path / "page.html")
    found = client.get(f"/compare?runs={','.join(names)}")
    written = (tmp_path / "page.html").read_text().partition("<main>")[2]
    shown = found.text.partition("<main>")[2]
    assert text_of(shown).replace(" ", "") == text_of(written).replace(" ", "")  # names are links there
    assert all(f'href="runs/{name}/report.html"' in found.text for name in names)


def test_test_rows_are_read_by_a_post_alone(client: TestClient, served: Path) -> None:
    names = ",".join(finished(served)[:2])
    before = (served / "test-reads.jsonl").read_text() if (served / "test-reads.jsonl").exists() else ""
    assert "on test" not in client.get(f"/compare?runs={names}&split=test").text.partition("<main>")[2]
    assert ((served / "test-reads.jsonl").read_text() if before else "") == before
    answer = client.post(f"/compare?runs={names}", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("names", "status", "message"),
    [
        ([], 200, "Tick at least two finished runs"),
        (["one"], 404, "there is no run 'one'"),
        (["bad-00000002", "cut-00000001"], 400, "labels.json is damaged"),
        (["a"] * 61, 400, "61 runs are ticked"),
    ],
)
def test_comparisons_that_cannot_be(client: TestClient, names: list[str], status: int, message: str) -> None:
    answer = client.get(f"/compare?runs={','.join(names)}")
    assert answer.status_code == status
    assert message in text_of(answer.text)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"budget": 300_000, "head": "linear", "model": "bert-large-cased"},
        {"method": "ia3", "sites": ["key", "ffn_out"], "layers": "top:3"},
        {"rank": 4, "layers": "bottom:2", "n_classes": 7, "sites": ["ffn_in"]},
        {"sites": ["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]},
        {"method": "none"},
    ],
)
def test_the_planner_says_what_its_command_says(
    client: TestClient, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = client.post("/api/plan", json=WISH | changes).json()
    assert found["overrun"] is None
    assert call(*found["command"].split()[1:], "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in expected} == expected


def test_the_planner_shows_what_does_not_fit(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    found = client.post("/api/plan", json=WISH | {"rank": 16}).json()
    assert call(*found["command"].split()[1:], "--json") == 1
    assert found["overrun"] == json.loads(capsys.readouterr().out)
    assert found["total"] == found["overrun"]["total"] > found["budget"]
    assert set(found["ranks"].values()) == {16}


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "/etc/passwd"}, 400, "not known offline"),
        ({"model": "org/model"}, 400, "not known offline"),
        ({"budget": 0}, 422, "budget: "),
        ({"method": "lorra"}, 422, "method: "),
        ({"sites": ["quary"]}, 400, "did you mean 'query'"),
        ({"sites": []}, 400, "sites"),
        ({"layers": "top:99"}, 400, "top:99"),
        ({"method": "none", "layers": "top:1"}, 400, "method none trains every layer"),
        ({"more": 1}, 422, "more: "),
    ],
)
def test_wishes_that_cannot_be(client: TestClient, changes: dict[str, Any], status: int, message: str) -> None:
    assert message in problem(client.post("/api/plan", json=WISH | changes), status)


def test_the_planner_offers_what_there_is(client: TestClient) -> None:
    found = client.get("/api/choices").json()
    assert found["models"]["roberta-base"] == "FacebookAI/roberta-base"
    assert set(found["groups"]["all-linear"]) == set(found["sites"]) == set(found["start"]["sites"])


# The playground ------------------------------------------------------------------------------------------------------


def played(client: TestClient, run: str, what: str, **body: Any) -> Any:
    answer = client.post(f"/api/runs/{run}/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def probs_of(found: Any) -> dict[str, float]:
    return {each["label"]: each["prob"] for each in found["classes"]}


def test_the_playground_says_what_predict_says(client: TestClient, served: Path, first: str) -> None:
    expected = prediction.predict(served / first, [TEXT])
    found = played(client, first, "predict", text=TEXT)
    assert found["classes"][0]["label"] == expected.labels[0]
    assert probs_of(found) == pytest.approx(dict(zip(expected.classes, expected.probs[0], strict=True)), abs=1e-6)
    assert [each["prob"] for each in found["classes"]] == sorted(probs_of(found).values(), reverse=True)
    assert played(client, first, "load")["labels"] == list(expected.classes)


def test_effects_are_what_is_lost_without_the_word(client: TestClient, first: str) -> None:
    found = played(client, first, "words", text=TEXT)
    ((*words,),) = found["texts"]
    assert [each["word"] for each in words] == TEXT.split()
    for place, each in enumerate(words):
        shorter = " ".join(word for i, word in enumerate(TEXT.split()) if i != place)
        without = probs_of(played(client, first, "predict", text=shorter))[found["label"]]
        assert each["effect"] == pytest.approx(found["prob"] - without, abs=1e-6)


def test_characters_are_left_out_where_words_are_written_together(client: TestClient, first: str) -> None:
    ((*words,),) = played(client, first, "words", text="天地good，玄")["texts"]
    assert [each["word"] for each in words] == ["天", "地", "good，", "玄"]


def test_words_beyond_the_last_token_are_not_tried(client: TestClient, first: str) -> None:
    n_read = 126  # of words of one token each; 2 of the 128 tokens are special
    found = played(client, first, "words", text="good " * n_read + "bad bad bad")
    effects = [each["effect"] for each in found["texts"][0]]
    assert None not in effects[:n_read]
    assert effects[n_read:] == [None] * 3
    assert played(client, first, "predict", text="good " * n_read + "bad bad bad")["n_unread_words"] == 3


def test_pairs(client: TestClient, served: Path, first: str) -> None:
    (pairs,) = (path.name for path in served.glob("pairs-*"))
    assert played(client, pairs, "load")["text_pair"] == "id"
    expected = prediction.predict(served / pairs, [(TEXT, "r7")])
    found = played(client, pairs, "predict", text=TEXT, text_pair="r7")
    assert found["classes"][0]["prob"] == pytest.approx(expected.probs.max(), abs=1e-6)
    words = played(client, pairs, "words", text=TEXT, text_pair="a r7")["texts"]
    assert [[each["word"] for each in text] for text in words] == [TEXT.split(), ["a", "r7"]]
    assert played(client, pairs, "variants", text=TEXT, text_pair="r7")["variants"][0]["texts"] == [TEXT, "r7"]
    alone = client.post(f"/api/runs/{pairs}/predict", json={"text": TEXT})
    assert "trained on pairs" in problem(alone, 400)
    both = client.post(f"/api/runs/{first}/predict", json={"text": TEXT, "text_pair": "r7"})
    assert "trained on single texts" in problem(both, 400)


@pytest.mark.parametrize("strength", ["mild", "moderate", "strong"])
def test_changed_texts_are_those_of_robustness_and_repeat(client: TestClient, first: str, strength: str) -> None:
    text = "The Good film, and a bad play in the market"
    found = played(client, first, "variants", text=text, strength=strength)["variants"]
    assert [each["kind"] for each in found] == [None, *(kind for kind in STRENGTHS if kind != "first-column")]
    place = ("mild", "moderate", "strong").index(strength)
    assert all(each["rate"] == STRENGTHS[each["kind"]][place] for each in found[1:])
    assert all(each["is_changed"] == (each["texts"][0] != text) for each in found)
    assert sum(each["is_changed"] for each in found) > 5
    for each in found:
        alone = probs_of(played(client, first, "predict", text=each["texts"][0]))
        assert probs_of(each) == pytest.approx(alone, abs=1e-6)
    assert played(client, first, "variants", text=text, strength=strength)["variants"] == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        (" \n\t", "the text is empty"),
        ("a" * (service.MAX_CHARACTERS + 1), "has 20,001 characters: at most 20,000"),
        ("half \ud800", "half a character"),
    ],
)
@pytest.mark.parametrize("what", ["predict", "words", "variants"])
def test_texts_that_cannot_be_classified(client: TestClient, first: str, what: str, text: str, message: str) -> None:
    content = json.dumps({"text": text})
    answer = client.post(f"/api/runs/{first}/{what}", content=content, headers={"content-type": "application/json"})
    assert message in problem(answer, 400)


def test_a_text_of_which_the_encoder_knows_nothing_is_said_to_be_one(client: TestClient, first: str) -> None:
    assert played(client, first, "predict", text="\u200b\u200d")["is_blank"] is True
    assert played(client, first, "predict", text=TEXT)["is_blank"] is False


def test_odd_texts_are_classified(client: TestClient, first: str) -> None:
    for text in ("x", "\x00", "😀 ‮abc", "a" * 2_000, "<b>good</b>", "w " * 9_999):
        words = played(client, first, "words", text=text)
        assert [each["word"] for each in words["texts"][0]] == text.split()
        assert played(client, first, "variants", text=text)["variants"][0]["texts"][0] == text.strip()


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("cut-00000001", 400, "is not finished"),
        ("half-00000003", 400, "is not finished"),
        ("bad-00000002", 400, "labels.json is damaged"),
        ("gone-00000000", 404, "reload the list"),
    ],
)
def test_runs_that_cannot_be_played(client: TestClient, name: str, status: int, message: str) -> None:
    assert message in problem(client.post(f"/api/runs/{name}/load"), status)
    assert message in problem(client.post(f"/api/runs/{name}/predict", json={"text": TEXT}), status)


def test_a_run_that_is_removed_or_edited_while_the_page_is_open(served: Path, first: str, tmp_path: Path) -> None:
    shutil.copytree(served / first, tmp_path / first)
    client = client_of(tmp_path)
    played(client, first, "predict", text=TEXT)
    with (tmp_path / first / "scores.json").open("a") as file:
        file.write(" ")
    (tmp_path / first / "DONE").touch()
    answer = client.post(f"/api/runs/{first}/predict", json={"text": TEXT})
    assert "is not what training wrote" in problem(answer, 400)
    shutil.rmtree(tmp_path / first)
    assert "reload the list" in problem(client.post(f"/api/runs/{first}/predict", json={"text": TEXT}), 404)


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that are started here take Ctrl-C: a shell's background jobs, and so all they start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_serve_says_where_and_ends_on_ctrl_c(served: Path) -> None:
    command = [sys.executable, "-m", "submillion", "serve", str(served), "--port", "0", "--json"]
    with beside(command) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["folder"] == str(served.resolve())
        host, port = said["url"].removeprefix("http://").rstrip("/").split(":")
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            connection.settimeout(30)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors.strip() == "stopped"
    assert process.returncode == 130


def test_a_port_that_is_taken(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert call("serve", served, "--port", port) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"port {port} of 127.0.0.1 cannot be used" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_a_host_that_is_not_here(served: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="give an address of this machine"):
        app.serve(folders.opened(served), host, 0, lambda _: None)


def test_without_the_extra(served: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "submillion.serving.app")
    monkeypatch.delattr("submillion.serving.app")
    assert call("serve", served) == 1
    assert f"serve needs uvicorn: {install_line('serve')}" in capsys.readouterr().err
