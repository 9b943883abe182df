"""Laws of the kernels for GPUs, run here by Triton's interpreter: what torch's operators compute, dropout included."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scripts import gpu_check
from submillion.errors import DivergedError
from submillion.model import adapters, replays
from submillion.model.batching import Batch
from submillion.model.classifier import Classifier
from submillion.model.packed import cuda
from submillion.model.packed.passes import Dice, keep_frac, masked
from submillion.training import loop, losses, steps
from submillion.training.steps import Steps
from tests.kit.gpu import Encoders, classifier, difference, random_split

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
# Hashes wrap, and some numbers are none on purpose; numpy, which the interpreter computes with, says so.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")

LEAST = 16384  # a quarter is dropped
FACTOR = 1 / (1 - LEAST / 65536)
N_HEADS, HEAD = 2, 16
WIDTH = N_HEADS * HEAD


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are interpreted, and take tensors that are here."""
    if torch.cuda.is_available():
        pytest.skip("`make gpu-check` runs the kernels themselves")
    monkeypatch.setattr(cuda, "_is_able", lambda _: True)
    monkeypatch.setattr(cuda, "fits", lambda x: x.is_contiguous() and x.shape[-1] <= 8192)
    monkeypatch.setattr(cuda, "fits_heads", lambda _, __, head: head in (16, 32))
    # The interpreter computes all integers twice, to assert that none overflows where its kernels are debugged.
    monkeypatch.setattr(
        interpreter.interpreter_builder, "options", interpreter.InterpreterOptions(sanitize_overflow=False)
    )
    torch.manual_seed(0)


def seed() -> cuda.Seed:
    return cuda.Seed(cuda.new_base(torch.device("cpu")), 3)


def mask_of(which: cuda.Seed, *shape: int) -> torch.Tensor:
    kept = torch.empty(shape)
    cuda.drop(torch.ones(shape), which, LEAST, kept)
    return kept


def test_a_mask_keeps_its_share_and_others_are_independent() -> None:
    base = cuda.new_base(torch.device("cpu"))
    first, second = (mask_of(cuda.Seed(base, number), 200, 256) for number in (1, 2))
    n = first.numel()
    for kept in (first, second):
        assert abs(float(kept.mean()) - 0.75) < 5 * (0.75 * 0.25 / n) ** 0.5
    assert abs(float((first * second).mean()) - 0.75**2) < 5 * (0.75**2 / n) ** 0.5
    assert torch.equal(first, mask_of(cuda.Seed(base, 1), 200, 256)), "a mask is computed again, not kept"
    assert not torch.equal(first, mask_of(seed(), 200, 256))


def test_dropped_rows_are_added() -> None:
    which, x, out = seed(), torch.randn(7, 48), torch.randn(7, 48)
    expected = out + x * mask_of(which, 7, 48)
    cuda.add_dropped(x, which, LEAST, out)
    torch.testing.assert_close(out, expected)


def test_gelu() -> None:
    x, grad = torch.randn(9, 100, requires_grad=True), torch.randn(9, 100)
    expected = F.gelu(x)
    expected.backward(grad)
    torch.testing.assert_close(cuda.gelu(x.detach()), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cuda.gelu_backward(x.detach(), grad), x.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [48, 64])
@pytest.mark.parametrize("least", [0, LEAST])
def test_residual_and_norm(width: int, least: int) -> None:
    which = seed()
    y, residual = (torch.randn(5, width, requires_grad=True) for _ in range(2))
    weight, bias, grad = torch.randn(width), torch.randn(width), torch.randn(5, width)
    kept, factor = (mask_of(which, 5, width), FACTOR) if least else (torch.ones(5, width), 1.0)
    expected = F.layer_norm(residual + y * kept * factor, (width,), weight, bias, 1e-5)
    expected.backward(grad)
    total = y.detach().clone()
    out, mean, rstd = cuda.add_norm_(total, residual.detach(), (weight, bias, 1e-5), factor, which, least)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-4, atol=1e-5)
    dtotal, dy = cuda.add_norm_backward(grad, (total, mean, rstd, weight), factor, which, least)
    torch.testing.assert_close(dtotal, residual.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dy, y.grad, rtol=1e-4, atol=1e-5)
    passed = torch.randn(5, width)
    also, dy = cuda.add_norm_backward(grad, (total, mean, rstd, weight), factor, which, least, passed)
    torch.testing.assert_close(also, residual.grad + passed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dy, y.grad + passed * kept * factor, rtol=1e-4, atol=1e-5)


