"""Laws of texts longer than an encoder reads: windows and ends are those of stock calls, in whatever command."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from submillion import config, data, exports, planning, prediction
from submillion.config import Config
from submillion.data import Example, checking
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError
from submillion.model import adapters, batching
from submillion.model.classifier import Classifier
from submillion.prediction.sharing import Loader
from submillion.reports import card
from submillion.runs import Run
from submillion.serving import explaining, models, service
from submillion.training import distillation, steps, workflow
from tests.adapted import LABELS, shaken
from tests.kit import forks
from tests.kit.pairs import pairwise
from tests.kit.untrained import make_run
from tests.tiny import FAMILIES, WORDS, make_tokenizer, settings

LENGTH = 12  # tokens of a window; the tiny vocabularies have some words whole and spell the others
WINDOWS = {"max_length": LENGTH, "long_texts": "windows", "max_windows": 4}
READING = Reading(LENGTH, "windows", 4)
CPU = torch.device("cpu")


def text_of(n_words: int, seed: int = 0) -> str:
    return " ".join(random.Random(1000 * n_words + seed).choices(WORDS, k=n_words))


# Short ones, one that just fits, those that need two windows to four, and one beyond all.
TEXTS = tuple(text_of(n) for n in (3, 10, 1, 11, 18, 19, 34, 60, 26, 2))


def examples_of(texts: tuple[str, ...] = TEXTS) -> list[Example]:
    return [Example(str(i), text, LABELS[i % 3]) for i, text in enumerate(texts)]


def settings_of(encoder: Path, train: dict[str, Any] | None = None, **model: Any) -> Config:
    own = settings(encoder, train=train)
    return config.changed(own, {f"model.{key}": value for key, value in {**WINDOWS, **model}.items()})


def build(own: Config, precision: Any = "fp32") -> Classifier:
    classifier = Classifier.build(own, planning.plan(own, 3), LABELS, 20, precision, CPU).eval()
    shaken(classifier.model)
    return classifier


def split_of(classifier: Classifier, reading: Reading = READING) -> batching.TokenizedSplit:
    return batching.tokenize(examples_of(), classifier.tokenizer, LABELS, reading)


def stock_windows(tokenizer: Any, text: str, reading: Reading = READING) -> dict[str, torch.Tensor]:
    """The windows as the card's code has them."""
    n_special = tokenizer.num_special_tokens_to_add()
    found = tokenizer(
        [text],
        truncation=True,
        max_length=reading.max_length,
        stride=reading.overlap(n_special),
        return_overflowing_tokens=True,
        padding=True,
        return_tensors="pt",
    )
    found.pop("overflow_to_sample_mapping")
    return {name: values[: reading.max_windows] for name, values in found.items()}


def stock_logits(classifier: Classifier, text: str, pooling: str) -> torch.Tensor:
    with torch.no_grad():
        logits = classifier.model(**stock_windows(classifier.tokenizer, text)).logits
    return logits.mean(0) if pooling == "mean" else logits.amax(0)


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_those_of_a_stock_call_and_as_many_as_was_reckoned(family: str, side: str) -> None:
    tokenizer = make_tokenizer(family)
    tokenizer.truncation_side = side
    split = batching.tokenize(examples_of(), tokenizer, LABELS, READING)
    assert split.windows is not None
    batch = split.batch(np.arange(len(split)))
    found = [each.tolist() for each in batch.tokens.split(batch.offsets.diff().tolist())]
    expected = []
    for text in TEXTS:
        stock = stock_windows(tokenizer, text)
        rows = zip(stock["input_ids"], stock["attention_mask"], strict=True)
        expected += [ids[mask.bool()].tolist() for ids, mask in rows]
    assert found == expected
    lengths = np.array([len(tokenizer(text)["input_ids"]) for text in TEXTS])
    n_special = tokenizer.num_special_tokens_to_add()
    assert split.windows.counts.tolist() == READING.n_windows(lengths, n_special).tolist()
    assert split.lengths.tolist() == READING.n_read(lengths, n_special).tolist()
    assert split.n_truncated == (lengths > READING.most_tokens(n_special) + n_special).sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ends_of_a_long_text_are_read_a_quarter_from_the_head(family: str) -> None:
    tokenizer, reading = make_tokenizer(family), Reading(LENGTH, "head-tail")
    split = batching.tokenize(examples_of(), tokenizer, LABELS, reading)
    for row, text in zip(np.split(split.tokens, split.offsets[1:-1]), TEXTS, strict=True):
        whole = tokenizer(text)["input_ids"]
        n_head = 1 + round((LENGTH - 2) / 4)
        assert row.tolist() == (whole if len(whole) <= LENGTH else whole[:n_head] + whole[n_head - LENGTH :])
    assert split.n_truncated == sum(len(tokenizer(text)["input_ids"]) > LENGTH for text in TEXTS)


