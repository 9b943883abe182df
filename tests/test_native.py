"""The functions of kernels.c and products.c compute what torch's operators compute, on one thread and on several."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from submillion.errors import install_line
from submillion.model.packed import native, native_products, weights
from submillion.model.packed.passes import activate
from submillion.training import describing
from tests.kit.pairs import each, pairwise

SEED, LEAST = 0x123456789ABCDEF, 6554
KEEP = 1 - LEAST / 65536
compiled = pytest.mark.skipif(not native.available(), reason="kernels.c was not compiled here")
pytestmark = pytest.mark.usefixtures("each_number_of_threads")


def rows(*shape: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator) * scale).bfloat16()


def kept(shape: tuple[int, ...]) -> torch.Tensor:
    """What the mask of SEED and LEAST keeps, float32 of 1 and 0."""
    out = torch.empty(shape, dtype=torch.bfloat16)
    native.drop(torch.ones_like(out), SEED, LEAST, out)
    return out.float()


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to within bfloat16's rounding, of the values and of what they are sums of."""
    torch.testing.assert_close(found.float(), wanted.float(), rtol=2**-7, atol=2**-8 * float(wanted.abs().max()))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_library_is_compiled_where_there_is_a_compiler():
    assert native.available()


@compiled
@pytest.mark.parametrize("shape", [(1, 2), (3, 50), (700, 768)])
def test_drop_keeps_or_zeroes_and_does_not_depend_on_place_or_threads(shape):
    x = rows(*shape)
    out = torch.empty_like(x)
    native.drop(x, SEED, LEAST, out)
    assert torch.equal(out, x * kept(shape).bfloat16())
    native.drop(x, SEED, LEAST, x)
    assert torch.equal(out, x)
    assert not torch.equal(kept((700, 768)), kept((701, 768))[1:])
    torch.set_num_threads(1)
    again = rows(*shape)
    native.drop(again, SEED, LEAST, again)
    assert torch.equal(out, again)


@compiled
def test_masks_are_uniform_over_seeds_elements_and_pairs():
    masks = []
    for i in range(400):
        out = torch.empty(32, 64, dtype=torch.bfloat16)
        native.drop(torch.ones_like(out), (SEED + i * 0x9E3779B97F4A7C15) % 2**64, LEAST, out)
        masks.append(out.float().flatten())
    table = torch.stack(masks) - KEEP
    n, variance = table.numel(), KEEP * (1 - KEEP)
    assert abs(float(table.mean())) < 4.5 * (variance / n) ** 0.5
    assert float(table.mean(0).var()) == pytest.approx(variance / 400, rel=0.2)
    assert float(table.mean(1).var()) == pytest.approx(variance / 2048, rel=0.3)
    for shift in (1, 2, 7):
        assert abs(float((table[:, shift:] * table[:, :-shift]).mean())) < 4.5 * variance / n**0.5
        assert abs(float((table[shift:] * table[:-shift]).mean())) < 4.5 * variance / n**0.5


@compiled
def test_add_dropped_adds_what_drop_writes():
    x, out = rows(300, 384), rows(300, 384, scale=2.0)
    wanted = out.float() + x.float() * kept((300, 384))
    native.add_dropped(x, SEED, LEAST, out)
    assert_near(out, wanted)


@compiled
def test_gelu_and_its_gradient():
    x = torch.linspace(-12, 12, 60_000).bfloat16().view(100, -1)
    exact = x.float().requires_grad_()
    wanted = F.gelu(exact)
    grad = rows(*x.shape)
    wanted.backward(grad.float())
    torch.testing.assert_close(native.gelu(x).float(), wanted.detach(), rtol=2**-8, atol=1e-5)
    torch.testing.assert_close(native.gelu_backward(x, grad).float(), exact.grad, rtol=2**-8, atol=5e-5)
    far = torch.tensor([[-1e30, -1e4, 1e4, 1e30]]).bfloat16()
    assert torch.allclose(native.gelu(far).float(), F.gelu(far.float()), atol=1e-5)


@compiled
@pytest.mark.parametrize(("lengths", "n_queries", "least"), pairwise([(64, 37), (1, 2), (33, 64)], [1, 64], [0, LEAST]))
def test_softmax_its_dropout_and_its_gradient(lengths, n_queries, least):
    n_heads, width = 3, 64
    scores = rows(2 * n_heads, n_queries, width, scale=3.0)
    padding = (torch.arange(width) >= torch.tensor(lengths)[:, None]).repeat(n_heads, 1)[:, None]
    wanted = torch.softmax(scores.float().masked_fill(padding, float("-inf")), -1)
    mask = kept(tuple(scores.shape)) if least else 1.0
    dropped = native.softmax_(scores, torch.tensor(lengths), SEED, least)
    assert_near(scores, wanted)
    assert torch.equal(dropped.float(), scores.float() * mask)
    assert torch.equal(scores[padding.expand_as(scores)], torch.zeros_like(scores[padding.expand_as(scores)]))
    grad = rows(*scores.shape)
    probs, dprobs = scores.float(), grad.float() * mask
    assert_near(
        native.softmax_backward_(scores, grad, SEED, least), probs * (dprobs - (dprobs * probs).sum(-1, keepdim=True))
    )


