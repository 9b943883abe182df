"""Laws of words: blanks part them where a script has blanks, characters are words where it has none."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion import words
from submillion.config import AugmentationKind
from submillion.data import Example, Splits, augmentation
from submillion.data.duplicates import near_groups, normalized
from submillion.judging.metrics import Predictions
from submillion.judging.shift import drift
from submillion.reports import baselines

# Of each script that writes words together: characters that stand for themselves.
JOINED = {
    "han": "天地玄黄宇宙洪荒日月盈昃",
    "kana": "あいうえおかきくけこさし",
    "thai": "กขคฆงจฉชซญดต",
    "khmer": "កខគឃងចឆជឈញដឋ",
}
# Of scripts with blanks and vowel signs that are marks: words that differ in these alone.
MARKED = {
    "hindi": "की का कि कु कू के कै को कौ कं",
    "telugu": "కా కి కీ కు కూ కె కే కై కొ కో",
    "tamil": "கா கி கீ கு கூ கெ கே கை கொ கோ",
}


def texts_of(script: str, n: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    if script in JOINED:
        return ["".join(rng.choices(JOINED[script], k=12)) for _ in range(n)]
    signs = MARKED[script].split()
    return [" ".join("".join(rng.choices(signs, k=3)) for _ in range(12)) for _ in range(n)]


@given(st.text(st.sampled_from("ab.Z,'-9_ é\n“"), max_size=30))
def test_where_blanks_part_words_they_are_what_they_always_were(text: str) -> None:
    assert words.words(text) == words.terms(text) == re.findall(r"\w+", text) or not re.search(r"\w", text)
    if re.search(r"\w", text) or text.isascii():
        assert words.tokens(text) == re.findall(r"(\S+)(\s*)", text)


@given(st.text(st.sampled_from("aé ก็เខ្ញុំ天。“”好की\u200dあ😀,1\n"), max_size=20))
def test_tokens_joined_are_the_text(text: str) -> None:
    found = words.tokens(text)
    assert "".join(token + blanks for token, blanks in found) == text.lstrip() or text.isspace()
    assert all(token and not token.isspace() and not blanks.strip() for token, blanks in found)


@pytest.mark.parametrize("script", JOINED)
def test_characters_are_words_where_words_are_written_together(script: str) -> None:
    (text,) = texts_of(script, 1)
    assert words.words(text) == list(text) == [token for token, _ in words.tokens(text)]
    assert set(words.terms(text)) == {*text, *map("".join, pairwise(text))}


@pytest.mark.parametrize("script", MARKED)
def test_vowel_signs_do_not_end_a_word(script: str) -> None:
    assert words.words(MARKED[script]) == MARKED[script].split()


def test_emoji_alone_are_words() -> None:
    assert words.words("😀👍🏽 😀") == ["😀", "👍🏽", "😀"]
    assert words.words("Great😀") == ["Great"]
    assert words.words("\u200b\u200b") == []


@pytest.mark.parametrize("script", [*JOINED, *MARKED])
def test_other_texts_of_few_signs_are_no_near_copies_and_changed_copies_are(script: str) -> None:
    texts = texts_of(script, 60)
    assert len(set(near_groups([normalized(text) for text in texts]))) == 60
    blank = "" if script in JOINED else " "
    long = blank.join(texts[:6])
    nearly = long + blank + (texts[6].split()[0] if script in MARKED else JOINED[script][0])
    assert len(set(near_groups([normalized(long), normalized(nearly)]))) == 1


@pytest.mark.parametrize("script", [*JOINED, *MARKED])
@pytest.mark.parametrize("kind", ["truncation", "deletion", "swap"])
def test_texts_of_any_script_can_be_changed(script: str, kind: AugmentationKind) -> None:
    examples = [Example(str(i), text, "a") for i, text in enumerate(texts_of(script, 20))]
    n_changed = sum(augmentation.perturbed(each, kind, 0.4, [each.id]).text != each.text for each in examples)
    assert n_changed >= 18


@pytest.mark.parametrize("script", MARKED)
def test_a_typing_mistake_leaves_whole_characters(script: str) -> None:
    word = "".join(MARKED[script].split()[:6])
    for seed in range(10):
        new = augmentation.changed(word, "typos", 1.0, Random(seed))
        assert new != word
        assert set(words.characters(new)) <= set(words.characters(word))


def _many_classes(n_classes: int, n_rows: int) -> tuple[Splits, Predictions]:
    examples = [Example(str(i), f"k{i % n_classes} a b{i % 7}", str(i % n_classes)) for i in range(2 * n_rows)]
    labels = tuple(map(str, range(n_classes)))
    truth = np.array([int(each.label or "") for each in examples[n_rows:]])
    splits = Splits(examples[:n_rows], examples[n_rows:], [], labels, labels, "", None, ())
    return splits, Predictions([each.id for each in splits.validation], truth, np.eye(n_classes)[truth])


def test_a_baseline_of_more_classes_than_half_the_rows_warns_of_nothing() -> None:
    splits, predictions = _many_classes(40, 60)
    baseline = baselines.words(splits, "validation", predictions)
    assert baseline is not None
    assert baseline.name == "words + logistic regression"
    assert baseline.accuracy.value > 0.9


def test_many_classes_and_words_are_left_to_naive_bayes() -> None:
    """Of logistic regression 5,000 words times 500 classes would be 2.5 million weights, at 25 numbers each."""
    splits, predictions = _many_classes(500, 2000)
    rare = [Example(f"x{i}", f"k{i % 500} rare{i}", str(i % 500)) for i in range(5000)]
    baseline = baselines.words(replace(splits, train=[*splits.train, *rare]), "validation", predictions)
    assert baseline is not None
    assert baseline.name == "words + naive Bayes"
    assert baseline.accuracy.value > 0.9


@pytest.mark.parametrize("script", [*JOINED, *MARKED])
def test_the_words_baseline_and_drift_see_what_a_script_says(script: str) -> None:
    """The class is told by which of two signs a text has, somewhere among signs of both classes."""
    parts = list(JOINED[script]) if script in JOINED else MARKED[script].split()
    blank, rng = "" if script in JOINED else " ", Random(0)
    examples = []
    for i in range(160):
        signs = [*rng.choices(parts[2:], k=9), parts[i % 2]]
        rng.shuffle(signs)
        examples.append(Example(str(i), blank.join(signs), "ab"[i % 2]))
    splits = Splits(examples[:100], examples[100:], [], ("a", "b"), ("a", "b"), "", None, ())
    truth = np.array(["ab".index(each.label or "") for each in splits.validation])
    predictions = Predictions([each.id for each in splits.validation], truth, np.eye(2)[truth])
    baseline = baselines.words(splits, "validation", predictions)
    assert baseline is not None
    assert baseline.accuracy.value > 0.9
    sorted_by_class = [[each.text for each in examples if each.label == label] for label in "ab"]
    found = drift(*(sorted_by_class[i] for i in (0, 0, 1)))
    assert found.auc is not None
    assert found.auc.value > 0.9
    assert found.lengths[0].median == 10
