"""Laws of the service: it says what `predict` says, to each caller their own, and no to what it cannot take."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from submillion import prediction
from submillion.errors import ConfigError
from submillion.runs import Run
from submillion.serving import api, folders, models
from submillion.serving.app import Options, create_app, listen, read_token, server_of
from submillion.serving.models import Row
from submillion.serving.queue import Limits
from tests.kit.calls import beside, call
from tests.kit.untrained import THREE, TWO, make_run
from tests.tiny import TEXTS

URL = "http://127.0.0.1:8000"
TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def made(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Three runs that share an encoder, one of them on pairs, and one on another encoder."""
    out = tmp_path_factory.mktemp("runs")
    return {
        "three": make_run(out, encoders["bert"], THREE),
        "two": make_run(out, encoders["bert"], TWO, sites=("ffn_in", "key")),
        "pairs": make_run(out, encoders["bert"], TWO, pairs=True),
        "roberta": make_run(out, encoders["roberta"], THREE),
        "several": make_run(out, encoders["bert"], THREE, thresholds=(0.2, 0.5, 0.8)),
    }


@pytest.fixture(scope="module")
def folder(made: dict[str, Run]) -> Path:
    return made["three"].path.parent


def app_of(folder: Path, **options: Any) -> Any:
    return create_app(folders.opened(folder), Options(**options))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(app_of(folder), base_url=URL) as client:
        yield client


def ask(client: TestClient, run: Run | None, texts: Any, **more: Any) -> Any:
    body = {"texts": texts, **({} if run is None else {"run": run.name}), **more}
    return client.post("/v1/predict", content=json.dumps(body), headers={"content-type": "application/json"})


def check(found: Mapping[str, Any], run: Run, texts: Any, expected: prediction.Labelled | None = None) -> None:
    """The answer is the run's own prediction of the texts, in their order; `expected`, where it is known already."""
    expected = prediction.predict(run.path, texts) if expected is None else expected
    assert found["run"] == run.name
    if expected.thresholds is None:
        assert [each["label"] for each in found["predictions"]] == expected.labels
    else:
        assert [tuple(each["labels"]) for each in found["predictions"]] == expected.labels
        thresholds = dict(zip(expected.classes, expected.thresholds, strict=True))
        assert all(each["thresholds"] == thresholds for each in found["predictions"])
    for each, probs in zip(found["predictions"], expected.probs, strict=True):
        assert each["probs"] == pytest.approx(dict(zip(expected.classes, probs, strict=True)), abs=1e-5)


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return "\n".join(answer.json()["problems"])


@pytest.mark.parametrize("name", ["three", "two", "roberta", "several"])
def test_it_says_what_predict_says(client: TestClient, made: dict[str, Run], name: str) -> None:
    for texts in (TEXTS[:1], TEXTS):
        check(ask(client, made[name], texts).json(), made[name], texts)


