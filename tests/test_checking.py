"""Copies, contradictions and classes: what is found, and what is never found by mistake."""

from __future__ import annotations

import random
import time
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion import data
from submillion.config import DataConfig
from submillion.data import Example, checking, reading
from submillion.data.duplicates import NEAR_SHARE, key_of, near_groups, normalized
from submillion.data.long_texts import Reading
from submillion.data.repeats import near_warnings
from submillion.data.tables import table_of
from submillion.errors import DataError

WORDS = [f"word{i}" for i in range(500)]


def example(text: str, label: str | None = "x", pair: str | None = None) -> Example:
    return Example("0", text, label, pair)


def rows(origin: str, *pairs: tuple[str, str]) -> reading.Rows:
    problems: list[str] = []
    table = table_of(origin, {"text": [text for text, _ in pairs], "label": [label for _, label in pairs]})
    found = reading.examples_of(table, DataConfig(), problems)
    assert not problems
    return found


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


@given(st.text(st.characters(codec="ascii")))
def test_case_and_white_space_do_not_count(text: str) -> None:
    assert normalized(text.upper()) == normalized(text.lower()) == normalized(f"\t{text.replace(' ', '  ')}\n")


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_forms_do_not_count(form: str) -> None:
    text = "Ça été ﬁne ＡＢＣ Å ß ①"
    assert normalized(unicodedata.normalize(form, text)) == normalized(text)


def test_a_pair_differs_from_its_texts_joined() -> None:
    assert len({key_of(example("a b")), key_of(example("a", pair="b")), key_of(example("b", pair="a"))}) == 3


def sentence(rng: random.Random, n: int = 20) -> str:
    return " ".join(rng.sample(WORDS, n))


def test_a_changed_word_in_twenty_is_near_and_other_texts_are_not() -> None:
    rng = random.Random(0)
    originals = [sentence(rng) for _ in range(300)]
    changed = [" ".join([*text.split()[:-1], "another"]) for text in originals]
    groups = near_groups([*originals, *changed])
    found = (groups[:300] == groups[300:]).mean()
    assert found > 0.97, "20 of 22 words are shared, 0.905"
    assert len(set(groups[:300].tolist())) == 300


def test_order_and_marks_do_not_part_near_texts() -> None:
    groups = near_groups(["so good, really!", "really so good", "so bad, really!", ":)", ":("]).tolist()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4


@given(st.lists(st.sampled_from(["a b c d e", "a b c d e f", "x y", "x y z", "", "!"]), min_size=0, max_size=8))
def test_equal_texts_are_in_one_group_and_a_group_s_words_are_near(keys: list[str]) -> None:
    groups = near_groups(keys).tolist()
    for i, left in enumerate(keys):
        for j, right in enumerate(keys):
            ours, theirs = set(left.split()), set(right.split())
            if left == right:
                assert groups[i] == groups[j]
            elif groups[i] == groups[j]:
                assert len(ours & theirs) / len(ours | theirs) >= NEAR_SHARE


def test_near_texts_are_found_in_time() -> None:
    rng = random.Random(0)
    keys = [sentence(rng, 30) for _ in range(10_000)]
    start = time.perf_counter()
    near_groups(keys)
    assert time.perf_counter() - start < 3


def test_rows_in_two_splits_are_counted_and_placed(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("text,label\none,x\ntwo,y\nthree,x\nfour,y\n")
    (tmp_path / "test.csv").write_text("text,label\n  ONE,x\nnew,y\nfoUr,y\n")
    with pytest.raises(DataError) as caught:
        data.read(DataConfig(source=str(tmp_path), validation=2))
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{tmp_path}/test.csv, rows 1, 3 (lines 2, 4): 2 of 3 rows are also in {tmp_path}/train.csv, "
        "ignoring case and white space (the first in row 1 (line 2))"
    )


def test_near_rows_in_two_splits_are_a_warning(tmp_path) -> None:
    rng = random.Random(0)
    texts = [sentence(rng) for _ in range(20)]
    lines = [f"{text},{'xy'[i % 2]}" for i, text in enumerate(texts)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "test.csv").write_text("text,label\n" + f"{texts[0]} !,x\n{sentence(rng)},y\n")
    warnings = data.read(DataConfig(source=str(tmp_path), validation=2)).warnings
    assert sum("1 of 2 test rows (50.0 %) nearly repeats rows of" in warning for warning in warnings) == 1


