"""Laws of the prefix: it changes no result, is never taken for another's, is bounded, and may vanish at any time."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from submillion import config, planning
from submillion.cli.progress import View
from submillion.config import Config
from submillion.data import Example, cache
from submillion.data.long_texts import Reading
from submillion.errors import RunError
from submillion.model import adapters, batching, prefix
from submillion.model.batching import Batch, TokenizedSplit
from submillion.model.classifier import Classifier
from submillion.planning import Plan
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.training import loop, workers, workflow
from tests.adapted import LABELS, shaken
from tests.data import write_csv
from tests.kit.pairs import pairwise
from tests.tiny import FAMILIES, TEXTS, make_encoder

N_LAYERS = 3
DEEP = tuple(family for family in FAMILIES if family != "albert")  # has one layer, and nothing below it
NO_REPORT: Callable[[int], None] = lambda _: None  # noqa: E731


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, and small fixed batches, so that there are several."""
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prefix, "_BATCH_TOKENS", 60)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny encoder of three layers for each family."""
    parent = tmp_path_factory.mktemp("deep")
    return {family: make_encoder(family, parent / family, n_layers=N_LAYERS) for family in DEEP}


def settings_of(encoder: Path, model: dict[str, Any] | None = None, **adapter: Any) -> Config:
    wishes = {"name": str(encoder), "max_length": 32, "dropout": 0.0, "prefix": True, **(model or {})}
    return config.validate({"model": wishes, "adapter": {"rank": 4, "layers": "top:1", **adapter}})


def build(settings: Config, precision: Any = "fp32") -> Classifier:
    plan: Plan = planning.plan(settings, len(LABELS))
    classifier = Classifier.build(settings, plan, LABELS, 20, precision, torch.device("cpu"))
    shaken(classifier.model)
    return classifier


def split_of(classifier: Classifier, texts: tuple[str, ...] = 4 * TEXTS, max_length: int = 32) -> TokenizedSplit:
    """Many texts of different lengths, in pairs, so that token types are seen."""
    examples = [Example(str(i), text, LABELS[i % 3], texts[-i]) for i, text in enumerate(texts)]
    return batching.tokenize(examples, classifier.tokenizer, LABELS, Reading(max_length))


def keep(classifier: Classifier, split: TokenizedSplit) -> TokenizedSplit:
    """The split with its prefix; fails if it was not kept."""
    kept, _ = classifier.with_prefix(split, NO_REPORT)
    assert kept.hidden is not None
    return kept


def results(classifier: Classifier, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of a batch and the gradients of all that trains."""
    torch.manual_seed(3)
    classifier.zero_grad()
    logits = classifier(batch)
    (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
    trained = adapters.trainable_parameters(classifier.model)
    return logits.detach(), {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}


def files(place: Path) -> list[Path]:
    return sorted(place.glob("prefix/*/rows.bin"))


# --- it changes no result -------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "n_top", "checkpointing"), pairwise(DEEP, [1, 2], [False, True]))
def test_logits_and_gradients_are_those_without_it(deep, family: str, n_top: int, checkpointing: bool) -> None:
    classifier = build(settings_of(deep[family], layers=f"top:{n_top}", dropout=0.2)).train()
    assert classifier.plan.n_prefix_layers == N_LAYERS - n_top
    classifier.checkpointing = checkpointing
    split = split_of(classifier)
    rows = np.array([7, 3, 20, 3, 11, 0])
    logits, gradients = results(classifier, keep(classifier, split).batch(rows))
    expected, wanted = results(classifier, split.batch(rows))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert gradients.keys() == wanted.keys() == adapters.trainable_parameters(classifier.model).keys()
    for name, gradient in gradients.items():
        if "key.bias" not in name:
            error = float((gradient - wanted[name]).norm() / (wanted[name].norm() + 1e-6))
            assert error < 1e-4, name


@pytest.mark.parametrize("method", ["dora", "adalora", "ia3", "bias lora_only", "pissa"])
def test_every_method_goes_on_from_it(deep, method: str) -> None:
    wishes: dict[str, Any] = {
        "dora": {"method": "dora"},
        "adalora": {"method": "adalora"},
        "ia3": {"method": "ia3", "rank": None},
        "bias lora_only": {"bias": "lora_only"},
        "pissa": {"init": "pissa"},
    }[method]
    classifier = build(settings_of(deep["roberta"], **wishes)).eval()
    split = split_of(classifier)
    rows = np.arange(10)
    with torch.no_grad():
        found, expected = classifier(keep(classifier, split).batch(rows)), classifier(split.batch(rows))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", DEEP)
def test_bf16_agrees_and_is_kept_as_bf16(deep, place: Path, family: str) -> None:
    classifier = build(settings_of(deep[family]), "bf16").eval()
    split = split_of(classifier)
    kept = keep(classifier, split)
    batch = kept.batch(np.arange(12))
    assert batch.hidden is not None
    assert batch.hidden.dtype == torch.bfloat16
    assert [file.stat().st_size for file in files(place)] == [2 * 32 * len(split.tokens)]
    with torch.no_grad():
        found, expected = classifier(batch), classifier(split.batch(np.arange(12)))
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_rows_that_are_added_to_others_leave_the_others_file_as_it_is(deep, place: Path) -> None:
    classifier = build(settings_of(deep["bert"])).eval()
    old, new = split_of(classifier), split_of(classifier, TEXTS[::-1])
    keep(classifier, old)
    before = files(place)
    joined = keep(classifier, TokenizedSplit.joined([old, new]))
    assert set(before) < set(files(place))
    assert len(files(place)) == 2
    rows = np.array([len(old) + 1, 3, len(old), 20, len(old) + 5, 0])  # of both, in turn
    with torch.no_grad():
        found, expected = classifier(joined.batch(rows)), classifier(TokenizedSplit.joined([old, new]).batch(rows))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    alone = classifier(old.batch(rows[[1, 3, 5]]))
    torch.testing.assert_close(found[[1, 3, 5]], alone, rtol=0, atol=1e-5)


def test_nothing_below_is_computed_again(deep) -> None:
    classifier = build(settings_of(deep["bert"])).eval()
    split = split_of(classifier)
    kept, rows = keep(classifier, split), np.arange(8)
    with torch.no_grad():
        expected = classifier(kept.batch(rows))
        spoil(classifier)
        assert torch.equal(classifier(kept.batch(rows)), expected)
        assert classifier(split.batch(rows)).isnan().all()


def test_another_model_does_not_take_it_for_its_own(deep) -> None:
    student, teacher = (build(settings_of(deep["bert"], layers=layers)).eval() for layers in ("top:1", "top:2"))
    split, rows = split_of(student), np.arange(8)
    kept = keep(student, split)
    with torch.no_grad():
        assert torch.equal(teacher(kept.batch(rows)), teacher(split.batch(rows)))


def spoil(classifier: Classifier) -> None:
    """Make every weight below the last layer a NaN."""
    for name, parameter in adapters.stock(classifier.model).named_parameters():
        if "embeddings" in name or "layer.0." in name or "layer.1." in name:
            parameter.data.fill_(torch.nan)


# --- dropout ----------------------------------------------------------------------------------------


def set_dropout_above(classifier: Classifier, p: float) -> None:
    """Change dropout in the last layer and the head."""
    for name, module in classifier.model.named_modules():
        if "embeddings" in name or ".0." in name or ".1." in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = p
        elif isinstance(getattr(module, "attention_dropout", None), float):  # ModernBERT's own number
            module.attention_dropout = p


@pytest.mark.parametrize(("family", "is_packed", "asked"), pairwise(DEEP, [True, False], [True, False]))
def test_dropout_falls_on_what_is_above_alone(deep, family: str, asked: bool, is_packed: bool) -> None:
    classifier = build(settings_of(deep[family], {"dropout": 0.4, "prefix": asked})).train()
    classifier.packed = is_packed
    batch = split_of(classifier).batch(np.arange(6))

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return classifier(batch)

    assert not torch.equal(draw(1), draw(2))
    set_dropout_above(classifier, 0.0)
    assert torch.equal(draw(1), draw(2)) == asked


@pytest.mark.parametrize("family", DEEP)
def test_dropout_above_draws_the_same_with_and_without_it(deep, family: str) -> None:
    classifier = build(settings_of(deep[family], {"dropout": 0.3}, dropout=0.1)).train()
    split = split_of(classifier)
    found, _ = results(classifier, keep(classifier, split).batch(np.arange(9)))
    expected, _ = results(classifier, split.batch(np.arange(9)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, results(classifier.eval(), split.batch(np.arange(9)))[0], atol=1e-3)


def test_the_stock_pass_does_without_it(deep) -> None:
    classifier = build(settings_of(deep["bert"])).eval()
    split = split_of(classifier)
    kept = keep(classifier, split)
    classifier.packed = False
    with torch.no_grad():
        assert torch.equal(classifier(kept.batch(np.arange(4))), classifier(split.batch(np.arange(4))))
    same, note = classifier.with_prefix(split, NO_REPORT)
    assert same.hidden is None
    assert "stock padded" in note


# --- the file and its key ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_file_made_again_is_equal_to_the_bit(deep, place: Path, precision: str) -> None:
    settings = settings_of(deep["mpnet"])
    classifier = build(settings, precision)
    seen: list[int] = []
    _, note = classifier.with_prefix(split_of(classifier), seen.append)
    assert seen[-1] == len(split_of(classifier))
    assert len(seen) > 3
    assert note.startswith("computed in")
    (first,) = files(place)
    content = first.read_bytes()
    shutil.rmtree(place)
    again = build(settings, precision)
    keep(again, split_of(again))
    (second,) = files(place)
    assert (second.relative_to(place), second.read_bytes()) == (first.relative_to(place), content)
    seen.clear()
    _, note = again.with_prefix(split_of(again), seen.append)
    assert note.startswith("found in")
    assert seen == []


OTHER: dict[str, Callable[[dict[str, Path]], tuple[Classifier, TokenizedSplit]]] = {
    "precision": lambda deep: with_split(build(settings_of(deep["mpnet"]), "bf16")),
    "k": lambda deep: with_split(build(settings_of(deep["mpnet"], layers="top:2"))),
    "max_length": lambda deep: with_split(build(settings_of(deep["mpnet"])), max_length=9),
    "one text": lambda deep: with_split(build(settings_of(deep["mpnet"])), texts=(*TEXTS[:-1], "a film")),
    "order": lambda deep: with_split(build(settings_of(deep["mpnet"])), texts=TEXTS[::-1]),
    "family": lambda deep: with_split(build(settings_of(deep["roberta"]))),
    "a token": lambda deep: with_one_more(build(settings_of(deep["mpnet"])), "tokens"),
    "a token type": lambda deep: with_one_more(build(settings_of(deep["mpnet"])), "token_types"),
    "a length": lambda deep: with_one_more(build(settings_of(deep["mpnet"])), "offsets"),
    "an encoder layer": lambda deep: with_weight(
        build(settings_of(deep["mpnet"])), "mpnet.encoder.layer.1.output.dense.weight"
    ),
    "a norm": lambda deep: with_weight(build(settings_of(deep["mpnet"])), "mpnet.embeddings.LayerNorm.bias"),
    "relative bias": lambda deep: with_weight(
        build(settings_of(deep["mpnet"])), "mpnet.encoder.relative_attention_bias.weight"
    ),
    "activation": lambda deep: with_config(build(settings_of(deep["mpnet"])), hidden_act="relu"),
    "eps": lambda deep: with_config(build(settings_of(deep["mpnet"])), layer_norm_eps=1e-3),
}


def with_split(classifier: Classifier, **kwargs: Any) -> tuple[Classifier, TokenizedSplit]:
    return classifier, split_of(classifier, **{"texts": TEXTS, **kwargs})


def with_one_more(classifier: Classifier, name: str) -> tuple[Classifier, TokenizedSplit]:
    """The split with 1 added to the second entry of one array."""
    split = split_of(classifier, TEXTS)
    array = getattr(split, name).copy()
    array[1] += 1
    return classifier, dataclasses.replace(split, **{name: array})


def with_weight(classifier: Classifier, name: str) -> tuple[Classifier, TokenizedSplit]:
    adapters.stock(classifier.model).get_parameter(name).data.view(-1)[0] += 1e-6
    return with_split(classifier)


def with_config(classifier: Classifier, **changes: Any) -> tuple[Classifier, TokenizedSplit]:
    for name, value in changes.items():
        setattr(adapters.stock(classifier.model).config, name, value)
    return with_split(classifier)


@pytest.mark.parametrize("change", OTHER)
def test_what_decides_the_rows_decides_the_key(deep, place: Path, change: str) -> None:
    keep(*with_split(build(settings_of(deep["mpnet"]))))
    assert len(files(place)) == 1
    keep(*OTHER[change](deep))
    assert len(files(place)) == 2


def test_other_threads_compute_their_own(deep, place: Path) -> None:
    for n_threads, n_files in ((1, 1), (2, 2), (1, 2)):
        with workers.threads(n_threads):
            keep(*with_split(build(settings_of(deep["mpnet"]))))
        assert len(files(place)) == n_files


@pytest.mark.parametrize(
    "wishes",
    [
        {"rank": 2},
        {"method": "dora", "sites": "query"},
        {"model": {"head": "linear"}},
        {"model": {"dropout": 0.3}},
        {"dropout": 0.2},
        {"init": "pissa"},
    ],
    ids=str,
)
def test_trials_that_differ_above_share_one_file(deep, place: Path, wishes: dict[str, Any]) -> None:
    keep(*with_split(build(settings_of(deep["mpnet"]))))
    trial = build(settings_of(deep["mpnet"], **wishes))
    keep(*with_split(trial))
    assert len(files(place)) == 1


def test_names_of_labels_do_not_matter(deep, place: Path) -> None:
    classifier = build(settings_of(deep["mpnet"]))
    keep(*with_split(classifier))
    keep(*with_config(classifier, id2label={0: "other", 1: "names"}, label2id={"other": 0, "names": 1}))
    assert len(files(place)) == 1


def test_projection_of_narrow_embeddings_is_in_the_key(deep, place: Path) -> None:
    classifier = build(settings_of(deep["electra"]))
    keep(*with_split(classifier))
    keep(*with_weight(classifier, "electra.embeddings_project.weight"))
    assert len(files(place)) == 2


# --- disk and memory --------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", "0")


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))


