"""The prefix: the output of the frozen layers below the lowest adapted one, computed once and kept on disk.

Owns the batches it is computed in (fixed, in the rows' order, so that a file made again is bit-identical), its key in
the cache, and the reading of a batch's rows. `planning` decides how many layers it has; `packed` computes the rest from
their output.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from submillion.data import cache
from submillion.errors import RunError
from submillion.model import adapters, packed
from submillion.model.batching import TokenizedSplit, within
from submillion.model.packed import Packed, native
from submillion.planning.architectures import Architecture, layer_name

_FORMAT = 1  # raised when the same weights and tokens would give other rows: a change in `packed`, or of the file
_INT8_FORMAT = "int8, 2"  # the same for products in int8
_KIND, _FILE = "prefix", "rows.bin"
# Fixed, since in lower precision a row's last bits depend on its batch. The fastest of 1 to 16 thousand, by a tenth.
_BATCH_TOKENS = 4096
_SPARE_BYTES = 4 * 2**30  # of the disk, left to others
# Keys of an encoder's config that do not affect its layers, besides all named dropout: runs that differ only in these
# share a file. A difference in any other key makes another file, which is never wrong.
_IRRELEVANT = {
    *("id2label", "label2id", "num_labels", "problem_type", "architectures", "_name_or_path", "transformers_version"),
    *("dtype", "initializer_range", "use_cache", "output_attentions", "output_hidden_states", "return_dict"),
}


def without_dropout(model: nn.Module, architecture: Architecture, n_layers: int) -> None:
    """Set dropout to 0 in the lowest layers and the embeddings, for both passes; do nothing for 0 layers."""
    if n_layers == 0:
        return
    stock: Any = adapters.stock(model)
    layers = [stock.get_submodule(layer_name(architecture.family, number)) for number in range(n_layers)]
    for lower in (getattr(stock, stock.base_model_prefix).embeddings, *layers):
        for module in lower.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "attention_dropout", None), (int, float)):  # ModernBERT's attention weights
                module.attention_dropout = 0.0


def kept(
    walk: Packed, config: Any, split: TokenizedSplit, watch: Callable[[int], object]
) -> tuple[TokenizedSplit, str]:
    """Return the split whose batches carry the output of the walk's `n_prefix_layers` lowest layers, and a note.

    The output is read from the cache, or else computed now, and `watch` called with the number of rows done. `config`
    is transformers' own. If it does not fit on the disk or cannot be written, the split is returned unchanged: results
    are then the same up to rounding, which in bf16 shows in their last digits. Rows taken from other splits are read
    from those splits' files.
    """
    if split.taken_from is not None:
        wholes, notes, n_before = list[TokenizedSplit](), list[str](), 0
        for whole in split.taken_from.splits:
            part, note = kept(walk, config, whole, lambda n, before=n_before: watch(before + n))
            wholes.append(part)
            notes.append(note)
            n_before += len(whole)
        return split.hidden_of(wholes), ", ".join(notes)
    started = time.perf_counter()
    try:
        rows, origin = _found_or_computed(walk, config, split, watch)
    except OSError as error:
        return split, f"not kept, recomputed in every pass: {error}"
    return replace(split, hidden=rows), f"{origin} in {time.perf_counter() - started:.1f} s"


def computed_key(facts: Sequence[object], weights: Iterable[tuple[str, torch.Tensor]], split: TokenizedSplit) -> str:
    """Return the cache key of what named weights, as they are now, make of a split's tokens; facts say how."""
    parts: list[str | memoryview] = [json.dumps(facts, sort_keys=True, default=str)]
    for name, tensor in weights:
        parts += [f"{name} {tensor.dtype} {list(tensor.shape)}", _bytes(tensor)]
    of_windows = () if split.windows is None else (split.windows.firsts, split.windows.offsets)
    for array in (split.tokens, split.token_types, split.offsets, *of_windows):
        parts += [str(array.dtype), np.ascontiguousarray(array).data]
    return cache.key_of(*parts)