def attended(
    texts: cuda.Texts, rows: torch.Tensor, firsts: torch.Tensor | None, kept: torch.Tensor | None
) -> torch.Tensor:
    """What attention is, text by text."""
    bounds, found = texts.bounds.tolist(), []
    parts = rows.split(WIDTH, 1)
    for number, (start, stop) in enumerate(pairwise(bounds)):
        asking = parts[0][start:stop] if firsts is None else firsts[number : number + 1]
        query, key, value = (
            part.view(len(part), N_HEADS, HEAD).transpose(0, 1)
            for part in (asking, parts[-2][start:stop], parts[-1][start:stop])
        )
        scores = query @ key.transpose(1, 2) * HEAD**-0.5
        if texts.relative is not None:
            scores = scores + texts.relative[:, : scores.shape[1], : stop - start]
        probs = scores.softmax(-1)
        if kept is not None:
            probs = probs * kept[number][:, : probs.shape[1], : stop - start] * FACTOR
        found.append((probs @ value).transpose(0, 1).reshape(-1, WIDTH))
    return torch.cat(found)


@pytest.mark.parametrize("lengths", [(5, 16, 3), (1, 40)], ids=["one block", "several"])
@pytest.mark.parametrize("of_firsts", [False, True])
@pytest.mark.parametrize("more", ["nothing", "dropout", "relative", "both"])
def test_attention_and_its_gradients(lengths: tuple[int, ...], of_firsts: bool, more: str) -> None:
    ends = np.cumsum([0, *lengths])
    longest, n_rows = 16 if max(lengths) <= 16 else 64, int(ends[-1]) + 7
    rows = torch.randn(n_rows, (2 if of_firsts else 3) * WIDTH, requires_grad=True)
    firsts = torch.randn(len(lengths), WIDTH, requires_grad=True) if of_firsts else None
    relative = torch.randn(N_HEADS, longest, longest) if more in ("relative", "both") else None
    texts = cuda.Texts(torch.from_numpy(ends), longest, N_HEADS, relative)
    dropout, kept = cuda.Dropout(0, 0, 1.0), None
    if more in ("dropout", "both"):
        dropout = cuda.Dropout(seed(), LEAST, FACTOR)
        kept = mask_of(dropout.seed, len(lengths), N_HEADS, longest, longest)  # type: ignore[arg-type]
    expected = attended(texts, rows, firsts, kept)
    plain = (rows.detach(), None if firsts is None else firsts.detach())
    out, lse = cuda.attend(texts, *plain, dropout)
    torch.testing.assert_close(out[: len(expected)], expected.detach(), rtol=1e-4, atol=1e-5)
    assert not out[len(expected) :].any(), "rows of no text are 0"
    grad = torch.randn_like(out)
    expected.backward(grad[: len(expected)])
    drows, dfirsts = cuda.attend_backward(texts, (*plain, out, lse), grad, dropout, True)
    torch.testing.assert_close(drows, rows.grad, rtol=1e-4, atol=1e-5)
    if firsts is not None:
        torch.testing.assert_close(dfirsts, firsts.grad, rtol=1e-4, atol=1e-5)
    if more in ("dropout", "relative"):
        return  # both are below
    only_values, _ = cuda.attend_backward(texts, (*plain, out, lse), grad, dropout, False)
    torch.testing.assert_close(only_values[:, -WIDTH:], drows[:, -WIDTH:])
    assert not only_values[:, : -2 * WIDTH].any(), "queries have no gradient where none is wanted"


