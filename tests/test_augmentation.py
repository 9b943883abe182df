"""Laws of changed copies: keyed, within their rate, names and negations untouched, on the training split only."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from collections import Counter
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from submillion import config, data, runs
from submillion.cli import main
from submillion.config import AugmentationConfig, AugmentationKind, Config
from submillion.data import Example
from submillion.data.augmentation import STRENGTHS, changed, copy_of, perturbed, synonyms, with_copies
from submillion.data.augmentation.changes import WordKind
from submillion.data.augmentation.synonyms import TABLE, Ending, inflected, read_table
from submillion.data.augmentation.words import NEGATIONS, changeable, mistyped
from submillion.errors import ConfigError
from submillion.model import batching
from submillion.model.batching import TokenizedSplit
from submillion.training import workflow
from tests.data import write_csv

KINDS = get_args(AugmentationKind)
WORD_KINDS = get_args(WordKind)
NESTED = ("typos", "lower", "upper", "truncation", "punctuation", "first-column")
TEXT = "the film, was not good. And Anna never bought 12 of the (large) automobiles; they built Them In the city"
PAIR = Example("7", TEXT, "bad", text_pair="A quick, Answer to a hard question", first_chars=10)
PLAIN = ("film", "large", "automobile", "answers", "quickly", "the", "of", "city", "building", "help", "helped")
STAYING = (
    "Anna",
    "UN",
    "iPhone",
    "42",
    "3rd",
    "not",
    "never",
    "don't",
    "cannot",
    "@bob",
    "#fun",
    "http://a.b",
    "&amp;",
)
WORDS = st.lists(st.sampled_from((*PLAIN, *STAYING, "good.", "(large)", "“answer”", "well-known")), max_size=40)


def settings_of(kind: str | list[str] = "synonyms", **keys: Any) -> AugmentationConfig:
    return AugmentationConfig.model_validate({"kind": kind, **keys})


def bare(text: str) -> list[str]:
    """The words of a text without the punctuation around them."""
    return [token.strip("\"'()[].,;:!?“”’…") for token in text.split()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_depends_on_seed_example_and_number_alone(kind: str) -> None:
    settings = settings_of(kind, rate=0.5, copies=2)
    examples = [Example(str(i), TEXT, "x", first_chars=10) for i in range(6)]
    made = {example.id: example.text for example in with_copies(examples, settings, 3)}
    again = {example.id: example.text for example in with_copies(examples[:2:-1], settings, 3)}
    assert again.items() <= made.items()
    assert made["4#2"] == copy_of(examples[4], 2, settings, 3).text
    assert len({copy_of(examples[0], 1, settings, seed).text for seed in range(8)}) > (kind != "truncation")
    n_different = 1 if kind in ("truncation", "first-column") else 4
    assert len(set(made.values())) > n_different, "ids and numbers make a difference"


def test_copies_stand_after_their_examples_with_ids_of_their_own() -> None:
    examples = [Example("a", TEXT, "x"), Example("a#1", TEXT, "y"), Example("b#", TEXT, "x")]
    found = with_copies(examples, settings_of(copies=3), 0)
    assert found[:3] == examples
    assert [example.label for example in found] == ["x", "y", "x"] * 4
    assert len({example.id for example in found}) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_both_texts_of_a_pair_change_and_nothing_else_does(kind: str) -> None:
    copies = [copy_of(PAIR, number, settings_of(kind, rate=0.4), 0) for number in range(1, 20)]
    assert {(copy.id, copy.label) for copy in copies} == {("7", "bad")}
    assert any(copy.text != PAIR.text for copy in copies)
    assert any(copy.text_pair != PAIR.text_pair for copy in copies) == (kind != "first-column")
    assert copy_of(Example("7", TEXT, "bad"), 1, settings_of(kind), 0).text_pair is None


@given(words=WORDS, kind=st.sampled_from(WORD_KINDS), rate=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_names_digits_and_negations_keep_their_number_and_order(
    words: list[str], kind: AugmentationKind, rate: float, seed: int
) -> None:
    new = changed(" ".join(words), kind, rate, Random(seed)).split()
    assert [word for word in new if word in STAYING] == [word for word in words if word in STAYING]
    assert not (Counter(bare(" ".join(new))) - Counter(bare(" ".join(words)))).keys() & NEGATIONS


@pytest.mark.parametrize("token", STAYING)
def test_words_that_carry_too_much_stay(token: str) -> None:
    assert changeable(token) is None
    assert changeable(f"({token}),") is None


@given(words=WORDS, rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_a_swap_keeps_the_words_and_the_punctuations_places(words: list[str], rate: float, seed: int) -> None:
    old = " ".join(words)
    new = changed(old, "swap", rate, Random(seed))
    assert Counter(bare(new)) == Counter(bare(old))
    assert [re.sub(r"[\w'-]", "", token) for token in new.split() if token not in STAYING] == [
        re.sub(r"[\w'-]", "", token) for token in words if token not in STAYING
    ]


@given(words=WORDS, rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_deletion_only_deletes_and_never_everything(words: list[str], rate: float, seed: int) -> None:
    new = changed(" ".join(words), "deletion", rate, Random(seed)).split()
    assert bool(new) == bool(words)
    places = iter(words)
    assert all(word in places for word in new), "what is left keeps its order"


@given(words=WORDS, rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_insertion_adds_synonyms_and_nothing_else(words: list[str], rate: float, seed: int) -> None:
    new = changed(" ".join(words), "insertion", rate, Random(seed)).split()
    found = {synonym for word in bare(" ".join(words)) if word not in STAYING for synonym in synonyms(word)}
    added = Counter(new) - Counter(words)
    assert added.keys() <= found
    assert added.total() == (max(1, round(rate * len(words))) if found else 0)
    assert not Counter(words) - Counter(new)


@given(words=WORDS, rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_as_many_words_as_asked_are_replaced_each_by_its_synonym(words: list[str], rate: float, seed: int) -> None:
    new = changed(" ".join(words), "synonyms", rate, Random(seed)).split()
    pairs = [(old, now) for old, now in zip(words, new, strict=True) if old != now]
    assert all(bare(now)[0] in synonyms(bare(old)[0]) for old, now in pairs)
    n_replaceable = sum(bool(synonyms(bare(word)[0])) for word in words if word not in STAYING)
    assert len(pairs) == min(max(1, round(rate * len(words))), n_replaceable)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_deletion_takes_each_word_with_the_rate(rate: float) -> None:
    n = 4000
    left = changed(" ".join(["film"] * n), "deletion", rate, Random(0)).split()
    assert binom.ppf(1e-4, n, rate) <= n - len(left) <= binom.ppf(1 - 1e-4, n, rate)


def test_blanks_and_punctuation_stay() -> None:
    text = "(film),\n\n  “automobiles”!  the end"
    new = changed(text, "synonyms", 0.99, Random(1))
    assert re.sub(r"\w+", "_", new) == re.sub(r"\w+", "_", text)
    assert new != text


def test_a_text_without_a_word_that_may_change_is_its_own_copy() -> None:
    assert {changed("Anna, 42", kind, 0.9, Random(0)) for kind in WORD_KINDS} == {"Anna, 42"}


@given(words=WORDS, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_rate_0_changes_nothing_and_no_text_becomes_empty(words: list[str], kind: AugmentationKind, seed: int) -> None:
    text = " ".join(words)
    assert changed(text, kind, 0, Random(seed)) == text
    assert bool(changed(text, kind, 1, Random(seed))) == bool(text)


@given(words=WORDS, kind=st.sampled_from(KINDS), rates=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0))
def test_a_higher_rate_changes_the_same_words_and_more(
    words: list[str], kind: AugmentationKind, rates: tuple[float, float], seed: int
) -> None:
    if kind not in NESTED or not words:
        return
    example = Example("7", " ".join(words), None, first_chars=len(words[0]) + 1 if len(words) > 1 else 0)
    mild, strong = (perturbed(example, kind, rate, [seed]).text.split() for rate in sorted(rates))
    if kind == "truncation":
        assert mild[: len(strong)] == strong
    elif kind == "first-column":
        assert strong in (mild, words[1:])
    elif kind == "punctuation":
        kept = iter(mild)
        assert all(any(after in (before, bare(before)[0]) for before in kept) for after in strong)
    else:
        changes = [
            {i for i, pair in enumerate(zip(words, new, strict=True)) if len(set(pair)) > 1} for new in (mild, strong)
        ]
        assert changes[0] <= changes[1]
        assert all(mild[i] == strong[i] for i in changes[0])


@given(words=WORDS, rate=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_a_typo_is_one_key_inside_a_word(words: list[str], rate: float, seed: int) -> None:
    new = changed(" ".join(words), "typos", rate, Random(seed)).split()
    pairs = [(old, now) for old, now in zip(map(bare, words), map(bare, new), strict=True) if old != now]
    long = [word for word in words if word not in STAYING and len(bare(word)[0]) >= 4]
    assert len(pairs) == min(max(1, round(rate * len(words))), len(long))
    for (old,), (now,) in pairs:
        assert (old[0], old[-1]) == (now[0], now[-1])
        differing = [i for i, both in enumerate(zip(old, now, strict=False)) if len(set(both)) > 1]
        i = differing[0]
        assert now in (
            old[:i] + old[i + 1 :],
            old[:i] + now[i] + old[i + 1 :],
            old[:i] + old[i + 1] + old[i] + old[i + 2 :],
        )


@pytest.mark.parametrize("word", ["nine", "cat", "aaaa", "not", "žluť"])
def test_a_typo_makes_no_negation_and_knows_other_letters(word: str) -> None:
    found = {mistyped(word, Random(seed)) for seed in range(300)}
    assert not found & NEGATIONS - {word}
    assert (len(found) > 1) == (len(word) > 3)


@pytest.mark.parametrize(
    ("kind", "new"),
    [
        ("lower", "“yes”, u.n. said: don't pay $3.5 to @bob - :) http://a.b/c"),
        ("upper", "“YES”, U.N. SAID: DON'T PAY $3.5 TO @BOB - :) HTTP://A.B/C"),
        ("punctuation", "Yes U.N said don't pay $3.5 to @bob http://a.b/c"),
    ],
)
def test_case_and_punctuation_at_rate_1(kind: AugmentationKind, new: str) -> None:
    assert changed("“Yes”, U.N. said: don't pay $3.5 to @bob - :) http://a.b/c", kind, 1, Random(0)) == new


@pytest.mark.parametrize(("rate", "n_left"), [(0, 8), (0.01, 7), (0.25, 6), (0.75, 2), (1, 1)])
def test_truncation_keeps_the_start(rate: float, n_left: int) -> None:
    words = TEXT.split()[:8]
    assert changed(" ".join(words), "truncation", rate, Random(0)).split() == words[:n_left]


@pytest.mark.parametrize(
    ("row", "left"),
    [({"title": "A title", "body": " the body"}, "the body"), ({"title": "", "body": "the body"}, "the body")]
    + [({"title": "A title", "body": blank}, "A title") for blank in ("", "  ")],
)
def test_the_first_column_goes_where_another_is_left(tmp_path: Path, row: dict[str, str], left: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (example,) = data.read_rows(tmp_path / "a.jsonl", config.DataConfig(text=("title", "body")))
    assert perturbed(example, "first-column", 1, [0]).text == left
    assert perturbed(example, "first-column", 0, [0]) == example
    (single,) = data.read_rows(tmp_path / "a.jsonl", config.DataConfig(text="body" if row["body"].strip() else "title"))
    assert perturbed(single, "first-column", 1, [0]) == single


def test_several_kinds_take_turns() -> None:
    settings = settings_of(["upper", "punctuation", "truncation"], rate=1, copies=3)
    examples = [Example(str(i), "two words, here", "x") for i in range(30)]
    found = [example.text for example in with_copies(examples, settings, 0)[30:]]
    whole = {"TWO WORDS, HERE", "two words here", "two"}
    assert all({*found[i::30]} == whole for i in range(30)), "each example meets each kind once"
    assert {*found[:30]} == whole, "and they start at different ones"


def test_every_kind_has_three_rising_strengths() -> None:
    assert set(STRENGTHS) == set(KINDS)
    assert all(0 < mild < moderate < strong <= 1 for mild, moderate, strong in STRENGTHS.values())


def test_inflection_is_carried_over() -> None:
    assert synonyms("automobiles") == ("cars", "motorcars")
    assert synonyms("automobile's") == ("auto's", "car's", "motorcar's")
    assert synonyms("purchases") == ("buys",), "buy is irregular, but not its -s"
    assert synonyms("purchased") == ()
    assert synonyms("helped") == ("aided", "assisted")


@pytest.mark.parametrize("ending", ["s", "ed", "ing"])
def test_a_form_has_the_same_forms_of_its_synonyms(ending: Ending) -> None:
    table = read_table()
    possible: dict[str, set[str]] = {}
    for word, entry in table.items():
        if entry.has(ending) and inflected(word, ending) not in table:
            # Two words may share a form (booty and bootie: booties).
            possible.setdefault(inflected(word, ending), set()).update(inflected(s, ending) for s in entry.synonyms)
    assert len(possible) > 1000
    assert all(set(synonyms(form)) <= found for form, found in possible.items())
    assert sum(bool(synonyms(form)) for form in possible) > len(possible) / 2


def test_the_table_is_sorted_symmetric_and_clean() -> None:
    packed = resources.files("submillion.data.augmentation").joinpath(TABLE).read_bytes()
    assert len(packed) < 1_500_000
    lines = [line for line in gzip.decompress(packed).decode().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines))
    for line in lines:
        part, *words = line.split()
        assert part in "nvar"
        assert words == sorted(set(words))
        assert len(words) > 1
    table = read_table()
    assert all(re.fullmatch("[a-z]{3,}", word) for word in table)
    assert NEGATIONS.isdisjoint(table)
    for word, entry in table.items():
        assert word not in entry.synonyms
        assert all(word in table[synonym].synonyms for synonym in entry.synonyms)


def test_the_notice_of_wordnet_ships_with_the_table() -> None:
    notice = resources.files("submillion.data.augmentation").joinpath("WORDNET-LICENSE.txt").read_text()
    assert "Copyright 2006 by Princeton University" in notice
    assert "THIS SOFTWARE AND DATABASE IS PROVIDED" in notice
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["package-data"]["submillion"]
    assert {f"data/augmentation/{TABLE}", "data/augmentation/WORDNET-LICENSE.txt"} <= set(shipped)


@pytest.mark.parametrize("batch", [{"batch_size": 4}, {"batch_tokens": 40}])
def test_rotating_reads_each_example_once_an_epoch_one_variant_after_the_other(batch: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    n, n_variants = 50, 3
    lengths = rng.integers(1, 12, n * n_variants)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    zeros = np.zeros(offsets[-1], np.uint16)
    ids = tuple(str(i) for i in range(n * n_variants))
    split = TokenizedSplit(zeros, zeros, offsets, np.zeros(len(ids), np.int64), ids, 0, n_variants=n_variants)
    train = config.TrainConfig.model_validate(batch)
    counts = set()
    for epoch in range(5):
        batches = [split.in_epoch(rows, epoch) for rows in batching.training_order(split.epoch_lengths, train, epoch)]
        counts.add(len(batches))
        assert sorted(np.concatenate(batches)) == list(range(epoch % 3 * n, (epoch % 3 + 1) * n))
        if train.batch_tokens is not None:
            assert all(lengths[rows].sum() <= train.batch_tokens for rows in batches)
    assert len(counts) == 1


# Runs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 80)
    train = ["train.epochs=3", "train.batch_size=16", "train.evaluate_every=5", "train.precision=fp32"]
    own = ["augmentation.kind=synonyms", "augmentation.copies=2", "augmentation.rate=0.4"]
    return [
        *train,
        *own,
        f"model.name={encoders['bert']}",
        f"data.source={rows}",
        "data.test=0.2",
        "data.validation=0.2",
    ]


def config_of(base: list[str], out: Path, *more: str) -> Config:
    return config.load(overrides=[*base, f"out={out}", *more])


@pytest.mark.parametrize("placement", ["beside", "rotating"])
def test_a_run_reads_the_copies_in_training_alone(
    base: list[str], tmp_path: Path, placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config_of(base, tmp_path, f"augmentation.placement={placement}")
    splits = data.read(settings.data)
    read: list[list[Example]] = []
    tokenize = batching.tokenize

    def spy(examples: list[Example], *others: Any) -> TokenizedSplit:
        read.append(list(examples))
        return tokenize(examples, *others)

    monkeypatch.setattr(batching, "tokenize", spy)
    run = workflow.train(settings)
    assert read == [with_copies(splits.train, settings.augmentation, 0), splits.validation, splits.test]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    n_steps = sum(line["kind"] == "step" for line in lines)
    n_rows = len(splits.train) * (3 if placement == "beside" else 1)
    assert n_steps == 3 * -(-n_rows // 16)
    assert run.load_predictions("validation").ids == [example.id for example in splits.validation]


@pytest.mark.parametrize(("placement", "kind"), [("beside", "synonyms"), ("rotating", "[typos,truncation,upper]")])
def test_a_paused_run_ends_as_one_that_was_not(base: list[str], tmp_path: Path, placement: str, kind: str) -> None:
    extra = [
        f"augmentation.placement={placement}",
        f"augmentation.kind={kind}",
        "adapter.layers=top:1",
        "model.prefix=true",
    ]
    whole = workflow.train(config_of(base, tmp_path / "whole", *extra))
    settings = config_of(base, tmp_path / "paused", *extra)
    paused = workflow.train(settings, lambda record: record.kind == "step" and record.step == 7)
    assert paused.state == "interrupted"
    ended = workflow.train(settings)
    assert (ended.path / "scores.json").read_bytes() == (whole.path / "scores.json").read_bytes()
    name = "predictions-test.parquet"
    assert (ended.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_settings_of_augmentation_name_another_run(base: list[str], tmp_path: Path) -> None:
    changes = ["kind=swap", "kind=null", "kind=[swap,typos]", "copies=3", "rate=0.2", "placement=rotating"]
    others = [config_of(base, tmp_path, f"augmentation.{change}") for change in changes]
    assert len({config.digest(settings, "") for settings in (*others, config_of(base, tmp_path))}) == 7


@pytest.mark.parametrize(
    "override", ["rate=0", "rate=1.1", "copies=0", "kind=synonym", "kind=[]", "kind=[swap,typo]", "placement=both"]
)
def test_settings_that_make_no_sense_are_refused(base: list[str], tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=rf"augmentation\.{override.split('=')[0]}"):
        config_of(base, tmp_path, f"augmentation.{override}")
    assert runs.list_runs(tmp_path) == []


def test_a_first_column_needs_several(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"first-column, but data\.text is one column"):
        workflow.train(config_of(base, tmp_path, "augmentation.kind=[typos,first-column]"))
    assert runs.list_runs(tmp_path) == []


def test_study_d_augments() -> None:
    settings = config.load(recipe="study-d")
    assert (settings.augmentation.kind, settings.augmentation.placement) == ("synonyms", "beside")


# The preview


def preview(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["data", "augment", *arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_the_preview_shows_what_training_reads(base: list[str], tmp_path: Path, capsys) -> None:
    settings = config_of(base, tmp_path)
    options = [part for override in base for part in ("--set", override)]
    code, text, _ = preview(capsys, *options, "--rows", "4", "--json")
    assert code == 0
    values = json.loads(text)
    examples = data.read(settings.data).train
    made = with_copies(examples, settings.augmentation, settings.train.seed)
    n = len(examples)
    assert [row["text"] for row in values["rows"]] == [example.text for example in examples[:4]]
    for place, row in enumerate(values["rows"]):
        assert [copy["text"] for copy in row["copies"]] == [made[place + n].text, made[place + 2 * n].text]


@pytest.mark.parametrize(
    ("kind", "marks"),
    [
        ("synonyms", ("[-", "{+")),
        ("deletion", ("[-",)),
        ("insertion", ("{+",)),
        ("swap", ("[-", "{+")),
        ("typos", ("[-", "{+")),
        ("truncation", ("[-",)),
    ],
)
def test_the_preview_marks_words(base: list[str], capsys, kind: str, marks: tuple[str, ...]) -> None:
    options = [part for override in base for part in ("--set", override)]
    code, text, _ = preview(capsys, *options, "--kind", kind)
    assert code == 0
    assert all(mark in text for mark in marks)


def test_the_preview_asks_for_a_kind(tmp_path: Path, capsys) -> None:
    code, _, errors = preview(capsys, str(write_csv(tmp_path / "a.csv", 20)))
    assert code == 1
    assert "--kind synonyms" in errors