class _Rows:
    """The rows of a file, read on demand: `rows(starts, lengths)` for `TokenizedSplit.hidden`.

    Reads, not a memory map: they are as fast (0.9 ms against 1.3 ms with the map's pages released each time, for 32
    texts of 52 tokens at width 768), no page stays in the process, and a truncated file is an error, not a crash.
    """

    def __init__(self, file: Path, walk: Packed) -> None:
        self._file, self._walk = file, walk
        self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __call__(self, starts: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        rows = torch.empty(int(lengths.sum()), _width(self._walk), dtype=self._walk.dtype)
        into, size, place = _bytes(rows), _row_bytes(self._walk), 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            end = place + length * size
            if os.preadv(self._descriptor, [into[place:end]], start * size) != end - place:
                raise RunError(f"{self._file} was cut short while in use: the same command makes it again")
            place = end
        return rows


def _found_or_computed(
    walk: Packed, config: Any, split: TokenizedSplit, watch: Callable[[int], object]
) -> tuple[_Rows, Literal["found", "computed"]]:
    key = _key(walk, config, split)
    cached = cache.find(_KIND, key)
    if cached is not None:
        return _Rows(cached / _FILE, walk), "found"
    _refuse_lack_of_space(int(split.offsets[-1]) * _row_bytes(walk))
    with cache.filling(_KIND, key) as folder:
        _write(folder / _FILE, walk, split, watch)
        rows = _Rows(folder / _FILE, walk)  # an open file stays readable when its folder is renamed or removed
    return rows, "computed"


def _write(file: Path, walk: Packed, split: TokenizedSplit, watch: Callable[[int], object]) -> None:
    device = walk.embeddings.words.weight.device
    with file.open("wb") as out:
        for part in within(split.lengths, _BATCH_TOKENS):
            out.write(_bytes(packed.lower(walk, split.batch(np.arange(part.start, part.stop)).to(device))))
            watch(part.stop)


def _refuse_lack_of_space(needed: int) -> None:
    """Raise an OSError if a file would be larger than the cache may be, or leave too little of the disk."""
    place = cache.folder()
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > cache.limit_bytes():
        raise OSError(
            f"it needs {_gib(needed)}, and the cache may hold {_gib(cache.limit_bytes())} (SUBMILLION_CACHE_GIB)"
        )
    if needed > free - _SPARE_BYTES:
        raise OSError(f"it needs {_gib(needed)}, and {_gib(_SPARE_BYTES)} to spare; {place} has {_gib(free)} free")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _key(walk: Packed, config: Any, split: TokenizedSplit) -> str:
    """Return the key of everything that decides the rows: current weights, tokens, and how they are computed."""
    settings = {
        name: value for name, value in config.to_dict().items() if "dropout" not in name and name not in _IRRELEVANT
    }
    facts = [_FORMAT, *native.conditions(walk.embeddings.words.weight.device)]
    facts += [_BATCH_TOKENS, walk.n_prefix_layers, str(walk.dtype)]
    facts += [*([_INT8_FORMAT] if walk.in_int8 else []), settings]
    return computed_key(facts, _weights(walk), split)


def _weights(walk: Packed) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters below the lowest adapted layer, each with a name."""
    modules: dict[str, nn.Module | None] = {"embeddings": walk.embeddings.whole, "widen": walk.widen}
    modules["relative"] = None if walk.mpnet is None else walk.mpnet.relative_attention_bias
    if walk.distances is not None:
        modules |= {"distances": walk.distances.embeddings, "distances norm": walk.distances.norm}
    for number, layer in enumerate(walk.layers[: walk.n_prefix_layers]):
        own = {**layer.sites, "attention_norm": layer.attention_norm, "ffn_norm": layer.ffn_norm}
        modules |= {f"{number} {name}": module for name, module in own.items()}
    for place, module in modules.items():
        if module is not None:
            yield from ((f"{place} {name}", parameter.detach()) for name, parameter in module.named_parameters())


def _width(walk: Packed) -> int:
    return walk.layers[0].ffn_norm.normalized_shape[0]


def _row_bytes(walk: Packed) -> int:
    return _width(walk) * walk.dtype.itemsize


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor, or of its copy on the CPU."""
    return tensor.cpu().flatten().view(torch.uint8).numpy().data