def test_texts_of_which_the_encoder_knows_no_token_are_named(client: TestClient, made: dict[str, Run]) -> None:
    texts = ["good film", "\u200b\u200d", "bad book", "\U0001f600"]
    found = ask(client, made["two"], texts).json()
    n_blank = prediction.predict(made["two"].path, texts).n_blank
    assert 1 in found["without_known_tokens"]
    assert len(found["without_known_tokens"]) == n_blank
    both = ask(client, None, texts[:2], runs=[made["two"].name, made["three"].name]).json()["answers"]
    assert [each["without_known_tokens"] for each in both] == [[1], [1]]
    assert ask(client, made["two"], texts[:1]).json()["without_known_tokens"] == []


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "sentence"),
    [
        ("POST", "/v1/predict", "[]", 422, "Input should be a JSON object"),
        ("POST", "/v1/predict", "[" * 100_000, 422, "the request is not JSON"),
        ("POST", "/v1/predict", '{"texts": ["a"], "runs": ["a", "a"]}', 422, "a run is named twice in runs"),
        ("DELETE", "/v1/predict", "", 405, "allowed: POST"),
        ("GET", "/v1/nothing", "", 404, "GET /openapi.json lists the API"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(
    client: TestClient, method: str, path: str, content: str, status: int, sentence: str
) -> None:
    answer = client.request(method, path, content=content, headers={"content-type": "application/json"})
    found = problem(answer, status)
    assert sentence in found
    assert not found.startswith((":", "Value error"))


def test_a_run_that_is_not_there_is_told_with_the_one_that_may_be_meant(
    client: TestClient, made: dict[str, Run]
) -> None:
    name = made["two"].name
    answer = client.post("/v1/predict", json={"run": name.rpartition("-")[0], "texts": ["a"]})
    assert f"did you mean {name!r}? reload the list, or ask GET /v1/models" in problem(answer, 404)


def test_answers_that_are_not_numbers_are_refused_for_that_run_alone(
    client: TestClient, made: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = models.probs

    def broken(rows: Sequence[Row]) -> list[np.ndarray]:
        return [
            values * (np.nan if row.loaded.run.name == made["two"].name else 1)
            for row, values in zip(rows, compute(rows), strict=True)
        ]

    monkeypatch.setattr(models, "probs", broken)
    assert "not finite numbers for 2 of 2 rows (ids texts[0], texts[1])" in problem(
        ask(client, made["two"], TEXTS[:2]), 400
    )
    check(ask(client, made["three"], TEXTS).json(), made["three"], TEXTS)


def test_a_run_answers_in_the_precision_of_predict_beside_others(
    made: dict[str, Run], folder: Path, tmp_path: Path
) -> None:
    for name, precision in (("three", "bf16"), ("two", "fp32")):
        shutil.copytree(made[name].path, tmp_path / name)
        Run(tmp_path / name).write_json("environment.json", {"device": "cpu", "precision": precision})
        Run(tmp_path / name).mark_done()
    with TestClient(app_of(tmp_path), base_url=URL) as client:
        for name, precision in (("three", "bf16"), ("two", "fp32")):
            found = ask(client, Run(tmp_path / name), TEXTS).json()
            assert found["precision"] == precision
            check(found, Run(tmp_path / name), TEXTS)
    with TestClient(app_of(tmp_path, precision="fp32"), base_url=URL) as client:
        assert ask(client, Run(tmp_path / "three"), TEXTS).json()["precision"] == "fp32"


def test_white_space_around_a_text_changes_nothing_as_in_a_file(
    client: TestClient, made: dict[str, Run], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text('text\n"  a fine  day \t"\n"\ngood"\n')
    file = prediction.predict(made["roberta"].path, tmp_path / "rows.csv")
    found = ask(client, made["roberta"], ["  a fine  day \t", "\ngood"]).json()
    for each, probs in zip(found["predictions"], file.probs, strict=True):
        assert list(each["probs"].values()) == pytest.approx(list(probs), abs=1e-5)


def test_pairs(client: TestClient, made: dict[str, Run]) -> None:
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    found = ask(client, made["pairs"], TEXTS, text_pairs=TEXTS[::-1]).json()
    check(found, made["pairs"], pairs)
    assert "texts[0]: " in problem(ask(client, made["pairs"], ["a"]), 400)
    assert "trained on single texts" in problem(ask(client, made["two"], ["a"], text_pairs=["b"]), 400)
    assert "2 texts and 1 text_pairs" in problem(ask(client, made["pairs"], ["a", "b"], text_pairs=["c"]), 422)


def test_the_run_is_named_where_there_are_several(client: TestClient, made: dict[str, Run], tmp_path: Path) -> None:
    said = problem(ask(client, None, ["a"]), 400)
    assert f"has {len(made)} finished runs: name one" in said
    assert all(run.name in said for run in made.values())
    with TestClient(app_of(made["two"].path), base_url=URL) as alone:
        check(ask(alone, None, TEXTS).json(), made["two"], TEXTS)
    with TestClient(app_of(tmp_path), base_url=URL) as empty:
        assert "has 0 finished runs" in problem(ask(empty, None, ["a"]), 400)


def test_any_interleaving_gives_each_caller_their_own(made: dict[str, Run], folder: Path) -> None:
    runs = [made[name] for name in ("three", "two", "roberta")]
    rng = random.Random(0)
    asked = [(rng.choice(runs), tuple(rng.sample(TEXTS, rng.randint(1, 4)))) for _ in range(40)]
    app = app_of(folder, limits=Limits(60, 0.005, 1000))

    async def everything() -> list[Any]:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as client,
        ):

            async def one(run: Run, texts: tuple[str, ...]) -> Any:
                await asyncio.sleep(rng.random() * 0.05)
                return await client.post("/v1/predict", json={"run": run.name, "texts": texts}, timeout=60)

            return await asyncio.gather(*(one(*each) for each in asked))

    found = asyncio.run(everything())
    for run in runs:
        own = [(answer, texts) for answer, (of, texts) in zip(found, asked, strict=True) if of is run]
        flat = [text for _, texts in own for text in texts]
        together = [each for answer, _ in own for each in answer.json()["predictions"]]
        check({"run": own[0][0].json()["run"], "predictions": together}, run, flat)
    numbers = numbers_of(app.state.counts.exposition().decode())
    assert numbers["submillion_batch_texts_sum"] == sum(len(texts) for _, texts in asked)
    assert numbers["submillion_batch_texts_count"] < len(asked)
    assert numbers["submillion_loaded_encoders"] == 2
    assert numbers["submillion_texts_in_hand"] == 0


def numbers_of(exposition: str) -> dict[str, float]:
    """The numbers without labels, and sums over labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_models_health_and_numbers(folder: Path, made: dict[str, Run]) -> None:
    with TestClient(app_of(folder), base_url=URL) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        ask(client, made["two"], ["a", "b"])
        ask(client, made["two"], [])
        found = {each["run"]: each for each in client.get("/v1/models").json()["models"]}
        assert set(found) == {run.name for run in made.values()}
        assert found[made["two"].name]["labels"] == list(TWO)
        assert [name for name, run in made.items() if found[run.name]["is_loaded"]] == ["two"]
        assert [name for name, run in made.items() if found[run.name]["takes_pairs"]] == ["pairs"]
        assert [name for name, run in made.items() if found[run.name]["has_several_labels"]] == ["several"]
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert 'submillion_requests_total{path="/v1/predict",status="422"} 1.0' in answer.text
        assert f'submillion_texts_total{{run="{made["two"].name}"}} 2.0' in answer.text
        numbers = numbers_of(answer.text)
        assert numbers["process_resident_memory_bytes"] > 0
        assert numbers["submillion_loaded_runs"] == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 422, "the request is not JSON"),
        ('{"run": "RUN"}', 422, "texts: Field required"),
        ('{"texts": "a", "run": "RUN"}', 422, "texts: Input should be a valid list"),
        ('{"texts": [], "run": "RUN"}', 422, "at least 1 item"),
        ('{"texts": [""], "run": "RUN"}', 422, "texts.0: String should have at least 1 character"),
        ('{"texts": ["a"], "more": 1, "run": "RUN"}', 422, "more: Extra inputs are not permitted"),
        (json.dumps({"texts": ["a"] * 257, "run": "RUN"}), 422, "at most 256 items"),
        (
            json.dumps({"texts": ["a" * 20_001], "run": "RUN"}),
            400,
            "texts[0]: the text has 20,001 characters: at most 20,000",
        ),
        (json.dumps({"texts": ["a" * 200_001], "run": "RUN"}), 422, "at most 200000 characters"),
        (json.dumps({"texts": ["a" * 19_000] * 14, "run": "RUN"}), 413, "more than 262,144 bytes"),
        ('{"texts": ["a", " "], "run": "RUN"}', 400, "texts[1]: the text is empty"),
        ('{"texts": ["\\ud800"], "run": "RUN"}', 422, "as a unicode string"),
        ('{"texts": ["a"], "run": "gone-00000000"}', 404, "no run 'gone-00000000'"),
        ('{"texts": ["a"], "run": "../etc"}', 404, "no run"),
        ('{"texts": ["a"], "run": "a\\u0000"}', 404, "no run"),
    ],
)
def test_what_cannot_be_answered(
    client: TestClient, made: dict[str, Run], body: str, status: int, message: str
) -> None:
    content = body.replace("RUN", made["three"].name)
    answer = client.post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert message in problem(answer, status)


def test_a_full_queue_says_503_and_when_to_come_back(folder: Path, made: dict[str, Run]) -> None:
    with TestClient(app_of(folder, limits=Limits(n_texts=4)), base_url=URL) as client:
        answer = ask(client, made["two"], ["a"] * 5)
        assert "5 more were sent, and 4 is the limit" in problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert ask(client, made["two"], ["a"] * 4).status_code == 200


def test_a_client_that_leaves_frees_its_places(folder: Path, made: dict[str, Run]) -> None:
    app = app_of(folder, limits=Limits(n_texts=10))
    gate = threading.Event()
    app.state.service._queue._work = lambda _: gate.wait(30)
    body = json.dumps({"texts": ["a"] * 10, "run": made["two"].name}).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    waiting, sent = asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        if not waiting.is_set():
            waiting.set()
            return {"type": "http.request", "body": body}
        while app.state.service._queue._n_last == 0:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def everything() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(app(scope, receive, send), 30)
            await asyncio.sleep(0)
            assert app.state.service._queue.n_texts == 0
            gate.set()

    asyncio.run(everything())
    assert sent == []
    assert 'submillion_requests_total{path="/v1/predict",status="499"} 1.0' in app.state.counts.exposition().decode()


@pytest.mark.parametrize("what", ["predict", "words", "variants"])
def test_posts_of_the_playground_that_are_abandoned_hold_up_nobody(
    folder: Path, made: dict[str, Run], what: str
) -> None:
    text = {"text": "a good film " * 50}
    with Held(folder, patience_s=60, limits=Limits(batch_tokens=64, n_texts=400)) as server:
        taken = server.asked("/v1/predict", run=made["two"].name, texts=["a"])
        assert server.held.wait(60)
        host, port = server.listener.getsockname()
        body = json.dumps(text).encode()
        head = (
            f"POST /api/runs/{made['two'].name}/{what} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        )
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        lines = [socket.create_connection((host, port)) for _ in range(60)]
        for line in lines:
            line.sendall(request)
        queue = server.app.state.service._queue
        until(lambda: queue.n_texts > 1)
        assert queue.n_texts <= 800
        for line in lines:
            line.close()
        until(lambda: queue.n_texts == 1)  # those that had a place have left
        server.gate.set()
        check(taken.result(60).json(), made["two"], ["a"])
        check(server.asked("/v1/predict", run=made["two"].name, texts=TEXTS).result(60).json(), made["two"], TEXTS)
    numbers = numbers_of(server.app.state.counts.exposition().decode())
    assert numbers["submillion_batch_texts_sum"] == 1 + len(TEXTS)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_several_runs_answer_as_each_alone(client: TestClient, made: dict[str, Run]) -> None:
    runs = [made[name] for name in ("three", "roberta", "two", "several")]
    found = ask(client, None, TEXTS, runs=[run.name for run in runs]).json()["answers"]
    for run, answer in zip(runs, found, strict=True):
        check(answer, run, TEXTS)
    (alone,) = ask(client, None, TEXTS, runs=[made["two"].name]).json()["answers"]
    check(alone, made["two"], TEXTS)
    assert "trained on pairs" in problem(ask(client, None, ["a"], runs=[made["two"].name, made["pairs"].name]), 400)
    assert "no run 'gone'" in problem(ask(client, None, ["a"], runs=[made["two"].name, "gone"]), 404)
    for more, message in (
        ({"runs": [made["two"].name] * 2}, "a run is named twice"),
        ({"runs": [made["two"].name], "run": made["two"].name}, "run and runs are both given"),
        ({"runs": []}, "at least 1 item"),
        ({"runs": [str(number) for number in range(129)], "texts": ["a", "b"]}, "at most 256 texts times runs"),
    ):
        assert message in problem(client.post("/v1/predict", json={"texts": ["a"]} | more), 422)


def test_it_is_ready_when_an_answer_takes_no_longer_than_others(made: dict[str, Run], tmp_path: Path) -> None:
    with TestClient(app_of(made["two"].path), base_url="http://10.1.2.3:8000") as client:  # as a probe calls a pod
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert "preparing its first answer" in problem(answer, 503)
        assert "retry-after" in answer.headers
        until(lambda: client.get("/readyz").status_code == 200)
        assert [loaded.run.name for loaded in client.app.state.service.loaded()] == [made["two"].name]  # type: ignore[attr-defined]
    shutil.copytree(made["two"].path, tmp_path / "damaged")
    (tmp_path / "damaged" / "labels.json").write_text("[")
    with TestClient(app_of(tmp_path), base_url=URL) as client:
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_proxys_name_prefix_and_origin_are_known_by_its_address(folder: Path, made: dict[str, Run]) -> None:
    with TestClient(app_of(folder, public_url="https://box.example/models/"), base_url="http://box.example") as client:
        for prefix in ("", "/models"):  # a proxy may take it off, or not
            origin = {"origin": "https://box.example", "host": "127.0.0.1:8000"}
            answer = client.post(f"{prefix}/v1/predict", json={"texts": TEXTS, "run": made["two"].name}, headers=origin)
            check(answer.json(), made["two"], TEXTS)
            assert client.get(f"{prefix}/").status_code == 200
            assert client.get(f"{prefix}/healthz", headers={"host": "10.0.0.1"}).status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/models"}]
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 403
    with TestClient(app_of(folder, token=TOKEN, public_url="https://box.example/models"), base_url=URL) as client:
        assert client.get("/models/healthz").status_code == 200
        assert client.get("/models/v1/models").status_code == 401
    for wrong in ("box.example", "ftp://box.example", "https://", "https://[::1", "https://me@box.example"):
        with pytest.raises(ConfigError, match="give an address such as"):
            app_of(folder, public_url=wrong)


# Who may ask ---------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_everywhere_but_at_healthz(folder: Path, made: dict[str, Run]) -> None:
    with TestClient(app_of(folder, token=TOKEN), base_url="http://box.lan") as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/api/list", "/page/app.js"):
            answer = client.get(path)
            assert "requires its token" in problem(answer, 401)
            assert [each.split()[0] for each in answer.headers.get_list("www-authenticate")] == ["Basic", "Bearer"]
            assert client.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        as_password = base64.b64encode(f"me:{TOKEN}".encode()).decode()
        for wrong in ("", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Basic !", "Basic 4pyT", "é"):
            sent = {"authorization": wrong.encode()}
            assert client.get("/", headers=sent).status_code == 401
        assert client.get("/", headers={"authorization": f"Basic {as_password}"}).status_code == 200
        client.headers["authorization"] = f"bearer {TOKEN}"
        check(ask(client, made["two"], TEXTS).json(), made["two"], TEXTS)


def test_where_the_token_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, {"SUBMILLION_TOKEN": "x" * 20}) == TOKEN
    assert read_token(None, {"SUBMILLION_TOKEN": "x" * 20}) == "x" * 20
    assert read_token(None, {}) is None
    assert TOKEN not in repr(Options(token=TOKEN))
    for bad in ("", "short", "with a blank in it", "é" * 20):
        file.write_text(bad)
        with pytest.raises(ConfigError, match="openssl rand -hex 32"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_listening_elsewhere_without_a_token_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.serving.app.serve", lambda *_: None)
    for host, env, warns in (("0.0.0.0", "", True), ("127.0.0.1", "", False), ("0.0.0.0", TOKEN, False)):
        monkeypatch.delenv("SUBMILLION_TOKEN", raising=False)
        if env:
            monkeypatch.setenv("SUBMILLION_TOKEN", env)
        assert call("serve", tmp_path, "--host", host) == 0
        assert ("--token-file" in capsys.readouterr().err) == warns


# Reloading and stopping ----------------------------------------------------------------------------------------------


def test_runs_come_change_and_go_without_a_restart(made: dict[str, Run], tmp_path: Path) -> None:
    place = Run(tmp_path / made["two"].name)
    with TestClient(app_of(tmp_path), base_url=URL) as client:
        assert client.get("/v1/models").json() == {"models": []}
        assert "no run" in problem(ask(client, place, ["a"]), 404)
        shutil.copytree(made["two"].path, place.path)
        check(ask(client, None, TEXTS).json(), place, TEXTS)
        shutil.rmtree(place.path)
        shutil.copytree(made["three"].path, place.path)  # trained again, with another result
        place.mark_done()
        check(ask(client, None, TEXTS).json(), place, TEXTS)
        (place.path / "DONE").unlink()
        assert client.get("/v1/models").json() == {"models": []}
        assert "is not finished" in problem(ask(client, place, ["a"]), 400)
        assert client.app.state.service.loaded() == []  # type: ignore[attr-defined]
        shutil.rmtree(place.path)
        assert "no run" in problem(ask(client, place, ["a"]), 404)


class Held:
    """A real server in a thread whose batches wait while `gate` is closed; `held` is set when one does."""

    def __init__(self, folder: Path, patience_s: float, **options: Any) -> None:
        self.app = app_of(folder, **options)
        self.gate, self.held = threading.Event(), threading.Event()
        work = self.app.state.service._queue._work

        def waiting(rows: Any) -> Any:
            self.held.set()
            assert self.gate.wait(60)
            return work(rows)

        self.app.state.service._queue._work = waiting
        self.server = server_of(self.app, patience_s)

    def __enter__(self) -> Held:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.pool = ThreadPoolExecutor(8)
        self.running = self.pool.submit(asyncio.run, listen(self.server, self.listener))
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.server.should_exit = True
        self.running.result(60)
        self.pool.shutdown()

    def asked(self, path: str, **body: Any) -> Future[httpx2.Response]:
        """Ask beside the test."""
        return self.pool.submit(httpx2.post, f"{self.url}{path}", json=body, timeout=60)

    def has_taken(self, n_requests: int) -> None:
        """Return when the server is at work on so many requests."""
        while len(self.server.server_state.tasks) < n_requests:
            time.sleep(0.01)


def test_what_was_taken_when_the_server_stops_is_answered(folder: Path, made: dict[str, Run]) -> None:
    with Held(folder, patience_s=60, limits=Limits(1, 0.0, 100)) as server:
        taken = {name: server.asked("/v1/predict", run=made[name].name, texts=TEXTS) for name in ("two", "three")}
        assert server.held.wait(60)
        server.has_taken(2)
        server.server.should_exit = True
        while server.listener.fileno() != -1:  # it takes no more
            time.sleep(0.01)
        server.gate.set()
        for name, answer in taken.items():
            check(answer.result(60).json(), made[name], TEXTS)


def test_what_a_stopping_server_has_no_patience_for_is_refused_in_a_sentence(
    folder: Path, made: dict[str, Run]
) -> None:
    body = {"run": made["two"].name, "texts": TEXTS}
    with Held(folder, patience_s=0) as server:
        taken = [server.asked("/v1/predict", **body)]
        assert server.held.wait(60)
        taken.append(server.asked("/v1/predict", **body))
        with server.app.state.service._models.find(made["two"]).tokenizer.lock:
            taken.append(server.asked("/v1/predict", **body))
            taken.append(server.asked(f"/api/runs/{made['two'].name}/predict", text=TEXTS[0]))
            server.has_taken(4)
            server.server.should_exit = True
            for each in taken:  # one is computed, one waits, one is cut into tokens, one is the page's
                answer = each.result(60)
                assert "the server is stopping" in problem(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_run_that_is_dropped_or_removed_while_its_texts_wait_answers_them(
    made: dict[str, Run], tmp_path: Path
) -> None:
    place = Run(tmp_path / made["two"].name)
    shutil.copytree(made["two"].path, place.path)
    with Held(tmp_path, patience_s=60, n_encoders=1) as server:
        taken = server.asked("/v1/predict", run=place.name, texts=TEXTS)
        assert server.held.wait(60)
        server.app.state.service._models.get(made["roberta"])  # there is room for one encoder
        assert server.app.state.service._models.find(place) is None
        shutil.rmtree(place.path)
        server.gate.set()
        check(taken.result(60).json(), made["two"], TEXTS)


@pytest.mark.slow
def test_a_signal_ends_the_server_when_it_has_answered(folder: Path, made: dict[str, Run]) -> None:
    command = [sys.executable, "-m", "submillion", "serve", str(folder), "--port", "0", "--json"]
    texts = [text * 8 for text in TEXTS] * 40
    body = {"texts": texts, "run": made["two"].name}
    with beside(command) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        httpx2.post(f"{url}v1/predict", json={**body, "texts": ["a"]}, timeout=60).raise_for_status()
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(httpx2.post, f"{url}v1/predict", json=body, timeout=60) for _ in range(8)]
            n_texts = 0.0
            while n_texts < len(texts):
                assert not all(each.done() for each in asking), "answered before it could be stopped: ask for more"
                n_texts = numbers_of(httpx2.get(f"{url}metrics", timeout=60).text)["submillion_texts_in_hand"]
            process.send_signal(signal.SIGTERM)
            answers = []
            for each in asking:
                # Refused, reset or closed: of a request that had not been read when the signal came.
                with suppress(httpx2.NetworkError, httpx2.RemoteProtocolError):
                    answers.append(each.result(60))
            expected = prediction.predict(made["two"].path, texts)
            for answer in answers:
                if answer.status_code != 503:  # of one that came after the signal
                    check(answer.json(), made["two"], texts, expected)
            assert sum(answer.status_code == 200 for answer in answers) >= n_texts // len(texts)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert errors == ""


# The description -----------------------------------------------------------------------------------------------------


def test_the_description_has_the_services_routes_and_nothing_loads_from_elsewhere(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert set(found["paths"]) == {"/v1/predict", "/v1/models", "/readyz", "/healthz", "/metrics"}
    assert found["components"]["schemas"]["Asked"]["properties"]["texts"]["maxItems"] == api.MAX_TEXTS
    assert client.get("/docs").status_code == 404


@pytest.mark.slow
def test_no_request_breaks_it_and_answers_are_as_described(made: dict[str, Run]) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.python import asgi
    from schemathesis.specs.openapi import checks

    app = create_app(folders.opened(made["two"].path), Options(hosts=(asgi.HOST,)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checked = (
        schemathesis.checks.not_a_server_error,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        checks.status_code_conformance,
    )
    statuses: dict[str, set[int]] = {}
    quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])

    def fuzz(case: Any) -> None:
        answer = case.call()
        statuses.setdefault(case.path, set()).add(answer.status_code)
        case.validate_response(answer, checks=checked[case.path == "/readyz" :])

    try:
        for operation in (result.ok() for result in schema.get_all_operations()):
            modes = (
                schemathesis.GenerationMode if operation.method == "post" else [schemathesis.GenerationMode.POSITIVE]
            )
            for mode in modes:
                quick(given(operation.as_strategy(generation_mode=mode))(fuzz))()
    finally:
        asgi.shutdown_lifespans()
    assert {200, 422} <= statuses["/v1/predict"]
    assert statuses["/v1/models"] == statuses["/metrics"] == statuses["/healthz"] == {200}
    assert statuses["/readyz"] <= {200, 503}