def test_rows_that_nearly_repeat_others_of_their_split_are_a_warning_unless_they_share_a_group() -> None:
    rng = random.Random(0)
    texts = [sentence(rng, 30) for _ in range(20)]
    texts += [f"{texts[0]} {word}" for word in ("one", "two", "three", "four")]
    alone = [Example(str(i), text, "x") for i, text in enumerate(texts)]
    together = [replace(each, group="0" if each.text.startswith(texts[0]) else each.id) for each in alone]
    train = [Example("t", sentence(rng), "x")]
    (warning,) = near_warnings({"train": train, "validation": alone})
    assert "5 of 24 validation rows (20.8 %) nearly repeat other such rows" in warning
    assert "data.group" in warning
    assert near_warnings({"train": train, "validation": together}) == []
    assert near_warnings({"train": alone, "validation": train}) == [], "training rows have no intervals"


def test_shared_rows_are_found_between_each_two_splits() -> None:
    splits = {
        "train": rows("train", ("a", "x"), ("b", "y"), ("a", "x")),
        "validation": rows("validation", ("c", "x"), ("B", "y")),
        "test": rows("test", ("C", "x"), ("A", "y"), ("d", "y")),
    }
    assert checking.shared_rows(splits, key_of) == {
        ("train", "validation"): [(1, 1)],
        ("train", "test"): [(0, 1)],
        ("validation", "test"): [(0, 0)],
    }


def test_one_class_and_small_classes_are_problems() -> None:
    problems: list[str] = []
    checking.check_classes(rows("a.csv", ("a", "x"), ("b", "x")), problems, DataConfig())
    assert problems[0].startswith("a.csv: every row has the label 'x': at least 2 classes are needed")
    problems.clear()
    checking.check_classes(rows("a.csv", ("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")), problems, DataConfig())
    (problem,) = problems
    assert problem.startswith("a.csv, rows 2, 4: classes 'y', 'z' have 1 row each: at least 2 are needed")
    problems.clear()
    checking.check_classes(rows("a.csv", ("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")), problems, DataConfig())
    assert problems == []


def test_contradictions_are_a_warning() -> None:
    (warning,) = checking.conflict_warning(rows("a.csv", ("a", "x"), ("b", "y"), ("A ", "y")))
    assert warning.startswith("a.csv: 1 text occurs with different labels (rows 1, 3)")
    assert checking.conflict_warning(rows("a.csv", ("a", "x"), ("a", "x"))) == []
    several = rows("a.csv", ("a", "x"), ("b", "y"), ("a", "y"), ("b", "x"))
    (warning,) = checking.conflict_warning(several)
    assert warning.startswith("a.csv: 2 texts occur with different labels (the first in rows 1, 3)")


def test_census_in_words() -> None:
    texts = [
        ("one", "x"),
        ("ONE", "x"),
        ("one two three four five", "y"),
        ("five four three two one!", "x"),
        ("ONE", "y"),
    ]
    census = checking.census([example(*pair) for pair in texts], Reading(128))
    assert census.n_rows == 5
    assert census.classes == {"x": 3, "y": 2}
    assert (census.unit, census.n_truncated) == ("words", None)
    assert census.lengths == {"min": 1, "median": 1, "mean": 2.6, "p95": 5, "max": 5}
    assert (census.n_duplicates, census.n_near, census.n_conflicts) == (2, 1, 1)


def test_census_in_tokens() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 1)]
    )
    examples = [example("a b c"), example("a", pair="b c d"), example("a")]
    census = checking.census(examples, Reading(4), checking.tokenized(examples, Reading(4), tokenizer)[0])
    assert (census.unit, census.lengths["min"], census.lengths["max"], census.n_truncated) == ("tokens", 2, 5, 1)


def test_census_of_nothing() -> None:
    assert checking.census([], Reading(128)).n_rows == 0


def test_rows_that_were_read_are_kept_until_their_file_changes(tmp_path):
    def write(texts):
        lines = [f"{text},{'ab'[i % 2]}" for i, text in enumerate(texts)]
        (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(lines) + "\n")

    write(f"this is text {i}" for i in range(40))
    settings = DataConfig(source=str(tmp_path / "train.csv"), validation=4)
    first = data.read(settings)
    assert data.read(settings) is first
    write(f"this is line {i}" for i in range(41))
    again = data.read(settings)
    assert len(again.train) == len(first.train) + 1
    assert again.fingerprint != first.fingerprint
