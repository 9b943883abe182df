"""Made splits: stratified, repeatable, independent of the rows' order, without a text on both sides."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submillion import data
from submillion.config import DataConfig
from submillion.data import Example
from submillion.data.duplicates import key_of
from submillion.data.splitting import carve, content_fingerprint, fingerprint
from submillion.errors import DataError
from tests.data import write_csv


def examples(counts: dict[str, int]) -> list[Example]:
    """Rows of distinct texts, `counts` a label."""
    return [Example(f"{label}{i}", f"text {label} {i}", label) for label, n in counts.items() for i in range(n)]


def labels(rows: list[Example]) -> Counter[str | None]:
    return Counter(row.label for row in rows)


class_counts = st.dictionaries(st.sampled_from("abcdefg"), st.integers(2, 40), min_size=2)


@given(class_counts, st.floats(0.01, 0.5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_class_stands_on_both_sides_and_no_row_is_lost(counts: dict[str, int], frac: float, seed: int) -> None:
    rows = examples(counts)
    rest, taken = carve(rows, "validation", frac, len(rows), seed)
    assert len(taken) == max(round(frac * len(rows)), len(counts))
    assert set(labels(rest)) == set(labels(taken)) == set(counts)
    assert sorted(row.id for row in rest + taken) == sorted(row.id for row in rows)


@given(class_counts, st.data())
@settings(max_examples=60, deadline=None)
def test_counts_are_met_exactly_with_shares_within_one_row(counts: dict[str, int], drawn: st.DataObject) -> None:
    rows = examples(counts)
    n = drawn.draw(st.integers(1, len(rows) - len(counts)))
    rest, taken = carve(rows, "validation", n, len(rows), 0)
    assert len(taken) == n
    assert set(labels(rest)) == set(counts)
    if n >= len(counts):
        assert set(labels(taken)) == set(counts)
    if all(n * count / len(rows) >= 1 and count - n * count / len(rows) >= 1 for count in counts.values()):
        assert all(abs(labels(taken)[label] - n * count / len(rows)) <= 1 for label, count in counts.items())


@given(class_counts, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(counts: dict[str, int], rng: random.Random) -> None:
    rows = examples(counts)
    mixed = rng.sample(rows, len(rows))
    before, after = (carve(each, "test", 0.3, len(rows), 0)[1] for each in (rows, mixed))
    assert {row.id for row in before} == {row.id for row in after}
    assert after == [row for row in mixed if row in after], "the rows keep their order"


def test_the_seed_and_the_part_decide() -> None:
    rows = examples({"a": 100, "b": 100})
    first, same, other, test = (
        {row.id for row in carve(rows, part, 50, 200, seed)[1]}
        for part, seed in (("validation", 0), ("validation", 0), ("validation", 1), ("test", 0))
    )
    assert first == same
    assert len(first & other) < 40
    assert len(first & test) < 40


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xy")), min_size=8, max_size=40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_equal_texts_never_stand_on_both_sides(drawn: list[tuple[str, str]], seed: int) -> None:
    repeated = [Example(str(i), f" {word.upper()} " * (i % 2) or word, label) for i, (word, label) in enumerate(drawn)]
    rows = repeated + examples({"x": 10, "y": 10})
    rest, taken = carve(rows, "validation", 0.2, len(rows), seed)
    assert not {key_of(row) for row in rest} & {key_of(row) for row in taken}
    assert set(labels(rest)) == {"x", "y"}


def test_a_class_of_one_repeated_text_stays_in_training() -> None:
    rows = [Example(str(i), "same", "a") for i in range(3)] + examples({"b": 10})
    rest, taken = carve(rows, "validation", 2, len(rows), 0)
    assert labels(rest)["a"] == 3
    assert set(labels(taken)) == {"b"}


def test_large_groups_are_taken_whole_where_nothing_smaller_fits() -> None:
    rows = [Example(f"{i}{j}", f"text {i}", "ab"[i % 2]) for i in range(10) for j in range(4)]
    rest, taken = carve(rows, "validation", 0.05, len(rows), 0)
    assert labels(taken) == {"a": 4, "b": 4}
    assert labels(rest) == {"a": 16, "b": 16}


@pytest.mark.parametrize(("validation", "test"), [(99, None), (50, 49), (0.99, None), (0.5, 0.6), (1, 97)])
def test_too_many_rows_are_refused(tmp_path, validation: float, test: float | None) -> None:
    path = write_csv(tmp_path / "a.csv", 100)
    with pytest.raises(
        DataError, match=r"data\.(validation|test) is .* of 100 rows, and only \d+ can be taken: . of each"
    ):
        data.read(DataConfig(source=str(path), validation=validation, test=test))


def test_the_test_split_does_not_depend_on_the_validation_split(tmp_path) -> None:
    path = str(write_csv(tmp_path / "a.csv", 200))
    few, many = (data.read(DataConfig(source=path, validation=n, test=0.2)) for n in (10, 100))
    assert few.test == many.test
    assert few.test_fingerprint == many.test_fingerprint
    assert few.fingerprint != many.fingerprint
    assert [len(part) for part in (many.train, many.validation, many.test)] == [60, 100, 40]


def test_reading_twice_gives_the_same_splits(tmp_path) -> None:
    path = str(write_csv(tmp_path / "a.csv", 100))
    settings = DataConfig(source=path, test=0.2)
    assert data.read(settings) == data.read(settings)
    assert data.read(settings).test != data.read(settings.model_copy(update={"seed": 1})).test


def test_the_summary_counts_and_holds_no_text(tmp_path) -> None:
    splits = data.read(DataConfig(source=str(write_csv(tmp_path / "a.csv", 100)), test=10))
    summary = splits.summary()
    assert summary["rows"] == {"train": 80, "validation": 10, "test": 10}
    for name, part in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        assert summary["classes"][name] == labels(part)
    assert splits.train[0].text not in str(summary)


ROW = Example("1", "text", "x")


@pytest.mark.parametrize(
    "other",
    [
        [replace(ROW, id="2")],
        [replace(ROW, text="Text")],
        [replace(ROW, label="y")],
        [replace(ROW, text_pair="")],
        [ROW, ROW],
        [],
        [Example("", "1text", "x")],
    ],
)
def test_any_change_changes_the_fingerprint(other: list[Example]) -> None:
    assert fingerprint({"train": [ROW]}) != fingerprint({"train": other})


def test_the_split_and_the_order_are_part_of_the_fingerprint() -> None:
    rows = examples({"a": 2})
    assert fingerprint({"train": rows}) != fingerprint({"train": rows[::-1]})
    assert fingerprint({"train": rows, "test": []}) != fingerprint({"train": [], "test": rows})


def test_a_test_split_is_recognised_whatever_its_form() -> None:
    rows = examples({"a": 3, "b": 2})
    other = [replace(row, id=f"row {row.id}", text=f"{row.text.upper()} ") for row in rows[::-1]]
    assert content_fingerprint(rows) == content_fingerprint(other)
    assert content_fingerprint(rows) != content_fingerprint([*rows[1:], replace(rows[0], label="b")])
    assert content_fingerprint(rows) != content_fingerprint(rows[1:])