@pytest.mark.parametrize("family", ["roberta", "mpnet", "modernbert", "deberta-v2"])
def test_the_packed_pass_by_kernels_is_the_stock_model(family: str, tmp_path: Path) -> None:
    device, encoders = torch.device("cpu"), Encoders(tmp_path)
    batch = random_split(2, seed=1, longest=18).batch(np.arange(2))
    assert sorted(batch.offsets.diff().tolist()) == [10, 18], "a text of one block of 16 tokens, and one of two"
    exact, model = (classifier(encoders(family), "full", "fp32", device) for _ in range(2))
    exact.packed = False
    logits, gradients = difference(model, exact, batch)
    assert logits < 1e-5
    assert gradients < 1e-4


def test_a_recorded_step_reads_the_batch_that_it_is_given(tmp_path: Path) -> None:
    """The batch that is made of one array of integers is the batch; labels, one or several, are not the model's."""
    batch = random_split(4, seed=1, longest=18).batch(np.arange(4))
    for labels in ((4,), (4, 3)):
        batch = replace(batch, label_ids=torch.arange(math.prod(labels)).view(labels) % 2)
        flat = replays._Integers.of(batch)
        assert (flat.shape.n_rows, flat.shape.n_texts, flat.shape.longest) == (128, 4, 64)
        again = flat.batch(torch.from_numpy(flat.values), batch)
        assert torch.equal(again.label_ids, batch.label_ids)
    model = classifier(Encoders(tmp_path)("roberta"), "full", "fp32", torch.device("cpu")).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(again), model(batch), rtol=0, atol=0)


class Graph:
    """Stands for a recorded graph: work on the memory that it was recorded with."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> replays.Recorder:
    monkeypatch.setattr(replays.Recorder, "_graph_of", lambda _, work: Graph(work))
    monkeypatch.setattr(replays, "_has_room", lambda _: True)
    return replays.Recorder(torch.device("cpu"), lambda _: None)


@pytest.mark.parametrize(("method", "is_recorded"), [("lora", True), ("none", False)])
def test_a_model_to_whose_texts_no_kernel_attends_says_so(method, is_recorded, monkeypatch, tmp_path) -> None:
    """MPNet's position bias trains with all parameters."""
    model = classifier(Encoders(tmp_path)("mpnet"), "full", "fp32", torch.device("cpu"), method=method)
    monkeypatch.setattr(Classifier, "device", torch.device("cuda"))
    monkeypatch.setattr("submillion.model.classifier.Recorder", lambda *_: "recorder")
    said: list[str] = []
    assert (model.recorder(said.append) == "recorder") == is_recorded
    assert ["launched one by one" in each for each in said] == [True] * (not is_recorded)


def test_recorded_work_reads_each_batch_anew(recorder: replays.Recorder) -> None:
    """Batches of one shape, the longer one first: nothing of a batch is left for the next, teachers and prefix too."""
    rng = np.random.default_rng(0)
    seen: list[tuple[torch.Tensor, ...]] = []

    def work(batch: Batch) -> None:
        assert batch.teacher_logits is not None
        assert batch.hidden is not None
        ends = batch.layout.bounds
        n = int(ends[-1])
        take = batch.layout.take[:n]
        seen.append(
            tuple(part.clone() for part in (batch.tokens[take], batch.hidden[take], batch.teacher_logits, ends))
        )

    for number, longest in enumerate((40, 40, 18, 30)):
        split = random_split(3, seed=number, longest=longest)
        teacher, hidden = (torch.from_numpy(rng.normal(size=(n, 4))) for n in (3, len(split.tokens)))
        batch = replace(split.batch(np.arange(3)), teacher_logits=teacher, hidden=hidden)
        recorder.run_on(batch, work)
        order = np.argsort(split.lengths, kind="stable")
        rows = np.concatenate([np.arange(split.offsets[i], split.offsets[i + 1]) for i in order])
        tokens, kept, logits, ends = seen[-1]
        assert tokens.tolist() == split.tokens[rows].tolist()
        assert torch.equal(kept, hidden[rows])
        assert torch.equal(logits, teacher)
        assert ends.tolist() == [0, *np.cumsum(split.lengths[order])]
    assert recorder.n_graphs == 1, "the second batch of a shape is recorded, others are replayed"


