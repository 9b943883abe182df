"""Laws of batching: no row is lost or doubled, no token is padding, the order is keyed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion import batching
from submillion.data import Example
from tests.tiny import FAMILIES, TEXTS, make_tokenizer

LABELS = ("bad", "good")
EXAMPLES = [Example(str(i), text, LABELS[i % 2]) for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_tokenizers_own_without_padding(family: str) -> None:
    tokenizer = make_tokenizer(family)
    split = batching.tokenize(EXAMPLES, tokenizer, LABELS, max_length=12)
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
    batch = batching.tokenize(examples, tokenizer, LABELS, 16).batch(np.array([0]))
    expected = tokenizer("a good film", "bad book")
    assert batch.tokens.tolist() == expected["input_ids"]
    assert batch.token_types.tolist() == expected["token_type_ids"]
    assert 1 in batch.token_types


def test_rows_without_a_known_label_have_minus_one() -> None:
    split = batching.tokenize([Example("0", "good", None)], make_tokenizer("bert"), LABELS, 16)
    assert split.label_ids.tolist() == [-1]
    assert len(batching.tokenize([], make_tokenizer("bert"), LABELS, 16)) == 0


@given(st.lists(st.integers(2, 40), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_holds_each_row_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = batching.training_order(np.array(lengths), batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(rows) == batch_size for rows in batches[:-1])
    again = batching.training_order(np.array(lengths), batch_size, seed, epoch)
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in again]


def test_order_changes_with_seed_and_epoch_and_rows_leave_no_window() -> None:
    lengths = np.random.default_rng(0).integers(2, 100, 4000)
    orders = {
        tuple(np.concatenate(batching.training_order(lengths, 4, seed, epoch)).tolist())
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(orders) == 3
    batches = batching.training_order(lengths, 4, 0, 0)
    spread = np.mean([np.ptp(lengths[rows]) for rows in batches])
    assert spread < 0.4 * np.mean([np.ptp(lengths[i : i + 4]) for i in range(0, 4000, 4)])
    window = batching.WINDOW_BATCHES * 4
    shuffled = batching.training_order(np.ones(4000, dtype=int), 4, 0, 0)
    for start in range(4000 // window):
        part = slice(start * batching.WINDOW_BATCHES, (start + 1) * batching.WINDOW_BATCHES)
        assert set(np.concatenate(batches[part])) == set(np.concatenate(shuffled[part]))


def test_evaluation_covers_every_row_once_longest_first(tmp_path: Path) -> None:
    split = batching.tokenize(EXAMPLES, make_tokenizer("bert"), LABELS, 32)
    found = list(batching.evaluation_batches(split, 4))
    assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == list(range(len(EXAMPLES)))
    lengths = [split.lengths[row] for rows, _ in found for row in rows]
    assert lengths == sorted(lengths, reverse=True)