@compiled
@pytest.mark.parametrize(("n_queries", "window"), [(64, 0), (64, 5), (64, 8), (64, 63), (1, 5)])
def test_softmax_sees_a_window_around_queries_of_the_text(n_queries, window):
    n_heads, width, lengths = 3, 64, torch.tensor([64, 37])
    scores = rows(2 * n_heads, n_queries, width, scale=3.0)
    columns, queries = torch.arange(width), torch.arange(n_queries)
    far = (columns - queries[:, None]).abs() > window
    unseen = (columns >= lengths[:, None])[:, None] | (far & (queries < lengths[:, None])[..., None])
    wanted = torch.softmax(scores.float().masked_fill(unseen.repeat(n_heads, 1, 1), float("-inf")), -1)
    assert_near(native.softmax_(scores, lengths, SEED, 0, window), wanted)
    assert bool((scores[wanted == 0] == 0).all())


@compiled
@pytest.mark.parametrize("which", ["both", "of queries", "of keys"])
@pytest.mark.parametrize(("n_queries", "width"), [(32, 32), (1, 32), (1, 96), (64, 64)])
def test_diagonals_are_read_and_spread(n_queries, width, which):
    n_heads, n_columns, factor = 5, n_queries + width, 0.3
    i, j = torch.arange(n_queries)[:, None], torch.arange(width)
    of_queries, of_keys = (rows(n_heads, n, n_columns) for n in (n_queries, width))
    exact = [x.float().requires_grad_() for x in (of_queries, of_keys)]
    parts = [exact[0][:, i, j - i + n_queries - 1], exact[1][:, j, i - j + width - 1]]
    chosen = {"both": (0, 1), "of queries": (0,), "of keys": (1,)}[which]
    wanted = factor * sum(parts[number] for number in chosen)
    given = [x if number in chosen else None for number, x in enumerate((of_queries, of_keys))]
    scores, grad = rows(n_heads, n_queries, width), rows(n_heads, n_queries, width)
    native.read_diagonals(*given, scores, factor)
    assert_near(scores, wanted.detach())
    wanted.backward(grad.float())
    spread = [None if x is None else torch.full_like(x, torch.nan) for x in given]
    native.spread_diagonals(grad, *spread, factor)
    for number in chosen:
        assert_near(spread[number], exact[number].grad)


@compiled
@pytest.mark.parametrize("least", [0, LEAST])
@pytest.mark.parametrize("width", [2, 30, 1152])
def test_gated_gelu_and_its_gradient(width, least):
    x, grad, factor = rows(9, 2 * width, scale=2.0), rows(9, width), 1 / KEEP if least else 1.0
    exact = x.float().requires_grad_()
    mask = kept((9, width)) if least else 1.0
    wanted = F.gelu(exact[:, :width]) * exact[:, width:] * mask * factor
    wanted.backward(grad.float())
    assert_near(native.gated_gelu(x, factor, SEED, least), wanted.detach())
    assert_near(native.gated_gelu_backward(x, grad, factor, SEED, least), exact.grad)


