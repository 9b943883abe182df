"""LoRA in bfloat16 in C (lora.c, vectors.c) is torch's, with dropout and gradients, for all rows and ranks."""

from __future__ import annotations

import pytest
import torch

from submillion.model.packed import linear, native, native_lora
from tests.kit.pairs import pairwise

SEED, LEAST = 0x123456789ABCDEF, 6554

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="the C functions were not compiled"),
    pytest.mark.usefixtures("each_number_of_threads", "on_tiles_and_in_vectors"),
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n_rows: int, depth: int, width: int, rank: int, n_layers: int = 1) -> tuple[torch.Tensor, ...]:
    """x, y and its gradient in bfloat16, the last two as columns of wider rows; down and up, float32, of layers side by
    side."""
    x, wide, dwide = random(n_rows, depth), random(n_rows, width + 40, seed=1), random(n_rows, width + 40, seed=2)
    y, dy = wide.bfloat16()[:, 32 : 32 + width], dwide.bfloat16()[:, 32 : 32 + width]
    return x.bfloat16(), y, dy, 0.1 * random(n_layers * rank, depth, seed=3), 0.1 * random(width, rank, seed=4)


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to within bfloat16's rounding, of the values and of what they are sums of."""
    torch.testing.assert_close(found.double(), wanted, rtol=2**-6, atol=2**-7 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("n_rows", "widths", "rank", "n_layers", "least", "adds"),
    pairwise(
        [1, 15, 16, 33, 100], [(32, 96), (384, 192), (64, 1536)], [1, 20, 32, 60], [1, 2, 3], [0, LEAST], [False, True]
    ),
)
def test_lora_and_its_gradients_are_the_exact_ones_rounded(n_rows, widths, rank, n_layers, least, adds):
    depth, width = widths[0], widths[1] // n_layers // 32 * 32 * n_layers
    x, y, dy, down, up = inputs(n_rows, depth, width, rank, n_layers)
    if n_layers > 1 and not native_lora.takes_stacked(x):
        pytest.skip("on tiles factors are of one layer")
    kept = torch.ones_like(x)
    if least:
        native.drop(kept, SEED, least, kept)
    wide, wide_down, wide_up = (each.double().requires_grad_() for each in (x, down, up))
    added = (wide * kept.double()) @ wide_down.t() @ torch.block_diag(*wide_up.chunk(n_layers)).t()
    wanted = y.double() + added.detach()
    beside = y._base[:, :32].clone() if y._base is not None else None
    low = native_lora.add_(y, x, (down, up), (SEED, least))
    assert_near(y, wanted)
    assert y._base is not None
    assert torch.equal(y._base[:, :32], beside)
    assert_near(low[:, : len(down)], ((wide * kept.double()) @ wide_down.t()).detach())
    assert not low[:, len(down) :].any()
    added.backward(dy.double())
    start = random(*x.shape, seed=5).bfloat16() if adds else None
    begun = 0.0 if start is None else start.double()
    saved = (x, low, down, up)
    dx, ddown, dup = native_lora.backward(dy, saved, (SEED, least), start, wants_dx=True)
    assert dx is not None
    assert_near(dx, wide.grad + begun)
    assert_near(ddown, wide_down.grad)
    assert_near(dup, wide_up.grad)
    none, *others = native_lora.backward(dy, saved, (SEED, least), None, wants_dx=False)
    assert none is None
    assert all(map(torch.equal, others, (ddown, dup)))


def test_results_do_not_depend_on_threads_and_a_row_not_on_others():
    x, y, dy, down, up = inputs(70, 64, 96, 20)
    alone = y[3:40].clone()
    low = native_lora.add_(y, x, (down, up), (SEED, 0))
    grads = native_lora.backward(dy, (x, low, down, up), (SEED, LEAST), None, wants_dx=True)
    torch.set_num_threads(1)
    native_lora.add_(alone, x[3:40].clone(), (down, up), (SEED, 0))
    assert torch.equal(alone, y[3:40])
    again = native_lora.backward(dy, (x, low, down, up), (SEED, LEAST), None, wants_dx=True)
    assert all(map(torch.equal, grads, again))


def test_factors_in_bfloat16_give_the_same_as_in_float32():
    x, y, _, down, up = inputs(33, 64, 96, 20)
    other = y.clone()
    native_lora.add_(y, x, (down, up), (SEED, 0))
    native_lora.add_(other, x, (down.bfloat16(), up.bfloat16()), (SEED, 0))
    assert torch.equal(other, y)


def test_what_does_not_fit_is_left_to_torch(monkeypatch):
    x, _, _, down, up = inputs(3, 64, 32, 20)
    assert native_lora.fits(x, down, up)
    assert not native_lora.fits(x.float(), down, up)
    assert native_lora.fits(x, down.bfloat16(), up.bfloat16())
    assert not native_lora.fits(x, down.double(), up)
    assert not native_lora.fits(x[:, :48], down[:, :48], up)
    assert not native_lora.fits(x, down, up[:20])
    monkeypatch.setattr(native, "_library", None)
    assert not native_lora.fits(x, down, up)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_stacked_factors_are_those_of_one_block_diagonal_matrix(n_layers):
    _, _, _, down, up = inputs(4, 64, 96, 5, n_layers)
    lora = linear.Lora(down, up, 0)
    assert lora.n_layers == n_layers
    whole = lora.whole_up()
    assert whole.shape == (96, 5 * n_layers)
    for number, (own, layer) in enumerate(zip(whole.chunk(n_layers), up.chunk(n_layers), strict=True)):
        assert torch.equal(own[:, 5 * number : 5 * number + 5], layer)
        assert own.count_nonzero() == layer.count_nonzero()