@pytest.mark.parametrize("kind", ["head-tail", "windows"])
def test_short_texts_are_read_as_if_they_were_cut_to_the_bit(encoders: dict[str, Path], kind: Any) -> None:
    classifier = build(settings_of(encoders["bert"], max_length=32))
    short = examples_of(tuple(text for text in TEXTS if len(text.split()) < 12))
    both = [
        batching.tokenize(short, classifier.tokenizer, LABELS, reading).batch(np.arange(len(short)))
        for reading in (Reading(32), Reading(32, kind))
    ]
    assert both[1].n_windows is None
    for name in ("tokens", "token_types", "offsets"):
        assert torch.equal(getattr(both[0], name), getattr(both[1], name))
    assert torch.equal(*map(classifier, both))


# --- the forward pass -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "pooling", "is_packed"),
    pairwise((*FAMILIES, "deberta-v2", "nomic_bert"), ("mean", "max"), (True, False)),
)
def test_a_texts_logits_are_pooled_from_stock_logits_of_its_windows(
    encoders: dict[str, Path], family: str, pooling: str, is_packed: bool
) -> None:
    classifier = build(settings_of(encoders[family], window_pooling=pooling))
    classifier.packed = classifier.packed and is_packed
    with torch.no_grad():
        found = classifier(split_of(classifier).batch(np.arange(len(TEXTS))))
    expected = torch.stack([stock_logits(classifier, text, pooling) for text in TEXTS])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected.max(0).values - expected.min(0).values).max() > 1e-2


