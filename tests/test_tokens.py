"""Laws of token ids that are kept: found ones are what the tokenizer makes, and nothing else is ever found."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.data import Example, cache
from submillion.data.long_texts import Reading
from submillion.data.tokens import warnings
from submillion.model.batching import TokenizedSplit, tokenize, tokens
from tests.tiny import FAMILIES, TEXTS, make_tokenizer

LABELS = ("bad", "good")
EXAMPLES = [Example(str(i), text, LABELS[i % 2]) for i, text in enumerate(TEXTS)]
PAIRS = [replace(example, text_pair=TEXTS[-1 - i]) for i, example in enumerate(EXAMPLES)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that keeps even these few rows."""
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "_CACHED_ROWS", 1)
    return tmp_path / "cache" / "tokens"


def assert_same(found: TokenizedSplit, made: TokenizedSplit) -> None:
    for field in fields(TokenizedSplit):
        one, other = getattr(found, field.name), getattr(made, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype, field.name
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name


def fresh(examples: list[Example], tokenizer: Any, max_length: int = 12) -> TokenizedSplit:
    """The split made without a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_CACHED_ROWS", 10**9)
        return tokenize(examples, tokenizer, LABELS, Reading(max_length))


def found(examples: list[Example], tokenizer: Any, max_length: int = 12) -> TokenizedSplit:
    """The split from the cache; the tokenizer must not be asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_encode", lambda *_: pytest.fail("tokenised again"))
        return tokenize(examples, tokenizer, LABELS, Reading(max_length))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("examples", [EXAMPLES, PAIRS], ids=["single", "pairs"])
def test_what_is_found_is_what_is_made_to_the_bit(family: str, examples: list[Example]) -> None:
    made = fresh(examples, make_tokenizer(family))
    assert_same(tokenize(examples, make_tokenizer(family), LABELS, Reading(12)), made)
    assert_same(found(examples, make_tokenizer(family)), made)


def test_a_large_vocabulary_keeps_its_ids() -> None:
    tokenizer = make_tokenizer("bert")
    tokenizer.add_tokens([f"<{i}>" for i in range(2**16)])
    examples = [Example("0", f"good <{2**16 - 1}>", "good")]
    tokenize(examples, tokenizer, LABELS, Reading(12))
    assert found(examples, tokenizer).tokens.max() == len(tokenizer) - 1 >= 2**16


def test_earlier_use_of_the_tokenizer_does_not_change_the_key() -> None:
    tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12))
    used = make_tokenizer("bert")
    used(["good", "a film"], truncation=True, max_length=5, padding=True)
    assert_same(found(EXAMPLES, used), fresh(EXAMPLES, make_tokenizer("bert")))


def _truncating_left() -> Any:
    tokenizer = make_tokenizer("bert")
    tokenizer.truncation_side = "left"
    return tokenizer


def _splitting_specials() -> Any:
    tokenizer = make_tokenizer("bert")
    tokenizer.split_special_tokens = True
    return tokenizer


def _with_a_word() -> Any:
    tokenizer = make_tokenizer("bert")
    tokenizer.add_tokens(["zebra"])
    return tokenizer


@pytest.mark.parametrize(
    ("examples", "tokenizer", "max_length"),
    [
        ([replace(EXAMPLES[0], text="a good film."), *EXAMPLES[1:]], make_tokenizer("bert"), 12),
        (EXAMPLES[::-1], make_tokenizer("bert"), 12),
        (EXAMPLES[:-1], make_tokenizer("bert"), 12),
        (PAIRS, make_tokenizer("bert"), 12),
        ([replace(example, text_pair="") for example in EXAMPLES], make_tokenizer("bert"), 12),
        (EXAMPLES, make_tokenizer("bert"), 11),
        (EXAMPLES, make_tokenizer("roberta"), 12),
        (EXAMPLES, _truncating_left(), 12),
        (EXAMPLES, _splitting_specials(), 12),
        (EXAMPLES, _with_a_word(), 12),
    ],
    ids="text order rows pairs empty-pairs max_length tokenizer side specials vocabulary".split(),
)
def test_whatever_changes_the_tokens_has_another_key(
    examples: list[Example], tokenizer: Any, max_length: int, place: Path
) -> None:
    tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12))
    made = tokenize(examples, tokenizer, LABELS, Reading(max_length))
    assert len(list(place.iterdir())) == 2
    assert_same(made, fresh(examples, tokenizer, max_length))