@compiled
@pytest.mark.parametrize("head", [4, 64])
def test_turning_is_a_rotation_by_place_and_turns_back(head):
    heads = rows(2, 3, 40, head)
    angles = torch.rand(40, head // 2) * 6
    first, second = heads.float().chunk(2, -1)
    turned = heads.clone()
    native.turn_(turned, angles.cos(), angles.sin())
    assert_near(turned[..., : head // 2], first * angles.cos() - second * angles.sin())
    assert_near(turned[..., head // 2 :], second * angles.cos() + first * angles.sin())
    native.turn_(turned, angles.cos(), -angles.sin())
    torch.testing.assert_close(turned.float(), heads.float(), rtol=0.02, atol=0.02)


@compiled
@pytest.mark.parametrize("least", [0, LEAST])
@pytest.mark.parametrize("shape", [(1, 2), (5, 30), (200, 768)])
def test_dropout_residual_and_norm_with_their_gradients(shape, least):
    y, residual, grad = rows(*shape), rows(*shape, scale=2.0), rows(*shape, scale=0.5)
    weight, bias, factor = torch.rand(shape[1]) + 0.5, torch.rand(shape[1]), 1 / KEEP if least else 1.0
    exact_y, exact_residual = y.float().requires_grad_(), residual.float().requires_grad_()
    mask = kept(shape) if least else 1.0
    total = exact_residual + factor * exact_y * mask
    # The sum is rounded to bfloat16 before its statistics are taken, as torch's operators do it.
    wanted = F.layer_norm(total + (total.bfloat16().float() - total).detach(), shape[1:], weight, bias, 1e-2)
    wanted.backward(grad.float())
    out, mean, rstd = native.add_norm_(y, residual, (weight, bias, 1e-2), factor, SEED, least)
    assert_near(y, total.detach())
    assert_near(out, wanted.detach())
    assert mean.shape == rstd.shape == (shape[0], 1)
    dtotal, dy = native.add_norm_backward(grad, (y, mean, rstd, weight), factor, SEED, least)
    assert_near(dtotal, exact_residual.grad)
    assert_near(dy, exact_y.grad)
    passed = rows(*shape)
    also, dy = native.add_norm_backward(grad, (y, mean, rstd, weight), factor, SEED, least, passed)
    assert_near(also, exact_residual.grad + passed.float())
    assert_near(dy, exact_y.grad + passed.float() * mask * factor)


@compiled
@pytest.mark.parametrize(
    "x",
    [torch.ones(4, 6), torch.ones(4, 5).bfloat16(), torch.ones(6, 4).bfloat16().t(), torch.ones(4, 6).half()],
    ids=["float32", "odd width", "transposed", "float16"],
)
def test_rows_that_do_not_fit_are_left_to_torch(x):
    assert not native.fits(x)


def test_activations_that_are_not_gelu_are_called():
    x = rows(4, 8)
    assert torch.equal(activate(x, torch.tanh), torch.tanh(x))
    assert_near(activate(x, torch.nn.GELU()), F.gelu(x.float()))
    assert torch.equal(activate(x, torch.nn.GELU("tanh")), F.gelu(x, approximate="tanh"))


def test_a_run_says_what_the_missing_library_costs_and_how_to_compile_it(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(native, "_library", object())
    assert describing.slowness("bf16", cpu) == ()
    monkeypatch.setattr(native, "_library", None)
    (sentence,) = describing.slowness("bf16", cpu)
    assert re.search(r"takes about [\d.]+ times as long", sentence)
    assert sentence.endswith(install_line())
    monkeypatch.setattr("submillion.errors._PACKAGE", tmp_path / "submillion")
    (sentence,) = describing.slowness("bf16", cpu)
    assert "pip" not in sentence
    assert "install a wheel" in sentence
    assert describing.slowness("fp32", cpu) == describing.slowness("bf16", torch.device("mps")) == ()
    (sentence,) = describing.slowness("fp32", cpu, wants_int8=True)
    assert "up to twice as long, without int8" in sentence


@compiled
def test_the_width_of_vectors_is_a_part_of_the_kind_of_results(monkeypatch):
    before = native.kind()
    monkeypatch.setattr(native, "_n_floats", 12)
    assert native.kind() != before


def test_without_the_library_nothing_fits(monkeypatch):
    monkeypatch.setattr(native, "_library", None)
    assert not native.available()
    assert not native.fits(rows(4, 8))


class _Left(ctypes.Structure):
    """`left` in vectors.h."""

    _fields_ = [("at", ctypes.c_void_p), ("row_step", ctypes.c_int64), ("k_step", ctypes.c_int64)]


@compiled
@pytest.mark.parametrize("n_floats", [16, 8, 4])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("each_number_of_threads", [1], indirect=True)  # it has one
def test_products_in_vectors_of_each_width_are_exact_for_every_number_of_rows(n_floats, adds):
    """Those narrower than here are other processors'."""
    library, multiply = native.library(), native.library().multiply_all
    integers = [ctypes.c_int64] * 4
    multiply.argtypes = [_Left, ctypes.c_void_p, *integers, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    multiply.restype = None
    library.limit_vectors(n_floats)
    try:
        for n_rows in range(1, 26):
            for n_columns, is_turned in ((16, False), (48, True), (64, False)):
                depth = 3 * n_rows + 1
                left = torch.randn(depth, n_rows).t() if is_turned else torch.randn(n_rows, depth)
                right, start = torch.randn(depth, n_columns + 5)[:, :n_columns], torch.randn(n_rows, n_columns + 3)
                out = start.clone()
                sides = (_Left(left.data_ptr(), *left.stride()), right.data_ptr(), right.stride(0))
                multiply(*sides, n_rows, depth, n_columns, out.data_ptr(), out.stride(0), adds)
                wanted = start.double()
                wanted[:, :n_columns] = left.double() @ right.double() + adds * wanted[:, :n_columns]
                torch.testing.assert_close(out.double(), wanted, rtol=0, atol=1e-5 * depth**0.5)
                assert torch.equal(out[:, n_columns:], start[:, n_columns:])
    finally:
        library.limit_vectors(16)


SCRIPT = """
import resource
import numpy as np
from submillion.model.packed import native

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(64 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

np.ones(64 << 20, np.uint8)
before = faults()
native.keep_freed()
np.ones(64 << 20, np.uint8)
print(before, faults())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="no glibc"
)
@pytest.mark.parametrize("each_number_of_threads", [1], indirect=True)  # a process of its own
def test_freed_memory_is_kept():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    if tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))) >= (2, 35):
        assert after < before / 4


has_tiles = pytest.mark.skipif(not native.has_tiles(), reason="this processor has no matrix tiles")
# Depths: one visit to the sums, several, a shorter last one; rows near one another, and far. Widths: parts of blocks.
SHAPES = [(32, 32), (384, 96), (416, 192), (768, 768), (768, 224), (3072, 96), (2080, 448)]
N_ROWS = [1, 15, 16, 17, 33, 225, 700]  # a tile has 16


@has_tiles
@pytest.mark.parametrize(
    ("shape", "n_rows", "transposed"),
    sorted(case for k in (0, 3, 5) for case in each(SHAPES, N_ROWS[k:] + N_ROWS[:k], [k > 0, k < 5])),
)
def test_a_product_is_the_exact_one_rounded_once(shape, n_rows, transposed):
    depth, width = shape
    weight = rows(width, depth).t() if transposed else rows(depth, width)
    x, bias, start = rows(n_rows, depth), rows(width), rows(n_rows, width, scale=20.0)
    exact = x.double() @ weight.double()
    packed = native_products.packed(weight)
    for begin in (None, bias, start):
        wanted = exact if begin is None else exact + begin.double()
        found = native_products.multiply(x, packed, None if begin is None else begin.clone())
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-5 * float(exact.abs().max()))


@has_tiles
def test_a_row_s_product_does_not_depend_on_other_rows_their_number_or_threads():
    weight, x = native_products.packed(rows(768, 768)), rows(1000, 768)
    whole = native_products.multiply(x, weight, None)
    torch.set_num_threads(1)
    for first, last in ((0, 1), (3, 50), (17, 1000)):
        assert torch.equal(native_products.multiply(x[first:last].clone(), weight, None), whole[first:last])


@has_tiles
def test_a_product_reads_rows_that_stand_apart_and_overwrites_what_it_starts_from():
    weight, wide = rows(64, 96), rows(40, 200)
    part = wide[:, 30:94]
    start = rows(40, 96)
    found = native_products.multiply(part, native_products.packed(weight), start)
    assert found.data_ptr() == start.data_ptr()
    assert_near(found, part.float() @ weight.float() + rows(40, 96).float())


@pytest.mark.parametrize(("depth", "width"), [(50, 64), (64, 50)])
def test_products_that_do_not_fit_are_left_to_torch(depth, width):
    weight = torch.nn.Parameter(rows(width, depth), requires_grad=False)
    x = rows(7, depth)
    assert not native_products.fits_weight(torch.bfloat16, depth, width)
    assert not native_products.fits_weight(torch.int8, depth, width)
    frozen = weights.frozen([weight])
    assert_near(frozen.forward(x), x.float() @ weight.float().t())
    assert_near(frozen.backward(rows(7, width)), rows(7, width).float() @ weight.float())


@pytest.mark.parametrize("in_int8", [False, True])
def test_a_weight_that_changes_in_place_is_seen_and_one_behind_its_back_after_stack(in_int8: bool):
    """In int8 there is a copy on every processor, in bf16 only where there are tiles."""
    weight, x = torch.nn.Parameter(rows(64, 64), requires_grad=False), rows(5, 64)
    weights.multiply_in_int8([weight], in_int8)

    def product() -> torch.Tensor:
        return weights.frozen([weight]).forward(x)

    before = product()
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(product(), before * 2)
    weight.data *= 2
    weights.stack([weight])
    assert torch.equal(product(), before * 4)
    weight.data = rows(64, 64)
    assert torch.equal(product(), before)


def test_weights_of_one_input_become_one_and_keep_their_values():
    parts = [torch.nn.Parameter(rows(32 * i, 64), requires_grad=False) for i in (1, 2, 3)]
    wanted = torch.cat([part.data for part in parts])
    assert weights.frozen(parts) is None
    weights.stack(parts)
    whole = weights.frozen(parts)
    assert torch.equal(whole.matrix, wanted)
    assert weights.frozen(parts) is whole
    assert torch.equal(weights.frozen(parts[1:]).matrix, wanted[32:])
