"""One label in several spellings is a warning that names them; nothing is changed, and other labels are let alone."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from submillion import data
from submillion.config import DataConfig
from submillion.data.long_texts import Reading
from submillion.data.spellings import spelling_warnings

SAME = {
    "case": ("neg", "NEG"),
    "blanks": ("very good", "very  good"),
    "a non-breaking blank": ("very good", "very\xa0good"),
    "composed or not": ("café", unicodedata.normalize("NFD", "café")),
    "zero width": ("neg", "neg\u200b"),
    "a byte order mark": ("neg", "\ufeffneg"),
    "full width": ("neg", "ｎｅｇ"),
    "Cyrillic": ("neg", "nеg"),
    "Greek": ("pos", "pοs"),
    "punctuation": ("drama", "drama."),
    "quotes": ("drama", '"drama"'),
    "dashes": ("sci-fi", "sci–fi"),
    "a dash or a blank": ("sci-fi", "sci fi"),
    "an underscore": ("sci fi", "sci_fi"),
    "joined": ("sci fi", "SciFi"),
    "accents": ("cafe", "café"),
    "zeros": ("7", "07"),
    "an emoji's variation": ("❤", "❤\ufe0f"),
    "a ligature": ("fine", "ﬁne"),
    "HTML": ("R&B", "R&amp;B"),
}
DIFFERENCES = {
    "zero width": "invisible characters",
    "composed or not": "invisible characters",
    "full width": "the width or form of characters",
    "a ligature": "the width or form of characters",
    "HTML": "characters that HTML writes as codes",
    "case": "case",
    "zeros": "zeros at the beginning",
    "Greek": "characters that look alike",
}
OTHER = [
    ("C", "C++", "C#"),
    ("1", "-1", "10", "1.5", "15"),
    ("18-24", "1824"),
    (":)", ":("),
    ("pos", "neg", "neutral"),
    ("की", "का"),
    ("👍", "👎"),
    ("a|b", "a", "b"),
]


@pytest.mark.parametrize("case", SAME)
def test_spellings_of_one_label_are_named_with_their_rows(case: str) -> None:
    one, other = SAME[case]
    (warning,) = spelling_warnings("a.csv", {one: 5, "else": 7, other: 1})
    assert warning.startswith("a.csv: labels that may be one class: ")
    assert "(5 rows)" in warning
    assert "(1 row)" in warning
    assert "else'" not in warning
    named = warning.partition("one class: ")[2].partition(", which")[0].split(" and ")
    assert len(set(named)) == 2
    assert all(name.isprintable() for name in named)


@pytest.mark.parametrize("case", DIFFERENCES)
def test_the_warning_says_in_what_they_differ(case: str) -> None:
    (warning,) = spelling_warnings("a.csv", dict.fromkeys(SAME[case], 2))
    assert f", which differ in {DIFFERENCES[case]}: if they are" in warning


@pytest.mark.parametrize("labels", OTHER, ids=str)
def test_different_labels_are_let_alone(labels: tuple[str, ...]) -> None:
    assert spelling_warnings("a.csv", dict.fromkeys(labels, 3)) == []


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "None", "null", "n/a", "N/A", "-", "missing"])
def test_words_for_missing_labels_are_classes_and_are_said(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{['pos', 'neg', word][i % 3]}\n" for i in range(12)))
    found = data.survey(DataConfig(source=str(path)), Reading(8))
    assert found.censuses["train"].classes[word] == 4
    (warning,) = found.warnings
    assert f"{word!r} (4 rows) is a class here, but often a word for a missing label" in warning


def test_many_pairs_are_counted() -> None:
    labels = {f"{word}{mark}": 2 for word in "abcdefgh" for mark in ("", ".")}
    (warning,) = spelling_warnings("a.csv", labels)
    assert "; and 3 more: if they are" in warning


def test_a_run_keeps_the_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{['pos', 'Pos'][i % 2]}\n" for i in range(12)))
    splits = data.read(DataConfig(source=str(path)))
    assert splits.labels == ("Pos", "pos")
    assert any("'pos' (6 rows) and 'Pos' (6 rows), which differ in case" in told for told in splits.warnings)