def test_text_that_moves_to_the_second_text_has_another_key(place: Path) -> None:
    for first, second in (("good film", "bad"), ("good", "film bad"), ("bad", "good film")):
        tokenize([Example("0", first, None, second)], make_tokenizer("bert"), LABELS, Reading(12))
    assert len(list(place.iterdir())) == 3


def test_relabelled_rows_are_found_and_have_the_new_labels_and_ids() -> None:
    tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12))
    relabelled = [Example(f"new {i}", example.text, "good") for i, example in enumerate(EXAMPLES)]
    split = found(relabelled, make_tokenizer("bert"))
    assert split.label_ids.tolist() == [1] * len(EXAMPLES)
    assert split.example_ids == tuple(example.id for example in relabelled)


@pytest.mark.parametrize(
    "file", ["tokens.npy", "token_types.npy", "offsets.npy", "is_truncated.npy", "submillion-cache.json"]
)
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"")], ids=["gone", "empty"])
def test_a_damaged_entry_is_made_again(file: str, damage: Any, place: Path) -> None:
    made = tokenize(PAIRS, make_tokenizer("bert"), LABELS, Reading(12))
    (entry,) = place.iterdir()
    damage(entry / file)
    assert_same(tokenize(PAIRS, make_tokenizer("bert"), LABELS, Reading(12)), made)
    assert_same(found(PAIRS, make_tokenizer("bert")), made)


@pytest.mark.parametrize("file", ["tokens.npy", "token_types.npy"])
def test_an_entry_that_another_process_removes_meanwhile_is_made_again(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenize(PAIRS, make_tokenizer("bert"), LABELS, Reading(12))

    def find_and_lose(kind: str, key: str) -> Path | None:
        place = find(kind, key)
        assert place is not None
        (place / file).unlink()
        return place

    find = cache.find
    monkeypatch.setattr(cache, "find", find_and_lose)
    assert_same(tokenize(PAIRS, make_tokenizer("bert"), LABELS, Reading(12)), made)


def test_without_a_writable_cache_a_note_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    split = tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12))
    (note,) = split.notes
    assert str(tmp_path / "file") in note
    assert_same(replace(split, notes=()), fresh(EXAMPLES, make_tokenizer("bert")))


def test_a_full_disk_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    (note,) = tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12)).notes
    assert "No space left on device" in note
    assert list(place.iterdir()) == []


def test_a_handful_of_rows_is_not_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SUBMILLION_CACHE", str(place.parent))
    tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(12))
    assert not place.exists()


# What an encoder sees of rows -----------------------------------------------------------------------------------------


def sentences(splits: dict[str, list[str]], family: str, max_length: int = 6) -> list[str]:
    """What is said of texts, by the tokens that trainings and predictions read."""
    tokenizer = make_tokenizer(family)
    rows = {name: [Example(str(i), text, None) for i, text in enumerate(texts)] for name, texts in splits.items()}
    return warnings({name: (some, fresh(some, tokenizer, max_length).seen(tokenizer)) for name, some in rows.items()})


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "mpnet"])
def test_rows_without_a_known_token_are_counted(family: str) -> None:
    (said,) = sentences({"train": ["a good film", "\U0001f600", "\u4e2d", "\U0001f600 \u4e2d", "bad"]}, family)
    assert said == "3 of 5 train rows (60.0 %) have no token that the encoder knows: they all look the same to it"


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_differ_beyond_the_cut_are_counted_in_a_split_and_across(family: str) -> None:
    start = "the market in the world"
    said = sentences(
        {"train": [f"{start} news", f"{start} game", "bad"], "validation": [f"{start} film", "great"]}, family
    )
    assert [each.partition(":")[0] for each in said] == [
        "1 of 3 train rows (33.3 %) has the same tokens as an earlier row with another text",
        "1 of 2 validation rows (50.0 %) has the same tokens as a train row with another text",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_and_rows_that_are_told_apart_are_no_finding(family: str) -> None:
    assert sentences({"train": ["bad", "bad", "bad ", "great"], "validation": ["good"]}, family, 12) == []
