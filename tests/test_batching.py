"""Laws of batching: no row is lost or doubled, no token is padding, the order is keyed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion.config import TrainConfig
from submillion.data import Example
from submillion.data.long_texts import Reading
from submillion.model import batching
from submillion.model.backbone import seed_for
from submillion.model.batching import order
from tests.tiny import FAMILIES, TEXTS, make_tokenizer

LABELS = ("bad", "good")
EXAMPLES = [Example(str(i), text, LABELS[i % 2]) for i, text in enumerate(TEXTS)]


def train_of(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate(keys)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_tokenizers_own_without_padding(family: str) -> None:
    tokenizer = make_tokenizer(family)
    split = batching.tokenize(EXAMPLES, tokenizer, LABELS, Reading(12))
    batch = split.batch(np.array([3, 0, 5]))
    for place, row in enumerate([3, 0, 5]):
        expected = tokenizer(TEXTS[row], truncation=True, max_length=12)["input_ids"]
        assert batch.tokens[batch.offsets[place] : batch.offsets[place + 1]].tolist() == expected
    assert batch.label_ids.tolist() == [1, 0, 1]
    assert batch.example_ids == ("3", "0", "5")
    assert batch.n_tokens == int(batch.offsets[-1])
    assert split.n_truncated == sum(len(tokenizer(text)["input_ids"]) > 12 for text in TEXTS) > 0


def test_pairs_carry_their_token_types() -> None:
    tokenizer = make_tokenizer("bert")
    examples = [Example("0", "a good film", "good", text_pair="bad book")]
    batch = batching.tokenize(examples, tokenizer, LABELS, Reading(16)).batch(np.array([0]))
    expected = tokenizer("a good film", "bad book")
    assert batch.tokens.tolist() == expected["input_ids"]
    assert batch.token_types.tolist() == expected["token_type_ids"]
    assert 1 in batch.token_types


def test_rows_without_a_known_label_have_minus_one() -> None:
    split = batching.tokenize([Example("0", "good", None)], make_tokenizer("bert"), LABELS, Reading(16))
    assert split.label_ids.tolist() == [-1]
    assert len(batching.tokenize([], make_tokenizer("bert"), LABELS, Reading(16))) == 0


@given(st.lists(st.integers(2, 40), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_by_rows_holds_each_row_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    train = train_of(batch_size=batch_size, seed=seed)
    batches = batching.training_order(np.array(lengths), train, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == batching.n_batches(np.array(lengths), train)
    assert all(len(rows) == batch_size for rows in batches[:-1])
    again = batching.training_order(np.array(lengths), train, epoch)
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in again]


@given(
    st.lists(st.one_of(st.integers(1, 40), st.just(40), st.just(1)), min_size=1, max_size=1500),
    st.integers(0, 1000),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_an_epoch_by_tokens_holds_each_row_once_within_the_bound(
    lengths: list[int], more: int, seed: int, epoch: int
) -> None:
    sizes = np.array(lengths)
    train = train_of(batch_tokens=int(sizes.max()) + more, seed=seed)
    batches = batching.training_order(sizes, train, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == batching.n_batches(sizes, train)
    assert all(len(rows) and sizes[rows].sum() <= train.batch_tokens for rows in batches)


# 250 tokens are fewer than three of the longest texts: batches of the two rows that always fit.
@pytest.mark.parametrize("cut", [{"batch_size": 4}, {"batch_tokens": 250}, {"batch_tokens": 400}], ids=str)
def test_order_changes_with_seed_and_epoch_and_rows_leave_no_window(cut: dict[str, int]) -> None:
    lengths = np.random.default_rng(0).integers(2, 100, 4000)
    orders = {
        tuple(np.concatenate(batching.training_order(lengths, train_of(**cut, seed=seed), epoch)).tolist())
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(orders) == 3
    batches = batching.training_order(lengths, train_of(**cut), 0)
    spread = np.mean([np.ptp(lengths[rows]) for rows in batches])
    shuffled = np.random.default_rng(seed_for("order", 0, 0)).permutation(4000)
    assert spread < 0.4 * np.mean([np.ptp(lengths[shuffled[i : i + 4]]) for i in range(0, 4000, 4)])
    place = np.argsort(shuffled)
    n, window = len(batches), batching.WINDOW_BATCHES
    if cut == {"batch_tokens": 400}:
        ends = [math.ceil(i * n / (n // window)) for i in range(n // window + 1)]
    else:
        ends = [*range(0, n, window), n]
    places = [place[np.concatenate(batches[start:end])] for start, end in pairwise(ends)]
    assert all(left.max() < right.min() for left, right in pairwise(places))


def test_batches_by_tokens_are_nearly_full_where_many_texts_fit() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.9, 0.4, 20_000), 8, 128).astype(int)
    batches = batching.training_order(lengths, train_of(batch_tokens=4096), 0)
    assert np.mean([lengths[rows].sum() for rows in batches]) > 0.96 * 4096


def test_evaluation_covers_every_row_once_longest_first() -> None:
    split = batching.tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, Reading(32))
    found = np.concatenate(list(batching.evaluation_rows(split.lengths, 4)))
    assert sorted(found.tolist()) == list(range(len(EXAMPLES)))
    lengths = split.lengths[found].tolist()
    assert lengths == sorted(lengths, reverse=True)


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=40), st.integers(1, 20))
def test_evaluation_batches_are_bounded_in_rows_and_in_padded_tokens(lengths: list[int], batch_size: int) -> None:
    sizes = np.array(lengths)
    found = list(batching.evaluation_rows(sizes, batch_size))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    for rows in found:
        assert 1 <= len(rows) <= batch_size
        assert len(rows) * sizes[rows].max() <= order.EVALUATION_TOKENS or len(rows) == 1
