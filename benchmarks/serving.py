"""Measure `submillion serve`: throughput with and without batching, latency, overload, memory of 1 and 20 adapters.

`python -m benchmarks.serving [minilm | roberta-base] [--precision fp32 | bf16] [--only PART]` makes a folder of 20 runs
on one encoder, starts servers on the loopback and sends them texts as long as AG News texts are, one per request.
Servers that are compared take turns. Client and servers share the machine's cores. Results go to results/serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.results import keep, kept

N_RUNS = 20
N_CALLERS = 64  # of the closed loop: each asks again when it was answered
OVERLOAD_TEXTS = 256  # the queue's limit in the part that overloads it
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Tally:
    """What a load came to: seconds of each answer by status, and of the whole."""

    seconds: float = 0.0
    n_asked: int = 0
    latencies_s: dict[int, list[float]] = field(default_factory=dict)

    def note(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.latencies_s.setdefault(status, []).append(seconds)

    @property
    def texts_a_s(self) -> float:
        """Return the texts classified per second."""
        return len(self.latencies_s.get(200, ())) / self.seconds

    def values(self) -> dict[str, Any]:
        """Return counts, and quantiles of the answered ones in milliseconds."""
        answered = self.latencies_s.get(200) or [float("nan")]
        p50, p99 = np.quantile(answered, [0.5, 0.99]) * 1000
        counts = {str(status): len(each) for status, each in sorted(self.latencies_s.items())}
        return {
            "asked": self.n_asked,
            "answers": counts,
            "texts_a_s": round(self.texts_a_s, 1),
            "p50_ms": round(p50, 1),
            "p99_ms": round(p99, 1),
        }


class Server:
    """A `submillion serve` of a folder, with its client; or another server that prints its address."""

    def __init__(self, folder: Path, *options: str, module: str = "submillion") -> None:
        words = ["serve", str(folder), "--port", "0", "--json", *options] if module == "submillion" else [str(folder)]
        command = [sys.executable, "-m", module, *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def rss_mib(self) -> float:
        """Return the process's resident memory."""
        for family in text_string_to_metric_families(httpx2.get(f"{self.url}metrics").text):
            if family.name == "process_resident_memory_bytes":
                return family.samples[0].value / 2**20
        raise RuntimeError("the server does not say how much memory it has")

    def warm(self, names: list[str]) -> None:
        """Make the server load runs."""
        for name in names:
            body = {"texts": ["a text"], "run": name}
            httpx2.post(f"{self.url}v1/predict", json=body, timeout=120).raise_for_status()

    def closed(
        self, texts: list[str], names: list[str], seconds: float, n_callers: int = N_CALLERS, n_most: int = 10**9
    ) -> Tally:
        """Return the tally of callers who ask again as soon as they are answered."""
        tally, began = Tally(), time.perf_counter()

        async def caller(number: int) -> None:
            async with self._connection() as connection:
                for place in range(number, n_most, n_callers):
                    if time.perf_counter() - began >= seconds:
                        return
                    await _ask(connection, texts[place % len(texts)], names[place % len(names)], tally)

        async def load() -> None:
            await asyncio.gather(*(caller(number) for number in range(n_callers)))

        asyncio.run(load())
        tally.seconds = time.perf_counter() - began
        return tally

    def opened(self, texts: list[str], names: list[str], rate: float, seconds: float) -> Tally:
        """Return the tally of callers who come at random, `rate` per second, whether others are answered or not."""
        rng, tally, began = np.random.default_rng(3), Tally(), time.perf_counter()
        gaps = rng.exponential(1 / rate, int(rate * seconds))

        async def load() -> None:
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                idle: list[tuple[float, Connection]] = []

                async def caller(place: int) -> None:
                    if idle and time.perf_counter() - idle[-1][0] > 2:  # the server closes those idle for 5 s
                        idle.clear()
                    connection = idle.pop()[1] if idle else await stack.enter_async_context(self._connection())
                    await _ask(connection, texts[place % len(texts)], names[place % len(names)], tally)
                    idle.append((time.perf_counter(), connection))

                due = time.perf_counter()
                for place, gap in enumerate(gaps):
                    due += gap
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    group.create_task(caller(place))

        asyncio.run(load())
        tally.seconds = time.perf_counter() - began
        return tally

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.url).port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def _ask(connection: Connection, text: str, name: str | list[str], tally: Tally) -> None:
    """Ask a run, or several, for a text; by hand: HTTP libraries take as long as the server, on cores it needs."""
    (reader, writer), began = connection, time.perf_counter()
    body = json.dumps({"texts": [text], "run" if isinstance(name, str) else "runs": name}).encode()
    tally.n_asked += 1
    writer.write(b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n")
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
    await reader.readexactly(length)
    tally.note(int(status.split()[1]), time.perf_counter() - began)


@contextmanager
def serving(folder: Path, *options: str, module: str = "submillion") -> Iterator[Server]:
    """Start a server, and stop it."""
    server = Server(folder, *options, module=module)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def make_runs(folder: Path, encoder: str, layers: str | None = None) -> list[str]:
    """Write finished runs on one encoder with random LoRA of rank 8 on query and value; return their names.

    layers: as in `adapter.layers`.
    """
    import torch

    from benchmarks.material import LABELS
    from submillion import config, planning
    from submillion.config import validate
    from submillion.model import adapters, backbone
    from submillion.model.classifier import Classifier
    from submillion.runs import Run

    adapter = {"sites": "query+value", "rank": 8, "layers": layers}
    settings = validate({"model": {"name": encoder, "max_length": 128}, "adapter": adapter})
    plan = planning.plan(settings, len(LABELS))
    classifier = Classifier.build(settings, plan, LABELS, 1, "fp32", torch.device("cpu"))
    environment = {"device": "cpu", "precision": "fp32", "encoder_sha256": backbone.weights_sha256(encoder)}
    names = []
    folder.mkdir()
    for number in range(N_RUNS):
        with torch.no_grad():
            for parameter in adapters.trainable_parameters(classifier.model).values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        run = Run(folder / f"run-{number:08x}")
        run.path.mkdir()
        classifier.save(run.path / "adapter")
        run.write("config.yaml", config.to_yaml(settings))
        run.write("plan.json", planning.to_json(plan))
        files = {"labels": list(LABELS), "environment": environment, "data": {}, "scores": {}}
        for name, value in files.items():
            run.write_json(f"{name}.json", value)
        run.mark_done()
        names.append(run.name)
    return names


def memory(folder: Path, names: list[str], texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return MiB with one run and with all, after equal work, and after each tenth of the replay of an hour."""
    with serving(folder, "--precision", options.precision) as server:
        values: dict[str, Any] = {"idle_mib": server.rss_mib()}
        server.warm(names[:1])
        server.closed(texts, names[:1], 120, n_most=500)
        values["1_adapter_mib"] = server.rss_mib()
        server.warm(names)
        server.closed(texts, names, 120, n_most=500)
        values[f"{len(names)}_adapters_mib"] = server.rss_mib()
        values["ratio"] = values[f"{len(names)}_adapters_mib"] / values["1_adapter_mib"]
        values["replayed_texts"], parts = options.replayed, []
        for _ in range(10):
            server.closed(texts, names, 600, n_most=options.replayed // 10)
            parts.append(server.rss_mib())
    values["replayed_mib"] = parts
    return json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 2))


def throughput(
    folder: Path, names: list[str], texts: list[str], options: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """Return texts per second of one run and of all, batched and not, their ratios, and the first number.

    Not batched: one caller who waits for each answer, on the same server and on one that does not wait for texts to
    join, and as many callers as with batches on the latter.
    """
    shared = ("--precision", options.precision)
    by_way: dict[str, list[float]] = {}
    with (
        serving(folder, *shared) as batches,
        serving(folder, *shared, "--batch-tokens", "1", "--wait-ms", "0") as singles,
    ):
        ways = {
            "batches": (batches, names[:1], N_CALLERS),
            "batches, 20 adapters": (batches, names, N_CALLERS),
            "one caller, same server": (batches, names[:1], 1),
            "one caller": (singles, names[:1], 1),
            "one caller, 20 adapters": (singles, names, 1),
            "no batches": (singles, names[:1], N_CALLERS),
        }
        for server in (batches, singles):
            server.warm(names)
        for number in range(options.rounds + 1):
            for what, (server, chosen, n_callers) in ways.items():
                rate = server.closed(texts, chosen, options.seconds, n_callers).texts_a_s
                if number:  # the first round warms up
                    by_way.setdefault(what, []).append(rate)
    pairs = [("batches", each) for each in ("one caller, same server", "one caller", "no batches")]
    pairs.append(("batches, 20 adapters", "one caller, 20 adapters"))
    ratios = {
        f"{many} / {single}": statistics.median(a / b for a, b in zip(by_way[many], by_way[single], strict=True))
        for many, single in pairs
    }
    values = {what: [round(rate, 1) for rate in rates] for what, rates in by_way.items()}
    return values | {name: round(ratio, 2) for name, ratio in ratios.items()}, statistics.median(by_way["batches"])


def load(folder: Path, names: list[str], texts: list[str], rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return latencies at half of `rate`, at three times `rate`, and at half again after it."""
    limit = ("--queue-texts", str(OVERLOAD_TEXTS))
    with serving(folder, "--precision", options.precision, *limit) as server:
        server.warm(names)
        server.closed(texts, names[:1], options.seconds)
        parts = {"half load": 0.5, "three times the load": 3.0, "half load, after it": 0.5}
        return {"texts_a_s": round(rate, 1)} | {
            what: server.opened(texts, names[:1], factor * rate, options.seconds * 3).values()
            for what, factor in parts.items()
        }


def plain(folder: Path, names: list[str], texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return texts per second of 1 and of 16 callers, here and of `plain_service`, which take turns, and the ratios."""
    rates: dict[str, list[float]] = {}
    with (
        serving(folder, "--precision", options.precision) as ours,
        serving(folder / names[0], module="benchmarks.plain_service") as theirs,
    ):
        for server in (ours, theirs):
            server.warm(names[:1])
        for number in range(options.rounds + 1):
            for n_callers in (1, 16):
                for what, server in (("ours", ours), ("FastAPI + PEFT", theirs)):
                    rate = server.closed(texts, names[:1], options.seconds, n_callers).texts_a_s
                    if number:  # the first round warms up
                        rates.setdefault(f"{what}, {n_callers}", []).append(rate)
    ratios = {
        f"ratio, {n}": [a / b for a, b in zip(rates[f"ours, {n}"], rates[f"FastAPI + PEFT, {n}"], strict=True)]
        for n in (1, 16)
    }
    return {what: [round(each, 2) for each in values] for what, values in (rates | ratios).items()}


def several(encoder: str, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds in which one text is classified by N runs: a request with `runs`, and N requests.

    N requests one after the other, by one caller, and at once, by N. Ways take turns; medians.
    """
    results: dict[str, Any] = {}
    for layers in ("top:4", None):
        with tempfile.TemporaryDirectory() as temporary:
            names = make_runs(Path(temporary) / "runs", encoder, layers)
            with serving(Path(temporary) / "runs", "--precision", options.precision) as server:
                server.warm(names)
                for n_runs in (2, 6, 20):
                    milliseconds = asyncio.run(_several(server, names[:n_runs], texts, options.asked))
                    results[f"{layers or 'all layers'}, {n_runs} runs"] = milliseconds
                    print(layers, n_runs, milliseconds, file=sys.stderr)
    return results


async def _several(server: Server, names: list[str], texts: list[str], n_times: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"one request": [], "one after the other": [], "at once": []}
    tally = Tally()
    for number in range(n_times + 1):
        text = texts[number]
        for way, each in seconds.items():
            async with AsyncExitStack() as stack:  # new ones: the server closes those that are quiet for 30 s
                connections = [await stack.enter_async_context(server._connection()) for _ in names]
                began = time.perf_counter()
                if way == "one request":
                    await _ask(connections[0], text, names, tally)
                elif way == "at once":
                    pairs = zip(connections, names, strict=True)
                    await asyncio.gather(*(_ask(connection, text, name, tally) for connection, name in pairs))
                else:
                    for name in names:
                        await _ask(connections[0], text, name, tally)
                if number:  # the first one warms up
                    each.append(time.perf_counter() - began)
    assert set(tally.latencies_s) == {200}
    return {way: round(1000 * statistics.median(each), 1) for way, each in seconds.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="minilm", choices=["minilm", "roberta-base"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--replayed", type=int, default=36_000, help="an hour at 10 texts a second")
    parser.add_argument("--only", choices=["memory", "speed", "several", "plain"])
    parser.add_argument("--asked", type=int, default=20, help="how often several runs are asked each way")
    options = parser.parse_args()
    from benchmarks.material import MINILM, roberta_base, texts

    with tempfile.TemporaryDirectory() as temporary:
        encoder = MINILM if options.model == "minilm" else str(roberta_base(Path(temporary) / "encoder"))
        folder = Path(temporary) / "runs"
        names, sample_texts = make_runs(folder, encoder), texts(1000, 2)
        results: dict[str, Any] = {}
        if options.only in (None, "plain"):
            results["plain"] = plain(folder, names, sample_texts, options)
        if options.only in (None, "several"):
            results["several"] = several(encoder, sample_texts, options)
        if options.only in (None, "memory"):
            results["memory"] = memory(folder, names, sample_texts, options)
        if options.only in (None, "speed"):
            results["throughput"], rate = throughput(folder, names, sample_texts, options)
            print(json.dumps(results["throughput"]), file=sys.stderr)
            results["load"] = load(folder, names, sample_texts, rate, options)
    known, key = kept("serving"), f"{options.model}, {options.precision}"
    keep("serving", known | {key: known.get(key, {}) | results})
    print(json.dumps({key: results}, indent=1))


if __name__ == "__main__":
    main()
