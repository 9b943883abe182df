"""Laws of the derived length of a training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submillion import config
from submillion.model import batching
from submillion.training.steps import Length
from submillion.training.steps import length as length_of


@given(st.integers(2, 10**6), st.integers(1, 10**5), st.integers(1, 512), st.integers(1, 8))
def test_a_derived_length_is_whole_epochs_within_its_limits(
    n: int, n_validation: int, batch: int, accumulation: int
) -> None:
    train = config.load(overrides=[f"train.batch_size={batch}", f"train.accumulation={accumulation}"]).train
    length = length_of(train, np.ones(n, dtype=int), n_validation)
    epochs = length.n_steps / length.n_epoch_steps
    assert epochs == int(epochs)
    assert 1 <= epochs <= 10
    assert epochs == 10 or length.n_steps >= 600
    assert epochs == 1 or length.n_steps - length.n_epoch_steps < 600
    assert length.n_steps / length.evaluate_every <= 20 + 1
    assert 1 <= length.evaluate_every <= length.n_steps
    assert len(length.reasons) == 2


@pytest.mark.parametrize(
    ("given_length", "steps"), [("epochs=2", 200), ("epochs=0.25", 25), ("steps=7", 7), ("epochs=1e-9", 1)]
)
def test_a_given_length_is_kept(given_length: str, steps: int) -> None:
    train = config.load(overrides=[f"train.{given_length}", "train.batch_size=10", "train.evaluate_every=3"]).train
    assert length_of(train, np.ones(1000, dtype=int), 100) == Length(steps, 100, 3, ())


def test_evaluations_read_at_most_a_quarter_of_the_rows_that_training_reads() -> None:
    train = config.load(overrides=["train.epochs=1"]).train
    length = length_of(train, np.ones(57_150, dtype=int), 6_350)
    n_evaluations = -(-length.n_steps // length.evaluate_every)
    assert n_evaluations * 6_350 <= 0.25 * 57_150 + 6_350


@pytest.mark.parametrize(
    ("settings", "n_rows", "reason"),
    [
        (["train.steps=20"], 420, "an evaluation every 20 steps: 1 in all, the fewest there can be"),
        (["train.steps=1"], 420, "an evaluation after each step: 1 in all, the fewest there can be"),
        (["train.steps=246"], 371, "every 50 steps: 5 in all, reading at most a quarter as many rows as training"),
        (["train.steps=20"], 1, "after each step: 20 in all, reading at most a quarter as many rows as training"),
    ],
)
def test_the_number_of_evaluations_is_said_as_it_is(settings: list[str], n_rows: int, reason: str) -> None:
    train = config.load(overrides=settings).train
    assert reason in length_of(train, np.ones(2_595, dtype=int), n_rows).reasons[-1]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=400), st.integers(128, 600), st.integers(1, 5))
def test_by_tokens_an_epoch_has_the_steps_that_its_order_has(
    lengths: list[int], tokens: int, accumulation: int
) -> None:
    overrides = [f"train.batch_tokens={tokens}", f"train.accumulation={accumulation}", "train.epochs=3"]
    train = config.load(overrides=overrides).train
    length = length_of(train, np.array(lengths), 100)
    for epoch in range(3):
        n = len(batching.training_order(np.array(lengths), train, epoch))
        assert length.n_epoch_steps == -(-n // accumulation)
    assert length.n_steps == 3 * length.n_epoch_steps
