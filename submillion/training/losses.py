"""Loss functions on logits. A loss is a sum over rows; the caller divides by the rows of the global batch."""

from __future__ import annotations

import torch
from torch.nn import functional

from submillion.config import DistillationConfig, TrainConfig

_LEAST = 1e-7  # of 1 - p: float32 cannot tell a smaller one from 0


def class_weights(
    train: TrainConfig, labels: tuple[str, ...], counts: list[int], n_rows: int | None = None
) -> torch.Tensor | None:
    """Return each class's loss weight, float32 [C] in the order of `labels`, or None if all are 1.

    `balanced` is n / (C · n_c), as in scikit-learn's `class_weight="balanced"`; labels that a table does not name weigh
    1. n_rows: all rows, if rows have several labels; then `balanced` is (n - n_c) / n_c, so the rows with a label weigh
    as much as those without.
    """
    if train.class_weights is None:
        return None
    if train.class_weights == "balanced" and n_rows is not None:
        return torch.tensor([max(n_rows - count, 1) / count for count in counts], dtype=torch.float32)
    if train.class_weights == "balanced":
        return torch.tensor([sum(counts) / (len(counts) * count) for count in counts], dtype=torch.float32)
    return torch.tensor([train.class_weights.get(label, 1.0) for label in labels], dtype=torch.float32)


def supervised(
    logits: torch.Tensor,
    label_ids: torch.Tensor,
    smoothing: float,
    weights: torch.Tensor | None,
    focal_gamma: float = 0.0,
) -> torch.Tensor:
    """Return the summed cross-entropy of float32 logits [B, C] and label ids [B], a scalar; for several labels, ids
    [B, C], the sum over rows of the mean binary cross-entropy.

    With smoothing s the target is 1 − s on the label plus s / C on every class (Szegedy et al. 2016, §7). A row counts
    with the weight of its class (smoothed part included), so weights scale rows. With focal_gamma γ it also counts with
    (1 − p)^γ, p its label's probability (Lin et al. 2017, equation 4), which has a gradient too.

    With several labels each decision is smoothed by s / 2 and has its own (1 − p)^γ, p the probability of the truth; a
    weight applies to a label's positives, as torch's `pos_weight`.

    >>> supervised(torch.zeros(2, 4), torch.tensor([0, 3]), 0.0, None).item() / 2  # ln 4
    1.3862943649291992
    """
    if label_ids.ndim > 1:
        return _of_several(logits, label_ids.to(logits.dtype), smoothing, weights, focal_gamma)
    row_losses = functional.cross_entropy(logits, label_ids, reduction="none", label_smoothing=smoothing)
    if focal_gamma:
        probs = torch.softmax(logits, -1).gather(1, label_ids[:, None])[:, 0]
        row_losses = _focused(probs, focal_gamma) * row_losses
    return (row_losses if weights is None else row_losses * weights[label_ids]).sum()


def _of_several(
    logits: torch.Tensor, truth: torch.Tensor, smoothing: float, weights: torch.Tensor | None, focal_gamma: float
) -> torch.Tensor:
    """Return `supervised` for several labels; truth: 0 or 1, float32 [B, C]."""
    targets = truth * (1 - smoothing) + smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    if focal_gamma:
        losses = _focused(torch.sigmoid(logits * (2 * truth - 1)), focal_gamma) * losses
    return losses.mean(-1).sum()  # the mean, so that a learning rate suits any number of labels


def _focused(probs: torch.Tensor, focal_gamma: float) -> torch.Tensor:
    """Return (1 - p)^gamma. A power below 1 has no slope at 0, to which float32 rounds certainty."""
    return (1 - probs).clamp(min=_LEAST) ** focal_gamma


def distilled(
    supervised_loss: torch.Tensor,
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    settings: DistillationConfig,
    has_several: bool = False,
) -> torch.Tensor:
    """Return α · supervised_loss + (1 − α) · T² · KL(teacher ‖ student), a scalar, summed over rows; logits [B, C].

    Both distributions are softmax(logits / T) (Hinton, Vinyals and Dean 2015, §2). The gradient of the KL term with
    respect to a student's logit is (student − teacher) / T, and that difference falls as 1 / T: T² keeps the teacher's
    share of the gradient about the same at any T. Without it (`scaled: false`) the share falls as 1 / T², a fourth at T
    = 2. The teacher's entropy, which the paper's cross-entropy also has, is constant and has no gradient.

    has_several: each label is a distribution over two, sigmoid(logit / T) and the rest, and a row's KL is their mean.

    >>> taught = DistillationConfig(alpha=0.0, temperature=2.0)
    >>> distilled(torch.tensor(5.0), torch.zeros(1, 2), torch.ones(1, 2), taught).item()  # the student agrees
    0.0
    """
    temperature = settings.temperature
    student, teacher = (log_probs(each / temperature, has_several) for each in (logits, teacher_logits))
    divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    if has_several:
        divergence = divergence / logits.shape[-1]
    scale = temperature**2 if settings.scaled else 1.0
    return settings.alpha * supervised_loss + (1 - settings.alpha) * scale * divergence


def log_probs(logits: torch.Tensor, has_several: bool) -> torch.Tensor:
    """Return the log probabilities of classes from their logits [..., C]; for several labels [..., C, 2]: that each
    applies, and that it does not."""
    if not has_several:
        return functional.log_softmax(logits, dim=-1)
    return functional.logsigmoid(torch.stack((logits, -logits), dim=-1))
