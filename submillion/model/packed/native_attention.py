"""Attention inside each text of packed rows, bfloat16, by C functions: on matrix tiles (attention.c), elsewhere in
vectors (vectors.c).

Does what `cuda` does on cards, with the same interface: no groups of padded texts, and no weights kept for the backward
pass. If rows do not fit, `attention` works on tiles of padded texts.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from submillion.model.packed import native
from submillion.model.packed.cuda import Dropout, Texts

_Saved = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]


def fits_heads(device: torch.device, dtype: torch.dtype, head: int) -> bool:
    """Return whether `attend` takes rows there, of that dtype, with heads of this width."""
    return device.type == "cpu" and dtype == torch.bfloat16 and native.fits_widths(head)


def attend(
    texts: Texts, rows: torch.Tensor, firsts: torch.Tensor | None, dropout: Dropout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each query's mixture of its text's values [T, D], and the binary log of its weights' sum, float32
    [heads, T].

    Rows [T, 3 D] hold query, key and value side by side; with `firsts` [B, D], the queries of first tokens only, rows
    [T, 2 D] hold key and value, and the results have B rows. Rows of no text get 0. All are dense. A row's result
    depends only on its own text. The weights' mask is that of [heads, T or B, longest] elements.
    """
    query = rows if firsts is None else firsts
    out = query.new_empty(len(query), rows.shape[1] // 3 if firsts is None else firsts.shape[1])
    lse = query.new_empty(texts.n_heads, len(query), dtype=torch.float32)
    scratch = _scratch(texts, out.shape[1], is_firsts=firsts is not None)
    native.library().attend(*_arguments(texts, (rows, firsts, out, lse), dropout, scratch))
    return out, lse


def attend_backward(
    texts: Texts, saved: _Saved, dout: torch.Tensor, dropout: Dropout, wants_scores: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the gradients of rows and firsts; `saved`: rows, firsts, and what `attend` returned.

    Without `wants_scores` the gradients of queries and keys are 0.
    """
    rows, firsts, out, _ = saved
    drows, dfirsts = torch.empty_like(rows), None if firsts is None else torch.empty_like(firsts)
    places = _places(drows, dfirsts, out.shape[1])
    scratch = _scratch(texts, out.shape[1], is_firsts=firsts is not None)
    if texts.relative is not None and native.has_tiles():
        texts = replace(texts, relative=texts.relative.transpose(1, 2).contiguous())
    native.library().attend_backward(
        *_arguments(texts, saved, dropout, scratch), dout.data_ptr(), *places, wants_scores
    )
    return drows, dfirsts


def _places(rows: torch.Tensor, firsts: torch.Tensor | None, width: int) -> tuple[int, int]:
    """Return the addresses of the first query and the first key."""
    if firsts is not None:
        return firsts.data_ptr(), rows.data_ptr()
    return rows.data_ptr(), rows.data_ptr() + width * rows.element_size()


def _scratch(texts: Texts, width: int, *, is_firsts: bool) -> torch.Tensor:
    """Return memory for all threads to work in."""
    n_bytes = native.library().attention_scratch(texts.longest, width // texts.n_heads, is_firsts, native.has_tiles())
    return torch.empty(torch.get_num_threads() * n_bytes, dtype=torch.int8)


def _arguments(texts: Texts, saved: _Saved, dropout: Dropout, scratch: torch.Tensor) -> tuple[int | float | None, ...]:
    """Return what both functions take; addresses, which keep nothing alive."""
    rows, firsts, out, lse = saved
    assert isinstance(dropout.seed, int)
    width = out.shape[1]
    query, key = _places(rows, firsts, width)
    return (
        *(query, (rows if firsts is None else firsts).stride(0), key, rows.stride(0)),
        *(None if each is None else each.data_ptr() for each in (texts.bounds, texts.relative, out, lse, scratch)),
        *(texts.n_texts, texts.n_heads, width // texts.n_heads, len(rows), texts.longest, firsts is not None),
        *(dropout.factor, dropout.seed, dropout.least, torch.get_num_threads(), native.has_tiles()),
    )
