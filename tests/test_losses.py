"""Laws of the losses: equal to torch's and scikit-learn's, additive over rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from submillion import config
from submillion.training import losses

LABELS = ("a", "b", "c")
LOGITS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
LABEL_IDS = torch.arange(20) % 3


def test_equals_scikit_learn() -> None:
    ours = losses.supervised(LOGITS, LABEL_IDS, 0.0, None) / 20
    theirs = log_loss(LABEL_IDS.numpy(), torch.softmax(LOGITS.double(), 1).numpy())
    assert ours.item() == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_equals_the_written_out_target(smoothing: float) -> None:
    target = (1 - smoothing) * torch.nn.functional.one_hot(LABEL_IDS, 3) + smoothing / 3
    expected = -(target * torch.log_softmax(LOGITS, 1)).sum()
    torch.testing.assert_close(losses.supervised(LOGITS, LABEL_IDS, smoothing, None), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_its_formula(gamma: float) -> None:
    probs = torch.softmax(LOGITS.double(), 1)[torch.arange(20), LABEL_IDS]
    expected = -((1 - probs) ** gamma * probs.log()).sum()
    ours = losses.supervised(LOGITS, LABEL_IDS, 0.0, None, focal_gamma=gamma)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_row_is_0_with_a_gradient_that_is_a_number(gamma: float) -> None:
    logits = torch.tensor([[80.0, -80.0], [-3.0, 3.0]], requires_grad=True)
    losses.supervised(logits, torch.tensor([0, 0]), 0.0, None, focal_gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[0].any()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_a_batch_is_the_sum_of_its_parts(weights: torch.Tensor | None) -> None:
    whole = losses.supervised(LOGITS, LABEL_IDS, 0.1, weights)
    parts = [losses.supervised(LOGITS[i : i + 7], LABEL_IDS[i : i + 7], 0.1, weights) for i in range(0, 20, 7)]
    torch.testing.assert_close(whole, torch.stack(parts).sum())


def test_balanced_weights_equal_scikit_learn() -> None:
    train = config.load(overrides=["train.class_weights=balanced"]).train
    ours = losses.class_weights(train, LABELS, [10, 5, 1])
    rows = [0] * 10 + [1] * 5 + [2]
    assert ours is not None
    assert ours.tolist() == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=np.array(rows)).tolist()
    )


def test_named_weights_leave_the_others_at_one() -> None:
    train = config.load(overrides=["train.class_weights={b: 3.0}"]).train
    ours = losses.class_weights(train, LABELS, [1, 1, 1])
    assert ours is not None
    assert ours.tolist() == [1.0, 3.0, 1.0]
    assert losses.class_weights(config.load().train, LABELS, [1, 2, 3]) is None


# Several labels

SEVERAL = (torch.arange(60).view(20, 3) * 7 % 5 < 2).long()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_of_several_labels_it_is_torch_s_binary_cross_entropy(smoothing: float, weights: torch.Tensor | None) -> None:
    target = SEVERAL * (1 - smoothing) + smoothing / 2
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(LOGITS, target)
    torch.testing.assert_close(losses.supervised(LOGITS, SEVERAL, smoothing, weights) / 20, theirs)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_of_several_labels_each_decision_has_its_focus(gamma: float) -> None:
    probs = torch.sigmoid(LOGITS.double())
    true = torch.where(SEVERAL.bool(), probs, 1 - probs)
    expected = -((1 - true) ** gamma * true.log()).mean(1).sum()
    ours = losses.supervised(LOGITS, SEVERAL, 0.0, None, focal_gamma=gamma)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    certain = torch.full((1, 3), 80.0, requires_grad=True)
    losses.supervised(certain, torch.ones(1, 3, dtype=torch.int64), 0.0, None, focal_gamma=gamma).backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


def test_of_several_labels_balanced_weights_are_the_negatives_of_a_positive() -> None:
    train = config.load(overrides=["train.class_weights=balanced"]).train
    ours = losses.class_weights(train, LABELS, [10, 5, 20], n_rows=20)
    assert ours is not None
    assert ours.tolist() == [1.0, 3.0, pytest.approx(0.05)]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_of_several_labels_a_teacher_s_divergence_is_that_of_each_decision(temperature: float) -> None:
    settings = config.load(overrides={"distillation.alpha": 0.25, "distillation.temperature": temperature}).distillation
    teacher = LOGITS.flip(0)
    p, q = (torch.sigmoid(each.double() / temperature) for each in (teacher, LOGITS))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1).sum()
    ours = losses.distilled(torch.tensor(2.0), LOGITS, teacher, settings, has_several=True)
    torch.testing.assert_close(ours.double(), 0.5 + 0.75 * temperature**2 * expected, rtol=1e-5, atol=1e-5)
