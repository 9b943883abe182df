"""One forward pass over rows of several models that share their frozen weights, such as runs on one encoder.

Everything but the low-rank parts is computed for all rows at once; each model's LoRA is added to its own rows (as in
S-LoRA: Sheng et al. 2023, section 4). A text for several models passes only once through the layers that none adapts. A
model's LoRA is read and cast once, at its first mixed pass: for evaluation of models that no longer change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from submillion.model.batching import Batch, on_device
from submillion.model.packed.forward import encode, laid_out, lower
from submillion.model.packed.linear import Lots, Mixed, frozen_and_lora, is_ours
from submillion.model.packed.structure import Layer, Packed
from submillion.planning.architectures import Site

_LOT_ROWS = 64
# Lots' sizes are multiples of this: kernels are made for each new size.
_STEP = 8

_Site = tuple[nn.Linear, tuple[torch.Tensor, torch.Tensor]]
_sites: WeakKeyDictionary[Packed, list[dict[Site, _Site]]] = WeakKeyDictionary()


def mixable(packed: Packed) -> bool:
    """Return whether an encoder has only frozen linear layers, with or without plain LoRA."""
    return packed in _sites or all(is_ours(module) for layer in packed.layers for module in layer.sites.values())


def n_shared_layers(models: Sequence[Packed]) -> int:
    """Return how many layers from the bottom no model adapts; never the last one, which computes first tokens only.

    The models share their frozen weights; any method counts, since each puts its own module where it adapts.
    """
    is_adapted = [
        any(type(module) is not nn.Linear for model in models for module in model.layers[number].sites.values())
        for number in range(len(models[0].layers) - 1)
    ]
    return (*is_adapted, True).index(True)


def encode_several(models: Sequence[Packed], batch: Batch) -> list[torch.Tensor]:
    """Return what `encode` returns for the batch with each model, equal to the bit.

    The models share their frozen weights; layers that none of them adapts are computed once.
    """
    n_shared = n_shared_layers(models)
    if n_shared:
        batch = replace(batch, hidden=lower(replace(models[0], n_prefix_layers=n_shared), batch))
    return [encode(replace(model, n_prefix_layers=n_shared), batch) for model in models]


def encode_mixed(models: Sequence[Packed], batch: Batch, text_of: torch.Tensor, model_of: torch.Tensor) -> torch.Tensor:
    """Return the last hidden state of each row's first token, float32 [R, D]; if texts have windows, of each row's
    windows, row by row.

    Row i is text `text_of[i]` of the batch through model `model_of[i]`, int64 [R] each, on the CPU. The models must be
    `mixable` and share their frozen weights. Layers below the lowest that any of them adapts are computed once per
    text. Equal to what each gives alone, within 1e-5 in float32.
    """
    sites = [_sites_of(model) for model in models]
    n_shared = n_shared_layers(models) if len(text_of) > batch.n_rows else 0
    if n_shared:
        batch = replace(batch, hidden=lower(replace(models[0], n_prefix_layers=n_shared), batch))
    rows = batch.take(text_of)
    of_batch = _lots_of_batch(models[0], rows, rows.each_window(model_of))
    layers = tuple(
        _mixed(layer, [of_model[number] for of_model in sites], *of_batch) if number >= n_shared else layer
        for number, layer in enumerate(models[0].layers)
    )
    return encode(replace(models[0], layers=layers, n_prefix_layers=n_shared), rows)


def _sites_of(packed: Packed) -> list[dict[Site, _Site]]:
    """Return each layer's sites: the frozen layer and the model's LoRA on it, in the rows' dtype."""
    if packed not in _sites:
        _sites[packed] = [
            {site: frozen_and_lora(module, packed.dtype) for site, module in layer.sites.items()}
            for layer in packed.layers
        ]
    return _sites[packed]


def _mixed(
    layer: Layer, of_models: Sequence[dict[Site, _Site]], lots: dict[int, Lots], text_models: torch.Tensor
) -> Layer:
    def mixed(site: Site) -> nn.Module:
        loras = [of_model[site][1] for of_model in of_models]
        has_any = any(len(down) for down, _ in loras)
        stacked = [pad_sequence(list(factors), batch_first=True) for factors in zip(*loras, strict=True)]
        return Mixed(of_models[0][site][0], (stacked[0], stacked[1]) if has_any else None, lots, text_models)

    return replace(layer, sites={site: mixed(site) for site in layer.sites})


def _lots_of_batch(packed: Packed, batch: Batch, model_of: torch.Tensor) -> tuple[dict[int, Lots], torch.Tensor]:
    """Return the lots of all rows and of the texts' first tokens, by their numbers of rows; and each text's model.

    All in the layout's order.
    """
    layout = laid_out(packed, batch)
    of_texts = np.empty_like(model_of.numpy())
    of_texts[layout.unsort.cpu().numpy()] = model_of.numpy()
    of_tokens = np.full(layout.n_rows, -1)
    of_tokens[: layout.n_tokens] = np.repeat(of_texts, np.sort(np.diff(batch.offsets.numpy()), kind="stable"))
    device = batch.tokens.device
    lots = {len(owners): _lots(owners, device) for owners in (of_texts, of_tokens)}
    return lots, on_device(torch.from_numpy(of_texts), device)


def _lots(owners: np.ndarray, device: torch.device) -> Lots:
    """Return the lots of rows with these owners, from 0; -1 is none."""
    rows = np.argsort(owners, kind="stable")[(owners < 0).sum() :]
    counts = np.bincount(owners[rows])
    size = min(_LOT_ROWS, -(-int(counts.max()) // _STEP) * _STEP)
    n_lots = -(-counts // size)
    begins = (np.cumsum(n_lots) - n_lots) * size - (np.cumsum(counts) - counts)
    places = np.arange(len(rows)) + np.repeat(begins, counts)
    take, put = np.zeros(int(n_lots.sum()) * size, np.int64), np.zeros(len(owners), np.int64)
    take[places], put[rows] = rows, places
    model = np.repeat(np.arange(len(counts)), n_lots)
    return Lots(*(on_device(torch.from_numpy(array), device) for array in (model, take, put)))
