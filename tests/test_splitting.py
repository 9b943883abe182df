"""Made splits: stratified, repeatable, independent of the rows' order, without a text on both sides."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

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
        DataError, match=r"data\.(validation|test) is .* of 100 rows, but only \d+ can be taken: . of each"
    ):
        data.read(DataConfig(source=str(path), validation=validation, test=test))


@pytest.mark.parametrize("n", [81, 1000])
def test_more_training_rows_than_there_are_are_refused(tmp_path, n: int) -> None:
    path = write_csv(tmp_path / "a.csv", 100)
    with pytest.raises(DataError) as caught:
        data.read(DataConfig(source=str(path), validation=0.2, train_rows=n))
    wanted = f"data.train_rows is {n}, but there are only 80 training rows: ask for fewer, or null for all"
    assert str(caught.value) == wanted


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


# Groups ---------------------------------------------------------------------------------------------------------------


@st.composite
def grouped(draw: st.DrawFn) -> list[Example]:
    """Rows of two classes in groups of several sizes; some of them have the text of another."""
    n_rows = draw(st.integers(20, 80))
    cells = st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 200))
    found = draw(st.lists(cells, min_size=n_rows, max_size=n_rows))
    return [Example(f"{i}", f"text {text}", label, group=f"g{group}") for i, (group, label, text) in enumerate(found)]


@given(grouped(), st.floats(0.05, 0.5), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_group_and_a_text_are_on_one_side(rows: list[Example], frac: float, seed: int, rng: random.Random) -> None:
    try:
        rest, taken = carve(rows, "validation", frac, len(rows), seed)
    except DataError as error:
        assert "none of the" in str(error)  # noqa: PT017 - of few groups, one may hold each class
        return
    assert taken
    assert sorted(row.id for row in rest + taken) == sorted(row.id for row in rows)
    assert not {row.group for row in rest} & {row.group for row in taken}
    assert not {key_of(row) for row in rest} & {key_of(row) for row in taken}
    assert set(labels(rest)) == set(labels(rows))
    mixed = rng.sample(rows, len(rows))
    assert {row.id for row in carve(mixed, "validation", frac, len(rows), seed)[1]} == {row.id for row in taken}


def test_splits_of_groups_are_as_large_and_as_mixed_as_groups_allow() -> None:
    rng = random.Random(0)
    sizes = [rng.randint(1, 30) for _ in range(100)]
    rows = [
        Example(f"{g} {i}", f"text {g} {i}", "ab"[(g + i) % 4 == 0], group=f"g{g}")
        for g, n in enumerate(sizes)
        for i in range(n)
    ]
    parts = {tuple(row.id for row in carve(rows, "validation", 0.2, len(rows), seed)[1]) for seed in range(5)}
    assert len(parts) == 5  # the seed decides
    for seed in range(5):
        _, taken = carve(rows, "validation", 0.2, len(rows), seed)
        assert abs(len(taken) - 0.2 * len(rows)) <= 5
        assert all(abs(labels(taken)[label] / labels(rows)[label] - 0.2) < 0.01 for label in "ab")


def write_rows(path: Path, columns: str, rows: list[tuple[object, ...]]) -> str:
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def test_a_file_with_groups_is_split_by_them_and_says_what_came_of_it(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], f"c{i // 6}") for i in range(120)]
    source = write_rows(tmp_path / "a.csv", "text,label,customer", rows)
    splits = data.read(DataConfig(source=source, group="customer", test=0.2, train_rows=50))
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len({row.group for row in part}) for part in parts) == len({row.group for part in parts for row in part})
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50, 12, 24)
    assert splits.warnings[0] == (
        "data.test is 0.2, 24 of 120 rows, and 24 were taken: 4 of 20 groups (20.0 % of the rows of each class); "
        "groups are not split"
    )
    assert data.read(DataConfig(source=source, test=0.2)).test != splits.test


def test_groups_that_cannot_be_parted_are_refused(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], "one" if i < 30 else "") for i in range(31)]
    source = write_rows(tmp_path / "a.csv", "text,label,customer", rows)
    with pytest.raises(DataError, match=r"row 31 .line 32.: the group .column 'customer'. is missing"):
        data.read(DataConfig(source=source, group="customer"))
    with pytest.raises(DataError, match="none of the 1 groups can be taken"):
        data.read(DataConfig(source=source, group="customer", drop=("bad-rows",)))
    with pytest.raises(DataError, match=r"no column 'custumer'.*data.group=customer"):
        data.read(DataConfig(source=source, group="custumer"))


def test_files_that_share_a_group_are_refused(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], f"c{i // 5}") for i in range(40)]
    source = write_rows(tmp_path / "train.csv", "text,label,customer", rows)
    other = write_rows(
        tmp_path / "test.csv", "text,label,customer", [("text 0", "a", "c0"), ("new", "a", "c1"), ("x", "b", "z")]
    )
    with pytest.raises(DataError) as caught:
        data.read(DataConfig(source=source, test=other, group="customer"))
    text, group = caught.value.problems
    assert "row 1 (line 2): 1 of 3 rows is also in" in text
    assert group == (
        f"{other}, row 2 (line 3): 1 of 3 rows is in 1 group (column 'customer', such as 'c1') that {source} also has "
        "(the first in row 6 (line 7)): scores on groups already seen are too high; move each group into one of the "
        "two, or leave data.group out"
    )
    write_rows(tmp_path / "test.csv", "text,label", [("new", "a"), ("x", "b")])
    warned = data.read(DataConfig(source=source, test=other, group="customer")).warnings
    assert f"{other} has no column 'customer' (data.group): it may share groups with the training rows" in warned


# A column of splits ---------------------------------------------------------------------------------------------------


def test_a_column_says_which_split_a_row_is_in(tmp_path: Path) -> None:
    said = ["train", "Training", " TRAIN ", "train", "dev", "VAL", "Test", "testing"]
    rows = [(f"text {i}", "ab"[i % 2], each) for i, each in enumerate(said * 2)]
    splits = data.read(DataConfig(source=write_rows(tmp_path / "a.csv", "text,label,part", rows), split="part"))
    ids = {name: [int(row.id) % 8 for row in getattr(splits, name)] for name in ("train", "validation", "test")}
    assert ids == {"train": [0, 1, 2, 3] * 2, "validation": [4, 5] * 2, "test": [6, 7] * 2}


@pytest.mark.parametrize("said", ["train training", "validation valid val dev eval", "test"])
def test_splits_have_their_usual_names(tmp_path: Path, said: str) -> None:
    rows = [(f"text {i}", "ab"[i % 2], "train") for i in range(20)]
    rows += [(f"more {each} {i}", "ab"[i], each) for each in said.split() for i in range(2)]
    splits = data.read(DataConfig(source=write_rows(tmp_path / "a.csv", "text,label,part", rows), split="part"))
    name = said.split()[0]
    found = [row for row in getattr(splits, name) if row.text.startswith("more")]
    # Without validation rows a tenth of the training rows is taken for it.
    assert len(found) == 2 * len(said.split()) or (name == "train" and len(splits.validation) == 2)


def test_unknown_splits_are_refused_with_their_counts(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], "train" if i < 6 else "holdout" if i < 9 else "") for i in range(10)]
    source = write_rows(tmp_path / "a.csv", "text,label,part", rows)
    with pytest.raises(DataError) as caught:
        data.read(DataConfig(source=source, split="part"))
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{source}: column 'part' (data.split) is 'holdout' in 3 rows, empty in 1 row: allowed are train, training, "
    )
    with pytest.raises(DataError, match="no column 'fold'"):
        data.read(DataConfig(source=source, split="fold"))
    with pytest.raises(ValueError, match="leave one of them out"):
        DataConfig(source=source, split="part", test="test.csv")


def test_splits_of_a_column_that_share_a_group_are_refused(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], "train" if i < 15 else "test", f"c{i // 10}") for i in range(20)]
    source = write_rows(tmp_path / "a.csv", "text,label,part,customer", rows)
    with pytest.raises(DataError, match=r"\(test\), rows 16, .* are in 1 group .* that .*\(train\) also has"):
        data.read(DataConfig(source=source, split="part", group="customer"))


def test_other_labelled_rows_need_neither_column(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.csv", "text,label", [("fine", "a")])
    assert len(data.read_rows(source, DataConfig(split="part", group="customer"), ("a", "b"))) == 1
