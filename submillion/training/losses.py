"""Loss functions on logits. A loss is a sum over rows; the caller divides by the rows of the global batch."""

from __future__ import annotations

import torch
from torch.nn import functional

from submillion.config import DistillationConfig, TrainConfig

_LEAST = 1e-7  # of 1 - p: float32 tells no smaller one from 0


def class_weights(train: TrainConfig, labels: tuple[str, ...], counts: list[int]) -> torch.Tensor | None:
    """Return each class's loss weight, float32 [C] in the order of `labels`, or None where all are 1.

    `balanced` is n / (C · n_c), as in scikit-learn's `class_weight="balanced"`; labels that a table
    does not name weigh 1.
    """
    if train.class_weights is None:
        return None
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
    """Return the summed cross-entropy of float32 logits [B, C] and label ids [B], a scalar.

    With smoothing s the target is 1 − s on the label plus s / C on every class (Szegedy et al. 2016,
    §7). A row counts with the weight of its class (smoothed part included), so weights scale rows. With focal_gamma γ
    it counts with (1 − p)^γ besides, p its label's probability (Lin et al. 2017, equation 4), which has a gradient too.

    >>> supervised(torch.zeros(2, 4), torch.tensor([0, 3]), 0.0, None).item() / 2  # ln 4
    1.3862943649291992
    """
    row_losses = functional.cross_entropy(logits, label_ids, reduction="none", label_smoothing=smoothing)
    if focal_gamma:
        probs = torch.softmax(logits, -1).gather(1, label_ids[:, None])[:, 0]
        # A power below 1 has no slope at 0, where float32 puts a row that is certain.
        row_losses = (1 - probs).clamp(min=_LEAST) ** focal_gamma * row_losses
    return (row_losses if weights is None else row_losses * weights[label_ids]).sum()


def distilled(
    supervised_loss: torch.Tensor, logits: torch.Tensor, teacher_logits: torch.Tensor, settings: DistillationConfig
) -> torch.Tensor:
    """Return α · supervised_loss + (1 − α) · T² · KL(teacher ‖ student), a scalar, summed over rows; logits [B, C].

    Both distributions are softmax(logits / T) (Hinton, Vinyals and Dean 2015, §2). The gradient of the KL term by a
    student's logit is (student − teacher) / T, and that difference falls as 1 / T: T² keeps the teacher's share of
    the gradient about the same at any T. Without it (`scaled: false`) the share falls as 1 / T², a fourth at T = 2.
    The teacher's entropy, which the paper's cross-entropy has besides, is constant and has no gradient.

    >>> taught = DistillationConfig(alpha=0.0, temperature=2.0)
    >>> distilled(torch.tensor(5.0), torch.zeros(1, 2), torch.ones(1, 2), taught).item()  # the student agrees
    0.0
    """
    temperature = settings.temperature
    student = functional.log_softmax(logits / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    scale = temperature**2 if settings.scaled else 1.0
    return settings.alpha * supervised_loss + (1 - settings.alpha) * scale * divergence