@contextmanager
def short_files() -> Iterator[None]:
    """Files end at 5,000 bytes: writing more is an OSError, as on a disk that fills up. So would the tests' own log."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("lack", ["full", "no_room", "unwritable"])
def test_where_it_cannot_be_kept_the_split_stays_as_it_is(
    deep, place: Path, lack: str, request: pytest.FixtureRequest
) -> None:
    classifier = build(settings_of(deep["bert"]))
    split = split_of(classifier)
    request.getfixturevalue(lack)
    same, note = classifier.with_prefix(split, NO_REPORT)
    assert_not_kept(same, note, place)


def test_on_a_disk_that_fills_up_meanwhile_the_split_stays_as_it_is(deep, place: Path) -> None:
    classifier = build(settings_of(deep["bert"]))
    split = split_of(classifier)
    with short_files():
        same, note = classifier.with_prefix(split, NO_REPORT)
    assert_not_kept(same, note, place)


def assert_not_kept(split: TokenizedSplit, note: str, place: Path) -> None:
    assert split.hidden is None
    assert note.startswith("not kept, recomputed in every pass: ")
    assert not files(place)
    assert not list(place.glob("prefix/.part*"))


def test_a_damaged_file_is_made_again(deep, place: Path) -> None:
    classifier = build(settings_of(deep["bert"]))
    split = split_of(classifier)
    keep(classifier, split)
    (file,) = files(place)
    content = file.read_bytes()
    file.write_bytes(b"\0" * len(content))
    keep(classifier, split)
    assert file.read_bytes() == content


@pytest.mark.parametrize("n_times", [1, 2], ids=["computed", "found"])
def test_a_file_that_is_removed_while_it_is_used_can_still_be_read(deep, place: Path, n_times: int) -> None:
    classifier = build(settings_of(deep["bert"]))
    kept = [keep(classifier, split_of(classifier)) for _ in range(n_times)][-1]
    expected = classifier.eval()(kept.batch(np.arange(5)))
    shutil.rmtree(place)
    assert torch.equal(classifier(kept.batch(np.arange(5))), expected)


def test_a_file_cut_short_while_it_is_used_is_told(deep, place: Path) -> None:
    classifier = build(settings_of(deep["bert"]))
    kept = keep(classifier, split_of(classifier))
    os.truncate(files(place)[0], 100)
    with pytest.raises(RunError, match=r"rows\.bin was cut short"):
        kept.batch(np.arange(5))


def test_files_are_closed_with_their_split(deep, place: Path) -> None:
    def n_open() -> int:  # in the cache alone: other tests' files and sockets may close while this one runs
        targets = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return sum(target.startswith(str(place)) for target in targets)

    classifier = build(settings_of(deep["bert"]))
    kept = [keep(classifier, split_of(classifier)) for _ in range(3)]
    assert n_open() == 3
    del kept
    gc.collect()
    assert n_open() == 0


def test_reading_holds_no_more_than_a_batch(deep, tmp_path: Path) -> None:
    n_texts, length, width = 4_000, 128, 32
    classifier = build(settings_of(deep["bert"]))
    (tmp_path / "rows.bin").touch()
    os.truncate(tmp_path / "rows.bin", n_texts * length * width * 4)  # 62 MiB
    rows = prefix._Rows(tmp_path / "rows.bin", classifier._prepared())
    lengths = np.full(10, length)

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    rows(np.arange(10) * length, lengths)
    before = resident_mib()
    for start in range(0, n_texts, 10):
        rows((start + np.arange(10)) * length, lengths)
    assert resident_mib() - before < 16


# --- whole runs -------------------------------------------------------------------------------------

Record = StepRecord | EvalRecord | workflow.Phase
COMMON = ["train.batch_size=8", "train.evaluate_every=5", "train.precision=fp32", "adapter.layers=top:1"]


@pytest.fixture
def base(tmp_path: Path, deep: dict[str, Path]) -> list[str]:
    data = write_csv(tmp_path / "rows.csv", 60)
    return [*COMMON, f"data.source={data}", f"model.name={deep['bert']}", "train.steps=15"]


def train(base: list[str], out: Path, *more: str) -> tuple[Run, list[str]]:
    """A run, and the notes of the phases that concern its prefix."""
    notes: list[str] = []

    def watch(record: Record) -> bool:
        if record.kind == "phase" and record.n_total:
            notes.extend(record.notes)
        return False

    return workflow.train(config.load(overrides=[*base, f"out={out}", *more]), watch), notes


def losses_of(run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_the_same_without_it_and_where_it_cannot_be_kept(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = [*base, "data.test=0.2", "train.gradient_checkpointing=true"]
    kept, notes = train(base, tmp_path / "kept", "model.prefix=true", "model.dropout=0")
    assert [note.split(" in ")[0] for note in notes if "MiB" not in note] == ["train: computed", "validation: computed"]
    without, none = train(base, tmp_path / "without", "model.prefix=false", "model.dropout=0")
    assert none == []
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", "0")
    shutil.rmtree(cache.folder())
    failed, notes = train(base, tmp_path / "failed", "model.prefix=true", "model.dropout=0")
    assert sum("not kept" in note for note in notes) == 2
    for other in (without, failed):
        np.testing.assert_allclose(losses_of(other), losses_of(kept), rtol=1e-4)
        for name in ("validation", "test"):
            ours, theirs = kept.load_predictions(name), other.load_predictions(name)
            np.testing.assert_allclose(ours.probs, theirs.probs, atol=1e-4)


def test_epochs_evaluations_and_predictions_all_read_it(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = [*base, "model.prefix=true", "model.dropout=0.1"]
    expected, _ = train(base, tmp_path / "expected")
    fit = loop.fit

    def fit_spoilt(job: loop.Job) -> Iterator[StepRecord | EvalRecord]:
        spoil(job.classifier)
        yield from fit(job)

    monkeypatch.setattr(loop, "fit", fit_spoilt)
    spoilt, _ = train(base, tmp_path / "spoilt")
    assert losses_of(spoilt) == losses_of(expected)
    found, wanted = (run.load_predictions("validation").probs for run in (spoilt, expected))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("asked", "n_steps", "kept"),
    [
        ("null", 7, ["train", "validation"]),
        ("null", 6, ["validation"]),
        ("true", 6, ["train", "validation"]),
        ("false", 7, []),
    ],
)
def test_it_is_kept_of_rows_that_are_read_again(
    base: list[str], tmp_path: Path, asked: str, n_steps: int, kept: list[str]
) -> None:
    more = [f"model.prefix={asked}", "model.dropout=0", f"train.steps={n_steps}", "data.validation=12"]
    _, notes = train(base, tmp_path / "runs", *more)  # 48 rows: 6 steps per epoch
    assert [note.split(":")[0] for note in notes if "MiB" in note] == kept


def test_a_run_that_goes_on_after_its_cache_was_damaged_ends_the_same(
    base: list[str], tmp_path: Path, place: Path
) -> None:
    base = [*base, "model.prefix=true", "train.precision=bf16", "train.checkpoint_every=1"]
    whole, _ = train(base, tmp_path / "whole")
    settings = config.load(overrides=[*base, f"out={tmp_path / 'paused'}"])
    workflow.train(settings, lambda record: record.kind == "step" and record.step == 3)
    for file in files(place):
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    workflow.train(settings, lambda record: record.kind == "step" and record.step == 8)
    shutil.rmtree(place)
    paused = workflow.train(settings)
    assert losses_of(paused) == losses_of(whole)
    name = "predictions-validation.parquet"
    assert (paused.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_people_see_each_phase_once_and_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with View() as view:
        phase = workflow.Phase("computing", n_total=300, notes=("train: 2.0 MiB",))
        view(phase)
        for done in (100, 200, 300):
            view(dataclasses.replace(phase, n_done=done, notes=()))
        view(dataclasses.replace(phase, n_done=300, notes=("train: computed in 1.0 s",)))
    assert capsys.readouterr().err.split("\n") == ["computing", "  train: 2.0 MiB", "  train: computed in 1.0 s", ""]
