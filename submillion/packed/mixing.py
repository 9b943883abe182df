"""One forward pass over rows of several models that share their frozen weights, such as runs on one encoder.

Everything but the low-rank parts is computed for all rows at once, through the first model's modules; each model's
LoRA is added to its own rows (as in S-LoRA: Sheng et al. 2023, section 4). For evaluation only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from submillion.architectures import SITES
from submillion.batching import Batch
from submillion.packed.forward import encode
from submillion.packed.layout import lay_out
from submillion.packed.linear import Mixed, is_ours
from submillion.packed.structure import Layer, Packed


def mixable(packed: Packed) -> bool:
    """Say whether an encoder has nothing but frozen linear layers and plain LoRA on them."""
    return all(is_ours(layer.sites[site]) for layer in packed.layers for site in SITES)


def encode_mixed(models: Sequence[Packed], batch: Batch, model_of: torch.Tensor) -> torch.Tensor:
    """Return the last hidden state of each text's first token, float32 [B, D], in the batch's order.

    `model_of` is int64 [B], on the CPU, which of the models computes each text. They must be `mixable` and share their
    frozen weights. Equal to what each gives alone within 1e-5 in float32.
    """
    rows = _rows(models, batch, model_of)
    layers = tuple(_mixed(of_models, rows) for of_models in zip(*(model.layers for model in models), strict=True))
    return encode(replace(models[0], layers=layers, n_prefix_layers=0), batch)


def _rows(models: Sequence[Packed], batch: Batch, model_of: torch.Tensor) -> dict[int, list[torch.Tensor]]:
    """Each model's rows among all, and among those of first tokens, in the layout's order."""
    layout = lay_out(batch.offsets, models[0].n_heads, batch.tokens.device)
    of_texts = torch.empty_like(model_of)
    of_texts[layout.unsort.cpu()] = model_of
    lengths = batch.offsets.diff()
    of_tokens = torch.empty(layout.n_rows, dtype=torch.int64).fill_(-1)
    of_tokens[: layout.n_tokens] = of_texts.repeat_interleave(lengths.sort(stable=True).values)
    return {
        len(owners): [(owners == number).nonzero()[:, 0].to(batch.tokens.device) for number in range(len(models))]
        for owners in (of_texts, of_tokens)
    }


def _mixed(of_models: Sequence[Layer], rows: dict[int, list[torch.Tensor]]) -> Layer:
    sites = {site: Mixed([layer.sites[site] for layer in of_models], rows) for site in SITES}
    return replace(of_models[0], sites=dict(sites))
