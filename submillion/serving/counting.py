"""The server's metrics, for Prometheus to read at /metrics.

Each application has its own registry. docs/serving.md says what the numbers mean for a user.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = tuple(2**n for n in range(15))
COUNTED = ("/v1/predict", "/v1/models")
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Counts:
    """The server's numbers; safe to use from several threads."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("submillion_requests", "Requests answered", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "submillion_request_seconds", "From request to answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self._texts = Counter("submillion_texts", "Texts classified", ["run"], registry=registry)
        self._tokens = Counter("submillion_tokens", "Tokens of classified texts", registry=registry)
        self._batch_seconds = Histogram(
            "submillion_batch_seconds", "Seconds a batch took", buckets=_SECONDS, registry=registry
        )
        self._batch_texts = Histogram("submillion_batch_texts", "Texts in a batch", buckets=_SIZES, registry=registry)
        self._batch_tokens = Histogram(
            "submillion_batch_tokens", "Tokens in a batch", buckets=_SIZES, registry=registry
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a number that is computed when it is read."""
        Gauge(f"submillion_{name}", meaning, registry=self._registry).set_function(value)

    def batch(self, runs: list[str], n_tokens: int, seconds: float) -> None:
        """Count a batch: the run of each of its texts, its tokens, and its seconds."""
        for run in set(runs):
            self._texts.labels(run).inc(runs.count(run))
        self._tokens.inc(n_tokens)
        self._batch_seconds.observe(seconds)
        self._batch_texts.observe(len(runs))
        self._batch_tokens.observe(n_tokens)

    def exposition(self) -> bytes:
        """Return all numbers in Prometheus' format."""
        return generate_latest(self._registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer, for `COUNTED` paths only: others would be names without end."""
        if path in COUNTED:
            self._requests.labels(path, status).inc()
            self._seconds.labels(path).observe(seconds)