def test_neighbours_and_their_order_change_no_logits(encoders: dict[str, Path]) -> None:
    classifier = build(settings_of(encoders["mpnet"]))
    split = split_of(classifier)
    with torch.no_grad():
        whole = classifier(split.batch(np.arange(len(TEXTS))))
        for rows in ([7], [2, 7, 0], [9, 8, 7, 6, 5, 4]):
            torch.testing.assert_close(classifier(split.batch(np.array(rows))), whole[rows], rtol=0, atol=1e-6)
        taken = split.batch(np.arange(len(TEXTS))).take(torch.tensor([7, 2, 7]))
        torch.testing.assert_close(classifier(taken), whole[[7, 2, 7]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_gradients_go_through_all_windows_of_a_text(encoders: dict[str, Path], pooling: str) -> None:
    classifier = build(settings_of(encoders["roberta"], window_pooling=pooling, dropout=0.0))

    def gradients(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        classifier.zero_grad()
        (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
        trained = adapters.trainable_parameters(classifier.model)
        return {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}

    rows = [4, 7, 6, 0]
    found = gradients(classifier(split_of(classifier).batch(np.array(rows))))
    stock = [classifier.model(**stock_windows(classifier.tokenizer, TEXTS[row])).logits for row in rows]
    expected = gradients(torch.stack([each.mean(0) if pooling == "mean" else each.amax(0) for each in stock]))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        if "key.bias" not in name:
            assert float((gradient - expected[name]).norm() / (expected[name].norm() + 1e-6)) < 1e-4, name


def test_the_frozen_layers_output_is_kept_for_every_window(encoders: dict[str, Path]) -> None:
    own = config.changed(settings_of(encoders["bert"], dropout=0.0, prefix=True), {"adapter.layers": "top:1"})
    classifier = build(own)
    split, rows = split_of(classifier), np.array([7, 0, 5, 6])
    kept, _ = classifier.with_prefix(split, lambda _: None)
    other, _ = classifier.with_prefix(split_of(classifier, Reading(LENGTH, "windows", 2)), lambda _: None)
    with torch.no_grad():
        torch.testing.assert_close(classifier(kept.batch(rows)), classifier(split.batch(rows)), rtol=0, atol=1e-5)
    assert kept.hidden is not None
    assert other.hidden is not None
    assert len(other.tokens) < len(kept.tokens)


def test_a_batch_of_long_texts_is_computed_in_parts_of_whole_texts(encoders: dict[str, Path]) -> None:
    lengths = np.array([48, 5, 48, 48, 12, 3])
    fitting = batching.Fitting(limit=4 * LENGTH)
    parts = [part.tolist() for part in fitting.parts(np.arange(6), lengths)]
    assert parts == [[0], [1], [2], [3], [4, 5]]
    fitting.max_tokens = 12
    assert [part.tolist() for part in fitting.parts(np.array([5, 1, 4]), lengths)] == [[5, 1], [4]]


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose label is said at their end, beyond the first window."""
    rng, lines = random.Random(0), ["id,text,label"]
    for i in range(150):
        label = rng.choice(["film", "market"])
        lines.append(f"r{i},{text_of(rng.choice([2, 14, 22, 30]), seed=i)} {label} {i},{label}")
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def trained(encoder: Path, rows: Path, out: Path, kind: str, *more: str, **named: Any) -> Run:
    options = [f"model.name={encoder}", f"data.source={rows}", f"out={out}", f"model.long_texts={kind}"]
    options += ["data.validation=40", "train.steps=6", "train.batch_size=8", "train.precision=fp32"]
    options += ["train.evaluate_every=3", f"model.max_length={LENGTH}"]
    return workflow.train(config.load(overrides=[*options, *more]), **named)


@pytest.fixture(scope="module", params=["windows", "head-tail"])
def run(encoders: dict[str, Path], rows: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Run:
    return trained(encoders["bert"], rows, tmp_path_factory.mktemp("runs"), request.param)


def test_evaluation_prediction_and_service_give_the_same_probabilities(run: Run, tmp_path: Path) -> None:
    expected, rows = run.load_predictions("validation"), data.read(run.config().data).validation
    texts = [example.text for example in rows]
    np.testing.assert_allclose(prediction.predict(run.path, texts).probs, expected.probs, rtol=0, atol=1e-6)
    loaded = Loader().load(run)
    ((*served,),) = models.rows([(loaded, [(text, None) for text in texts])])
    np.testing.assert_allclose(np.stack(models.probs(served)), expected.probs, rtol=0, atol=1e-6)
    file = tmp_path / "labelled.csv"
    lines = [f"{each.id},{each.text},{each.label}" for each in rows]
    file.write_text("\n".join(["id,text,label", *lines]), encoding="utf-8")
    assert prediction.evaluate(run.path, file)["accuracy"].value == run.scores()["validation"]["accuracy"].value


def test_a_training_says_what_windows_cost(encoders: dict[str, Path], rows: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    trained(encoders["bert"], rows, tmp_path, "windows", watch=lambda r: notes.extend(getattr(r, "notes", ())))
    (said,) = [note for note in notes if "in windows" in note]
    survey = data.survey(config.load(overrides=[f"data.source={rows}"]).data, Reading(LENGTH, "windows"), _backend())
    census = survey.censuses["train"]
    assert re.search(r"\d+ of 110 training texts are longer than 12 tokens \(model.max_length\)", said)
    factor = float(re.findall(r"([\d.]+) times the tokens of cut ones", said)[0])
    assert census.token_factor == pytest.approx(factor, rel=0.1)  # of all rows, validation's too
    assert census.token_factor > 1.5


def _backend() -> Any:
    backend = make_tokenizer("bert").backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def test_the_census_counts_what_is_read() -> None:
    reading, examples = READING, examples_of()
    n_tokens, _ = checking.tokenized(examples, reading, _backend())
    split = batching.tokenize(examples, make_tokenizer("bert"), LABELS, reading)
    cut = batching.tokenize(examples, make_tokenizer("bert"), LABELS, Reading(LENGTH))
    census = checking.census(examples, reading, n_tokens, 2)
    assert split.windows is not None
    assert census.n_truncated == split.n_truncated
    assert census.n_long == cut.n_truncated
    assert census.mean_windows == split.windows.counts.mean()
    assert census.token_factor == len(split.tokens) / len(cut.tokens)


@pytest.mark.parametrize("kind", ["cut", "head-tail", "windows"])
def test_what_an_encoder_sees_of_rows_is_what_is_read(kind: Any) -> None:
    texts = (text_of(40), text_of(40) + " bad", text_of(40) + " good", "bad " + text_of(40))
    examples, reading = examples_of(texts), Reading(LENGTH, kind, 3)
    split = batching.tokenize(examples, make_tokenizer("bert"), LABELS, reading)
    theirs = split.seen(make_tokenizer("bert")).hashes
    ours = checking.tokenized(examples, reading, _backend())[1].hashes
    assert [len({*hashes}) for hashes in (ours, theirs)] == 2 * [4 if kind == "head-tail" else 2]


def test_a_paused_training_ends_as_one_that_was_not(encoders: dict[str, Path], rows: Path, tmp_path: Path) -> None:
    whole = trained(encoders["bert"], rows, tmp_path / "whole", "windows")
    asked = iter([None, None, "pause"])
    is_step = lambda record: getattr(record, "kind", "") == "step"  # noqa: E731
    watch = lambda record: next(asked, None) if is_step(record) else None  # noqa: E731
    assert not trained(encoders["bert"], rows, tmp_path / "killed", "windows", watch=watch).is_done
    killed = trained(encoders["bert"], rows, tmp_path / "killed", "windows")
    both = [each.load_predictions("validation").probs for each in (whole, killed)]
    np.testing.assert_array_equal(*both)


def test_runs_with_windows_and_without_answer_together_as_alone(encoders: dict[str, Path], tmp_path: Path) -> None:
    loader = Loader()
    kinds = [WINDOWS, {}, WINDOWS | {"window_pooling": "max"}, {"max_length": LENGTH, "long_texts": "head-tail"}]
    runs = [loader.load(make_run(tmp_path, encoders["bert"], model=model)) for model in kinds]
    texts = [(text, None) for text in TEXTS]
    rows = [row for of_run in models.rows([(loaded, texts) for loaded in runs]) for row in of_run]
    expected = np.concatenate([prediction.predict(loaded.run.path, list(TEXTS)).probs for loaded in runs])
    order = np.random.default_rng(0).permutation(len(rows))
    found = models.probs([rows[i] for i in order])
    np.testing.assert_allclose(np.stack(found), expected[order], rtol=0, atol=1e-5)
    mean = prediction.predict([loaded.run.path for loaded in runs], list(TEXTS)).probs
    np.testing.assert_allclose(mean, expected.reshape(4, len(TEXTS), -1).mean(0), rtol=0, atol=1e-5)


def test_a_teacher_reads_long_texts_in_its_own_way(encoders: dict[str, Path], tmp_path: Path) -> None:
    place: distillation.Place = (CPU, "fp32")
    found = {}
    for pooling in ("mean", "max"):
        run = make_run(tmp_path, encoders["bert"], LABELS, model=WINDOWS | {"window_pooling": pooling})
        logits, _ = distillation.logits(run, examples_of(), LABELS, place, lambda _: None)
        expected = [stock_logits(Classifier.load(run, "cpu"), text, pooling) for text in TEXTS]
        np.testing.assert_allclose(logits, torch.stack(expected).numpy(), rtol=0, atol=1e-5)
        found[pooling] = distillation.identity(run)
    assert found["mean"] != found["max"]


# --- exports and cards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["merged", "onnx"])
def test_an_export_is_checked_and_its_card_reads_long_texts_as_the_run(run: Run, kind: Any, tmp_path: Path) -> None:
    made = exports.write(run, kind, tmp_path / kind)
    assert made.manifest.facts["long_texts"]["kind"] == run.config().model.long_texts
    assert printed(made.folder / "README.md") == str(prediction.predict(run, list(TEXTS)).labels)


def test_the_card_of_an_adapter_reads_long_texts_as_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from submillion import reports

    text = card.markdown(run, reports.read(run))
    (run.path / "adapter" / "README.md").write_text(text, encoding="utf-8")
    assert printed(run.path / "adapter" / "README.md") == str(prediction.predict(run, list(TEXTS)).labels)


def printed(file: Path) -> str:
    """What the card's code prints of the texts here."""
    (code,) = re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    code = re.sub(r"^texts = .*$", f"texts = {list(TEXTS)!r}", code, flags=re.MULTILINE)
    blocked = "import sys\nsys.modules['submillion'] = None\n"
    done = forks.run(blocked + code, os.environ, "peft", file.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "unread"), [("cut", [*range(10, 30)]), ("head-tail", [*range(2, 22)]), ("windows", [])]
)
def test_words_that_are_not_read_are_not_tried(
    encoders: dict[str, Path], tmp_path: Path, kind: str, unread: list[int]
) -> None:
    model = {"max_length": LENGTH, "long_texts": kind}
    loaded = Loader().load(make_run(tmp_path, encoders["bert"], model=model))
    text = (text_of(30), None)
    asked = explaining.words(text, loaded)
    probs = models.probs(models.rows([(loaded, asked.texts)])[0])
    effects = [each["effect"] for each in asked.values(probs)["texts"][0]]
    assert [i for i, effect in enumerate(effects) if effect is None] == unread
    whole, *shorter = (each.split() for each, _ in asked.texts)
    assert whole == [word for i, word in enumerate(text[0].split()) if i not in unread]
    assert {len(each) for each in shorter} == {len(whole) - 1}
    assert explaining.prediction(text, loaded).values([probs[0]])["n_unread_words"] == len(unread)


def test_a_text_may_be_as_long_as_a_run_reads(encoders: dict[str, Path], tmp_path: Path) -> None:
    loader = Loader()
    short, long = (
        loader.load(make_run(tmp_path, encoders["bert"], model=model))
        for model in ({}, {"max_length": 128, "long_texts": "windows", "max_windows": 60})
    )
    assert service.max_characters(short) == 20_000
    assert service.max_characters(long) > 40_000
    assert service.checked(long, ("a" * 40_000, None))[0] == "a" * 40_000


# --- settings -------------------------------------------------------------------------------------------------------


def test_runs_of_before_keep_their_hash() -> None:
    values = Config().model_dump(mode="json")
    assert config.digest(Config(), "x") == config.digest(config.validate(values), "x")
    for key in ("long_texts", "max_windows", "window_pooling"):
        del values["model"][key]
    assert config.digest(config.validate(values), "x") == config.digest(Config(), "x")
    others = [["long_texts=windows"], ["long_texts=head-tail"], ["long_texts=windows", "max_windows=3"]]
    others.append(["long_texts=windows", "window_pooling=max"])
    found = {config.digest(config.load(overrides=[f"model.{each}" for each in some]), "x") for some in others}
    assert len(found | {config.digest(Config(), "x")}) == 5


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.max_windows=3"], "max_windows is 3, but long_texts is cut"),
        (
            ["model.long_texts=head-tail", "model.window_pooling=max"],
            "window_pooling is max, but long_texts is head-tail",
        ),
        (["model.long_texts=windows", "data.text_pair=other"], "name both columns in data.text"),
        (["model.long_texts=head-tail", "data.text_pair=other"], "name both columns in data.text"),
        (["model.long_texts=windows", "train.batch_tokens=4000"], "a text may have 4096 tokens"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        config.load(overrides=overrides)


def test_batches_by_tokens_hold_any_text(encoders: dict[str, Path]) -> None:
    own = settings_of(encoders["bert"], train={"batch_tokens": 4 * LENGTH})
    split = batching.tokenize(examples_of(), make_tokenizer("bert"), LABELS, Reading.of(own.model))
    assert steps.length(own.train, split.lengths, 4).n_epoch_steps > 1
    batches = batching.training_order(split.lengths, own.train, 0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(split)))
    assert max(int(split.lengths[batch].sum()) for batch in batches) <= 4 * LENGTH


def test_the_plan_says_what_windows_may_cost(encoders: dict[str, Path]) -> None:
    reasons = planning.plan(settings_of(encoders["bert"]), 3).reasons
    assert any("up to 4 times as much" in reason for reason in reasons)
    assert json.loads(planning.to_json(planning.plan(settings_of(encoders["bert"]), 3)))["reasons"] == list(reasons)
