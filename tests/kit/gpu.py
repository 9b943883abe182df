"""Tiny classifiers that the kernels of GPUs take, and how far one is from the stock padded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from submillion import planning
from submillion.model import adapters
from submillion.model.batching import Batch, TokenizedSplit
from submillion.model.classifier import Classifier
from tests.adapted import LABELS, shaken
from tests.tiny import make_encoder, settings


class Encoders:
    """Tiny encoders with heads wide enough for the kernels of GPUs, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, family: str, head: int = 16) -> Path:
        """Return the folder of a family's encoder, with heads so wide."""
        folder = self.folder / f"{family}-{head}"
        sizes = {"width": 4 * head, "n_heads": 4, "ffn_width": 128, "max_position_embeddings": 514}
        return folder if folder.exists() else make_encoder(family, folder, **sizes)


def random_split(n_rows: int, seed: int, longest: int, lengths: np.ndarray | None = None) -> TokenizedSplit:
    """Return rows of random tokens, of these lengths or of any from 2 on, as tiny encoders know them."""
    rng = np.random.default_rng(seed)
    if lengths is None:
        lengths = rng.integers(2, longest + 1, n_rows)
        lengths[0] = longest
    n_tokens = int(lengths.sum())
    return TokenizedSplit(
        tokens=rng.integers(5, 40, n_tokens, dtype=np.int32),
        token_types=np.zeros(n_tokens, np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        label_ids=rng.integers(0, len(LABELS), n_rows),
        example_ids=tuple(map(str, range(n_rows))),
        n_truncated=0,
    )


def classifier(
    encoder: Path, head: str, precision: Any, device: torch.device, dropout: float = 0.0, **adapter: Any
) -> Classifier:
    """Return a classifier whose adapter is as if trained; without dropout unless some is asked for."""
    config = settings(encoder, head, **{"dropout": dropout, **adapter})
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": dropout})})
    plan = planning.plan(config, len(LABELS))
    built = Classifier.build(config, plan, LABELS, 20, precision, device)
    shaken(built.model.cpu())
    return built.to(device)


def difference(model: Classifier, exact: Classifier, batch: Batch) -> tuple[float, float]:
    """Return how far logits and gradients are from the stock padded float32 model's, beside the largest one.

    Logits that are all below 1 are not beside anything.
    """
    found, wanted = ({}, {})
    logits = []
    for each, gradients in ((model, found), (exact, wanted)):
        each.zero_grad()
        there = batch.to(each.device)
        found_logits = each(there)
        torch.nn.functional.cross_entropy(found_logits, there.label_ids).backward()
        logits.append(found_logits.detach().cpu())
        named = adapters.trainable_parameters(each.model).items()
        gradients.update({name: p.grad.float().cpu() for name, p in named if p.grad is not None})
    if found.keys() != wanted.keys():
        return float("nan"), float("nan")
    # numpy's maximum is NaN where a part is; Python's is not.
    largest = np.max([float(gradient.abs().max()) for gradient in wanted.values()])
    far = np.max([float((found[name] - gradient).abs().max()) for name, gradient in wanted.items()])
    apart = float((logits[0] - logits[1]).abs().max())
    return apart / max(1.0, float(logits[1].abs().max())), float(far / largest)