def test_a_recorder_stops_at_its_limit_and_forgets(recorder: replays.Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_MOST_GRAPHS", 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    done: list[int] = []
    for _ in range(3):
        for n_rows in (2, 3):
            batch = random_split(n_rows, seed=n_rows, longest=9).batch(np.arange(n_rows))
            recorder.run_on(batch, lambda batch: done.append(batch.n_rows))
    assert done == [2, 3] * 3
    assert recorder.n_graphs == 1
    assert recorder.forget()
    assert not recorder.forget(), "there is nothing left to give up"
    recorder.run(lambda: done.append(0))
    recorder.run(lambda: done.append(0))
    assert (recorder.n_graphs, done[-2:]) == (0, [0, 0])


def test_what_cannot_be_recorded_is_said_once_and_done(
    recorder: replays.Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    said: list[str] = []
    monkeypatch.setattr(replays.Recorder, "_graph_of", fails)
    recorder.say = said.append
    done: list[int] = []
    for _ in range(4):
        recorder.run(lambda: done.append(1))
    assert len(done) == 4
    assert len(said) == 1
    assert "operation not permitted" in said[0]


def test_masks_of_a_layer_differ_and_follow_the_seed() -> None:
    def masks() -> list[torch.Tensor]:
        torch.manual_seed(5)
        dice, ones = Dice(torch.ones(6, 64)), torch.ones(6, 64)
        return [masked(ones, mask) for mask in dice.masks([(6, 64)] * 2, 0.25) if mask is not None]

    first, again = masks(), masks()
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])
    assert keep_frac(0.25) == 0.75


def test_what_was_best_is_left_where_a_step_that_was_begun_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU parameters are changed before a loss is read."""
    real = Steps.__init__

    def ahead(self: Steps, *given: Any) -> None:
        real(self, *given)
        self._n_ahead = 1

    monkeypatch.setattr(cuda, "fits", lambda _: False)  # what is computed does not matter here
    monkeypatch.setattr(cuda, "fits_heads", lambda *_: False)
    monkeypatch.setattr(Steps, "__init__", ahead)
    monkeypatch.setattr(steps, "_read_later", lambda loss: lambda value=float(loss): value)
    split = random_split(16, seed=1, longest=9)
    work = gpu_check.job(Encoders(tmp_path), torch.device("cpu"), split, precision="fp32")
    n_steps = iter(range(1, 100))

    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        own = losses.supervised(logits, batch.label_ids, 0.0, None)
        return own * (float("nan") if next(n_steps) > 8 else 1.0)

    with pytest.raises(DivergedError, match="step 9"):
        list(loop.fit(replace(work, loss=loss)))
    parameters = adapters.trainable_parameters(work.classifier.model)
    best = work.checkpoints.load_best(8)
    assert all(torch.equal(parameter, best[name]) for name, parameter in parameters.items())


@pytest.mark.parametrize(
    ("step", "begun", "expected"),
    [
        (1, [], [1, 2]),  # the record of step 1 is read while step 2 is being done
        (2, [2], [3]),
        (10, [10], []),  # an evaluation comes first
        (25, [], [25]),  # so does a checkpoint
        (40, [], [40]),  # the end
    ],
)
def test_no_step_begins_before_what_comes_between(step: int, begun: list[int], expected: list[int]) -> None:
    class Begun:
        def __init__(self, number: int) -> None:
            self.step = number

    some: Any = Steps.__new__(Steps)
    some.length = type("Length", (), {"n_steps": 40, "evaluate_every": 10})
    some.begun, some._n_ahead = [Begun(number) for number in begun], 1
    assert list(some.ahead(step, checkpoint_every=25)) == expected


@pytest.mark.parametrize("section", sorted(set(gpu_check.SECTIONS) - {"commands"}))
def test_the_check_of_a_gpu_is_right_on_a_cpu(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "fits", lambda _: False)  # the interpreter takes minutes
    monkeypatch.setattr(cuda, "fits_heads", lambda *_: False)
    n_checks = 2 if section == "trainings" else 4  # later ones take more trainings, and nothing is recorded here
    found = [*islice(gpu_check.SECTIONS[section](Encoders(tmp_path), torch.device("cpu")), n_checks)]
    assert len(found) == n_checks
    assert all(value <= limit for _, value, limit, *_ in found)
