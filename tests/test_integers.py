"""Products with frozen weights in int8: how far they may be from the exact ones, and where they are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.gpu_check import job, trained
from submillion import planning
from submillion.config import Config
from submillion.data import Splits
from submillion.errors import ConfigError
from submillion.model import precisions
from submillion.model.classifier import Classifier
from submillion.model.packed import integers, native, native_products, weights
from submillion.model.packed.integers import IntegerWeight, _quantised
from submillion.model.packed.structure import _weight
from submillion.training import preparing
from tests.adapted import LABELS
from tests.kit.gpu import Encoders, classifier, random_split
from tests.tiny import FAMILIES, PADDED, make_encoder, settings

CPU = torch.device("cpu")
# Rows of more than 4 KiB are copied; the last two fit no tile, and one of them no pair of elements.
SHAPES = [(64, 32), (768, 96), (832, 192), (768, 768), (3072, 224), (4160, 96), (50, 34), (51, 33)]


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normal numbers, some of them ten times as large, as encoders have them."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = torch.randn(shape, generator=generator)
    return (x * torch.where(torch.rand(shape, generator=generator) < 0.01, 10.0, 1.0)).bfloat16()


@pytest.fixture(params=["as here", "without tiles", "by torch", "without the library"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "as here":
        monkeypatch.setattr(native, "_has_tiles", False)
    if request.param in ("by torch", "without the library"):
        monkeypatch.setattr(native, "_has_integers", False)
    if request.param == "without the library":
        monkeypatch.setattr(native, "_library", None)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("n_rows", [1, 17, 300])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_within_what_rounding_both_sides_may_do(shape: tuple[int, int], n_rows: int) -> None:
    x, matrix = rows(n_rows, shape[0]), rows(*shape)
    row_scales, column_scales = (largest.double() / 127 for largest in (x.abs().amax(1), matrix.abs().amax(0)))
    exact = x.double() @ matrix.double()
    by_columns = x.double().abs().sum(1)[:, None] * column_scales / 2
    by_rows = row_scales[:, None] / 2 * (matrix.double().abs().sum(0) + shape[0] * column_scales / 2)
    for start in (None, rows(shape[1]), rows(n_rows, shape[1], seed=5)):
        wanted = exact if start is None else exact + start.double()
        found = IntegerWeight.of(matrix).product(x, None if start is None else start.clone())
        assert found.dtype == torch.bfloat16
        bound = (by_columns + by_rows) * 1.001 + wanted.abs() * 2**-7
        assert bool(((found.double() - wanted).abs() <= bound).all())
        assert float((found.double() - wanted).square().mean().sqrt()) < 0.08 * float(exact.square().mean().sqrt())


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reach", [None, torch.arange(64.0) + 1], ids=["plain", "evened"])
def test_rows_of_zeros_tiny_rows_and_rows_that_are_not_finite(reach: torch.Tensor | None) -> None:
    x, matrix = rows(5, 64), rows(64, 32)
    x[0], x[1], x[2, 3], x[3, 7] = 0, 1e-40, float("inf"), float("nan")
    found = IntegerWeight.of(matrix, reach).product(x, None)
    assert bool((found[0] == 0).all())
    assert bool((found[1].abs() < 1e-36).all())
    assert bool(found[2:4].isnan().all()), "what is not a number is not hidden"
    assert bool(found[4].isfinite().all())


@pytest.mark.skipif(not native.available(), reason="kernels.c was not compiled here")
def test_the_compiled_quantising_is_the_one_in_torch() -> None:
    x = rows(40, 200)[:, 20:150]  # rows that stand apart
    x[3], x[5, 1] = 0, float("-inf")
    (found, scales), (wanted, wanted_scales) = native_products.quantised(x), _quantised(x)
    torch.testing.assert_close(scales, wanted_scales, rtol=1e-6, atol=0, equal_nan=True)
    difference = (found.int() - wanted.int()).abs()
    assert int(difference.max()) <= 1, "C rounds once, torch the product first"
    assert float(difference.float().mean()) < 0.01


def test_where_products_saturate_weights_have_seven_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_has_tiles", False)
    monkeypatch.setattr(native, "_has_integers", False)
    matrix = torch.full((64, 32), 3.0, dtype=torch.bfloat16)
    assert int(IntegerWeight.of(matrix).values.max()) == integers._most_of_weights()
    monkeypatch.setattr(integers, "_most_of_weights", lambda: 63)
    weight = IntegerWeight.of(matrix)
    assert int(weight.values.max()) == 63
    assert torch.allclose(weight.product(torch.ones(2, 64).bfloat16(), None), torch.tensor(192.0).bfloat16())


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("depth", [768, 3072])  # whose 500 rows stay in the caches at once, and not
def test_a_row_does_not_depend_on_other_rows_or_threads(depth: int) -> None:
    weight, x = IntegerWeight.of(rows(depth, 192)), rows(500, depth)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    whole = weight.product(x, None)
    for n_threads, first, last in ((2, 0, 1), (1, 0, 500), (1, 3, 50), (2, 0, 100), (1, 17, 500)):
        torch.set_num_threads(n_threads)
        assert torch.equal(weight.product(x[first:last].clone(), None), whole[first:last])
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("depth", [64, 832, 8192])
@pytest.mark.parametrize("n_rows", [*range(1, 15), 25, 240, 507])
def test_sums_of_integers_are_exact_at_their_largest(n_rows: int, depth: int) -> None:
    if not integers.is_exact():
        pytest.skip("weights have 7 bits here")
    generator = torch.Generator().manual_seed(n_rows + depth)
    x, matrix = (
        torch.randint(-127, 128, shape, generator=generator).bfloat16() for shape in ((n_rows, depth + 8), (depth, 96))
    )
    x, matrix[0] = x[:, :depth], 127  # rows that stand apart; then all scales are 1
    x[:, 0], x[0], matrix[:, 0], matrix[:, 1] = 127, 127, 127, -127
    found = IntegerWeight.of(matrix).product(x, None)
    assert torch.equal(found, (x.double() @ matrix.double()).bfloat16())


@pytest.mark.skipif(not native.has_integers(), reason="this processor has no AVX-512 VNNI")
@pytest.mark.parametrize("n_rows", [1, 11, 150])
def test_rows_become_the_integers_that_quantising_them_alone_gives(
    n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_has_tiles", False)
    x, matrix = rows(n_rows, 128), rows(128, 64)
    x[0] = torch.arange(128) / 2  # ties
    x[0, -1] = 127
    values, scales = native_products.quantised(x)
    ours = IntegerWeight.of(matrix)
    monkeypatch.setattr(native, "_has_integers", False)
    weight = IntegerWeight.of(matrix)
    exact = (values.double() @ weight.values.double().t()).float() * (scales[:, None] * weight.scales)
    found = ours.product(x, None)
    assert torch.equal(found[0], exact[0].bfloat16()), "ties go to even in both"
    # Others may differ by one where a compiler rounds a product before it is added to.
    assert float((found.float() - exact).square().mean().sqrt()) < 0.005 * float(exact.square().mean().sqrt())


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("shape", SHAPES)
def test_columns_that_are_larger_in_every_row_do_not_spoil_the_others(shape: tuple[int, int]) -> None:
    x, matrix = rows(300, shape[0]), rows(*shape)
    x[:, 5] *= 64
    matrix[5] /= 16  # as in encoders that were trained: a weight asks little of columns that are always large
    exact, reach = x.double() @ matrix.double(), x.abs().amax(0).float()
    plain, found = (IntegerWeight.of(matrix, each).product(x, None) for each in (None, reach))
    errors = [float((each.double() - exact).square().mean().sqrt()) for each in (plain, found)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.usefixtures("_way")
def test_columns_are_made_smaller_by_powers_of_two_and_none_larger_whatever_is_expected_of_them() -> None:
    reach, matrix = torch.tensor([1.0, 1.0, 40.0, 0.0, 1e30, 1e-30, float("nan"), 1.0] * 8), rows(64, 96)
    matrix[8], matrix[9] = 0, 1e-30
    weight = IntegerWeight.of(matrix, reach)
    factors = weight.column_factors
    assert factors is not None
    mantissas, _ = torch.frexp(factors.float())
    assert bool((mantissas == 0.5).all())
    assert float(factors[2]) < float(factors[0]) == float(factors.max()) == 1
    assert float(factors.min()) >= 2**-8
    x = rows(20, 64)
    assert bool(weight.product(x, None).isfinite().all())
    assert bool(IntegerWeight.of(torch.zeros(64, 96), torch.zeros(64)).product(x, None).eq(0).all())


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert"])
def test_what_the_norm_before_a_feed_forward_puts_out_is_evened(family: str, tmp_path: Path) -> None:
    model = classifier(Encoders(tmp_path)(family), "full", "int8", CPU)
    layer = model._prepared().layers[0]
    norm = layer.attention_norm
    with torch.no_grad():
        norm.weight[3] = 40.0
    model._walk = None
    layer = model._prepared().layers[0]
    sites = {site: weights.frozen([_weight(module)]) for site, module in layer.sites.items()}
    assert [site for site, weight in sites.items() if weight.reach is not None] == ["ffn_in"]
    weight, x = sites["ffn_in"], rows(9, len(norm.weight))
    reach = 3 * norm.weight.detach().abs() + (0 if norm.bias is None else norm.bias.detach().abs())
    plain, evened = (IntegerWeight.of(weight.matrix.t(), each).product(x, None) for each in (None, reach))
    assert torch.equal(weight.forward(x), evened)
    assert not torch.equal(evened, plain)
    dy = rows(9, len(weight.matrix))
    assert torch.equal(weight.backward(dy), IntegerWeight.of(weight.matrix).product(dy, None)), "no norm is before it"


def test_a_weight_is_in_int8_while_it_is_said_so() -> None:
    weight, x = torch.nn.Parameter(rows(64, 128), requires_grad=False), rows(9, 128)
    plain = weights.frozen([weight]).forward(x)
    weights.multiply_in_int8([weight], True)
    found = weights.frozen([weight])
    assert torch.equal(found.forward(x), IntegerWeight.of(weight.t()).product(x, None))
    assert torch.equal(found.backward(rows(9, 64)), IntegerWeight.of(weight.detach()).product(rows(9, 64), None))
    assert not torch.equal(found.forward(x), plain)
    weights.multiply_in_int8([weight], False)
    assert torch.equal(weights.frozen([weight]).forward(x), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_in_int8_nearly_what_it_computes_in_float32(family: str, tmp_path: Path) -> None:
    encoder = Encoders(tmp_path)(family)
    batch = random_split(24, seed=1, longest=100).batch(np.arange(24))
    exact, near, own = (classifier(encoder, "full", each, CPU).eval() for each in ("fp32", "bf16", "int8"))
    with torch.no_grad():
        wanted, rounded, found = (each(batch) for each in (exact, near, own))
    assert not torch.equal(found, rounded), "its products are in int8"
    assert float((found - wanted).abs().mean()) < 0.05 * float(wanted.std())


def test_a_training_in_int8_learns_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    split, encoders = random_split(96, seed=3, longest=60), Encoders(tmp_path)
    whole = trained(job(encoders, CPU, split, n_steps=16, precision="int8"))
    losses, parameters = trained(job(encoders, CPU, split, n_steps=16, precision="int8"))
    assert losses == whole[0]
    assert all(torch.equal(value, whole[1][name]) for name, value in parameters.items())
    other, _ = trained(job(encoders, CPU, split, n_steps=16, precision="bf16"))
    assert losses != other
    assert np.allclose(losses, other, atol=0.1)


@pytest.mark.parametrize(
    ("family", "method", "reason"),
    [("bert", "dora", "adapter.method is dora"), (PADDED[0], "lora", "the packed pass does not know")],
)
def test_int8_is_refused_where_it_would_not_be_used(family: str, method: str, reason: str, tmp_path: Path) -> None:
    adapter: dict[str, Any] = {"method": method}
    config = settings(make_encoder(family, tmp_path / family), "full", **adapter)
    plan = planning.plan(config, len(LABELS))
    with pytest.raises(ConfigError, match=reason):
        Classifier.build(config, plan, LABELS, 20, "int8", CPU)


def asked(config: Config) -> preparing.Question:
    splits = Splits([], [], [], LABELS, LABELS, "", None, ())
    return preparing.Question(config, splits, planning.plan(config, len(LABELS)), (), as_trial=False)


@pytest.mark.parametrize(
    ("family", "method", "sizes", "changes", "is_what"),
    [
        ("bert", "lora", {}, {}, "proved"),
        ("bert", "dora", {}, {}, "unsuited"),
        ("bert", "lora", {"n_layers": 7}, {}, "unproved"),
        ("bert", "lora", {"width": 448, "n_heads": 14}, {}, "unproved"),
        ("bert", "lora", {"n_heads": 4}, {}, "unsuited"),
        ("roberta", "lora", {}, {}, "unproved"),
        ("bert", "lora", {}, {"chunk_size_feed_forward": 4}, "unsuited"),
    ],
)
def test_unasked_int8_is_taken_only_where_it_was_proved(
    family: str, method: Any, sizes: dict[str, int], changes: dict[str, int], is_what: str, tmp_path: Path
) -> None:
    encoder = make_encoder(family, tmp_path / family, **{"width": 64, "n_heads": 2, **sizes})
    file = encoder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    config = settings(encoder, "full", method=method)
    question = asked(config)
    assert preparing._int8(question) == is_what
    assert preparing._int8(replace(question, as_trial=True)) == "unsuited", "a study's trials have one precision"


def test_unasked_int8_is_not_taken_with_weights_of_seven_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(make_encoder("bert", tmp_path / "bert", width=64, n_heads=2), "full")
    monkeypatch.setattr(native, "_has_tiles", False)
    monkeypatch.setattr(native, "_has_integers", False)
    for most, is_what in ((127, "proved"), (63, "unsuited")):
        monkeypatch.setattr(integers, "_most_of_weights", lambda most=most: most)
        assert preparing._int8(asked(config)) == is_what


def test_unasked_int8_is_not_taken_without_the_c_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_library", None)
    config = settings(make_encoder("bert", tmp_path / "bert", width=64, n_heads=2), "full")
    assert preparing._int8(asked(config)) == "unsuited"


def test_int8_is_for_cpus() -> None:
    with pytest.raises(ConfigError, match=r"train\.precision is int8: on device cuda allowed are fp32, bf16, fp16"):
        precisions.choose_precision("int8", torch.device("cuda"))
