"""Attention in C (attention.c, vectors.c) is each text's own attention, with dropout and gradients, for all lengths."""

from __future__ import annotations

import pytest
import torch

from submillion.model.packed import native, native_attention
from submillion.model.packed.cuda import Dropout, Texts
from tests.kit.pairs import pairwise

LEAST = 6554
SEED = 0x123456789ABCDEF
DROPOUT = Dropout(SEED, LEAST, 1 / (1 - LEAST / 65536))
NO_DROPOUT = Dropout(0, 0, 1.0)
# Around the edges of tiles of 16 rows and panels of 32, one token, and more than a panel's depth of keys.
LENGTHS = [[1], [15, 16, 17], [2, 31, 32, 33], [63, 64, 65, 97], [1, 130]]
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="the C functions were not compiled"),
    pytest.mark.usefixtures("each_number_of_threads", "on_tiles_and_in_vectors"),
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def batch(lengths: list[int], n_heads: int, head: int, *, is_firsts: bool, relative: bool = False):
    """Texts, rows with three more of no text, and the queries of first tokens or None."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    width, longest = n_heads * head, max(64, 1 << (max(lengths) - 1).bit_length())
    bias = random(n_heads, longest, longest, seed=3) if relative else None
    rows = random(int(bounds[-1]) + 3, (2 if is_firsts else 3) * width)
    firsts = random(len(lengths), width, seed=1) if is_firsts else None
    return Texts(bounds, longest, n_heads, bias), rows, firsts


def exact(texts: Texts, rows: torch.Tensor, firsts: torch.Tensor | None, dropout: Dropout) -> torch.Tensor:
    """The same in float64, text by text, from tensors that may want gradients."""
    n_heads, width = texts.n_heads, rows.shape[1] // (3 if firsts is None else 2)
    n_queries = len(rows) if firsts is None else len(firsts)
    kept = torch.ones(n_heads, n_queries, texts.longest, dtype=torch.bfloat16)
    if dropout.least:
        native.drop(kept, SEED, dropout.least, kept)
    blocks = rows.unflatten(1, (-1, n_heads, width // n_heads)).transpose(1, 2)  # [rows, heads, blocks, head]
    results = []
    for number, (start, stop) in enumerate(zip(texts.bounds[:-1], texts.bounds[1:], strict=True)):
        key, value = blocks[start:stop, :, -2], blocks[start:stop, :, -1]
        asked = slice(start, stop) if firsts is None else slice(number, number + 1)
        query = blocks[start:stop, :, 0] if firsts is None else firsts[asked].unflatten(1, (n_heads, -1))
        scores = torch.einsum("qhe,khe->hqk", query, key) * (width // n_heads) ** -0.5
        if texts.relative is not None:
            scores = scores + texts.relative[:, : scores.shape[1], : stop - start].double()
        weights = scores.softmax(-1) * kept[:, asked, : stop - start].double() * dropout.factor
        results.append(torch.einsum("hqk,khe->qhe", weights, value).flatten(1))
    spare = [rows.new_zeros(len(rows) - int(texts.bounds[-1]), width)] if firsts is None else []
    return torch.cat([*results, *spare])


def assert_near(found: torch.Tensor, wanted: torch.Tensor, beside: torch.Tensor | None = None) -> None:
    """Equal to within bfloat16's rounding of weights and results, and of what they are differences of (`beside`)."""
    largest = float((wanted if beside is None else beside).abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=2**-6, atol=2**-7 * largest)


@pytest.mark.parametrize(
    ("lengths", "heads", "is_firsts", "dropout", "relative"),
    pairwise(LENGTHS, [(2, 32), (12, 64), (1, 96)], [False, True], [NO_DROPOUT, DROPOUT], [False, True]),
)
def test_attention_and_its_gradients_are_the_exact_ones_rounded(lengths, heads, is_firsts, dropout, relative):
    texts, rows, firsts = batch(lengths, *heads, is_firsts=is_firsts, relative=relative)
    wide = rows.double().requires_grad_()
    asked = None if firsts is None else firsts.double().requires_grad_()
    wanted = exact(texts, wide, asked, dropout)
    out, lse = native_attention.attend(texts, rows, firsts, dropout)
    assert_near(out, wanted.detach())
    dout = random(*out.shape, seed=2)
    dout[texts.n_texts if is_firsts else int(texts.bounds[-1]) :] = 0
    wanted.backward(dout.double())
    assert wide.grad is not None
    drows, dfirsts = native_attention.attend_backward(texts, (rows, firsts, out, lse), dout, dropout, True)
    assert_near(drows, wide.grad)
    if asked is not None and dfirsts is not None:
        assert asked.grad is not None
        assert_near(dfirsts, asked.grad, beside=wide.grad)  # of one token it is 0
    # Where the scores' gradients are not wanted, that of values is the same.
    width = out.shape[1]
    values, no_firsts = native_attention.attend_backward(texts, (rows, firsts, out, lse), dout, dropout, False)
    assert torch.equal(values[:, -width:], drows[:, -width:])
    assert not values[:, :-width].any()
    assert no_firsts is None or not no_firsts.any()


@pytest.mark.parametrize("is_firsts", [False, True])
def test_a_text_s_result_does_not_depend_on_the_others_or_on_threads(is_firsts):
    lengths = [3, 40, 70]
    texts, rows, firsts = batch(lengths, 3, 32, is_firsts=is_firsts)
    whole, _ = native_attention.attend(texts, rows, firsts, NO_DROPOUT)
    torch.set_num_threads(1)
    start, stop = 3, 43
    alone = Texts(torch.tensor([0, 40]), 64, 3, None)
    asked = None if firsts is None else firsts[1:2].clone()
    found, _ = native_attention.attend(alone, rows[start:stop].clone(), asked, NO_DROPOUT)
    assert torch.equal(found, whole[1:2] if is_firsts else whole[start:stop])


def test_what_does_not_fit_is_left_to_tiles_of_texts(monkeypatch):
    assert native_attention.fits_heads(CPU, torch.bfloat16, 64)
    assert not native_attention.fits_heads(CPU, torch.float32, 64)
    assert not native_attention.fits_heads(CPU, torch.bfloat16, 48)
    monkeypatch.setattr(native, "_library", None)
    assert not native_attention.fits_heads(CPU, torch.bfloat16, 64)
