"""A layer in one C call gives what its steps give, in int8 to the bit, and sees every change of what it is made of."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from submillion.config import Precision
from submillion.model import packed
from submillion.model.batching import Batch
from submillion.model.classifier import Classifier
from submillion.model.packed import forward, native, weights, whole_layers
from tests.kit.gpu import classifier, random_split
from tests.tiny import make_encoder

CPU = torch.device("cpu")
FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet")


@dataclass(frozen=True)
class Kind:
    """Classifiers of one precision."""

    precision: Precision

    def make(self, family: str, folder: Path, **adapter: Any) -> Classifier:
        encoder = make_encoder(family, folder / family, width=128, n_heads=4, n_layers=3)
        return classifier(encoder, "full", self.precision, CPU, **adapter).eval()

    def agree(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether one call gave what steps did: sums of float32 have another order there."""
        return torch.equal(one, other) if self.precision == "int8" else torch.allclose(one, other, rtol=0, atol=1e-5)


@pytest.fixture(params=["int8", "fp32"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    if request.param == "int8" and not native.has_integers():
        pytest.skip("this processor has no AVX-512 VNNI")
    if request.param == "fp32" and native.vector_floats() not in whole_layers._MOST_CELLS:
        pytest.skip("layers in float32 are not one call here")
    monkeypatch.setattr(native, "_has_tiles", False)
    threads = torch.get_num_threads()
    yield Kind(request.param)
    torch.set_num_threads(threads)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, *, is_off: bool = False) -> Iterator[list[bool]]:
    """Note of each layer whether it was one call; let none be where `is_off`."""
    run, found = whole_layers.run, []

    def noted(*arguments: Any, **how: Any) -> torch.Tensor | None:
        out = None if is_off else run(*arguments, **how)
        found.append(out is not None)
        return out

    with monkeypatch.context() as patch:
        patch.setattr(whole_layers, "run", noted)
        yield found


def batch_of(n_texts: int, longest: int = 60) -> Batch:
    return random_split(n_texts, seed=n_texts, longest=longest).batch(np.arange(n_texts))


def both_ways(model: Classifier, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says in one call a layer, and step by step."""
    with torch.no_grad():
        with counted(monkeypatch) as calls:
            whole = model(batch)
        assert calls == [True, True, True]
        with counted(monkeypatch, is_off=True):
            return whole, model(batch)


@pytest.mark.parametrize("n_texts", [1, 2, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_its_steps_come_to(
    kind: Kind, family: str, n_texts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kind.make(family, tmp_path, sites="all-linear", rank=3)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        whole, steps = both_ways(model, batch_of(n_texts), monkeypatch)
        assert kind.agree(whole, steps)


@pytest.mark.parametrize("adapter", [{"sites": "value"}, {"sites": "query,value"}, {"sites": "ffn_out", "rank": 40}])
def test_adapters_on_some_sites(
    kind: Kind, adapter: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = both_ways(kind.make("bert", tmp_path, **adapter), batch_of(5), monkeypatch)
    assert kind.agree(whole, steps)


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_change_of_anything_it_is_made_of_is_seen(
    kind: Kind, is_finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="all-linear"), batch_of(4)
    if is_finished:
        model.requires_grad_(False)
    before, _ = both_ways(model, batch, monkeypatch)
    layer = model._prepared().layers[0]
    value: Any = layer.sites["value"]
    changed: list[torch.nn.Parameter] = [
        layer.attention_norm.weight,
        layer.ffn_norm.bias,
        value.lora_B["default"].weight,
        value.base_layer.weight,
        value.base_layer.bias,
    ]
    for parameter in changed:
        with torch.no_grad():
            parameter.mul_(1.5).add_(0.1)
        whole, steps = both_ways(model, batch, monkeypatch)
        assert kind.agree(whole, steps)
        assert not torch.equal(whole, before)
        before = whole
    value.scaling["default"] *= 2
    layer.ffn_norm.eps = 0.5
    value.lora_A["default"].weight.data = torch.randn(4, 128)
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)
    assert not torch.equal(whole, before)
    assert all(set(layer.noted) == ({is_last} if is_finished else set()) for layer, is_last in _with_last(model))


def _with_last(model: Classifier) -> list[tuple[Any, bool]]:
    layers = model._prepared().layers
    return [(layer, layer is layers[-1]) for layer in layers]


@pytest.mark.parametrize("kind", ["int8"], indirect=True)
def test_another_precision_of_shared_weights_is_seen(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path).requires_grad_(False), batch_of(4)
    both_ways(model, batch, monkeypatch)
    weights.multiply_in_int8([model.get_parameter(name) for name, _ in model.named_parameters()], in_int8=False)
    with torch.no_grad(), counted(monkeypatch) as calls:
        model(batch)
    assert calls == [False, False, False]


def test_a_note_keeps_no_copy_of_weights_that_another_model_prepared_anew(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of many finished runs on one encoder would keep a copy of it."""
    model, batch = kind.make("bert", tmp_path).requires_grad_(False), batch_of(4)
    before, _ = both_ways(model, batch, monkeypatch)
    (note,) = model._prepared().layers[0].noted.values()
    other = copy.copy(model)
    other._walk = None
    other._prepared()
    assert all(copied() is None for copied in note.copies)
    whole, _ = both_ways(model, batch, monkeypatch)
    assert torch.equal(whole, before)


def test_adapters_that_are_switched_off_after_a_note_are_off(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="all-linear").requires_grad_(False), batch_of(4)
    before, _ = both_ways(model, batch, monkeypatch)
    network: Any = model.model
    with network.disable_adapter(), torch.no_grad(), counted(monkeypatch) as calls:
        assert not torch.equal(model(batch), before)
    assert calls == [False, False, False]
    whole, _ = both_ways(model, batch, monkeypatch)
    assert torch.equal(whole, before)


def test_threads_that_predict_first_at_once_see_the_same(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, switch = batch_of(4), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(4):
            model = kind.make("bert", tmp_path / str(number), sites="all-linear").requires_grad_(False)
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda _, model=model: torch.no_grad()(model)(batch), range(8)))
            whole, steps = both_ways(model, batch, monkeypatch)
            assert all(torch.equal(each, whole) for each in found)
            assert kind.agree(whole, steps)
    finally:
        sys.setswitchinterval(switch)


def test_factors_that_became_views_or_were_made_for_inference_are_seen(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="query,value").requires_grad_(False), batch_of(4)
    before, _ = both_ways(model, batch, monkeypatch)
    value: Any = model._prepared().layers[0].sites["value"]
    down, up = value.lora_A["default"], value.lora_B["default"]
    down.weight = torch.nn.Parameter(down.weight.detach()[:2], requires_grad=False)
    up.weight = torch.nn.Parameter(up.weight.detach()[:, :2], requires_grad=False)
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)
    assert not torch.equal(whole, before)
    with torch.inference_mode():
        up.weight = torch.nn.Parameter(up.weight * 2, requires_grad=False)
    with torch.no_grad(), counted(monkeypatch) as calls:
        assert not torch.equal(model(batch), whole)
    assert calls == [False, True, True]


def test_layers_of_which_some_have_a_bias(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = kind.make("bert", tmp_path, sites="value").requires_grad_(False), batch_of(4)
    query: Any = model._prepared().layers[0].sites["query"]
    with torch.no_grad():
        query.bias.zero_()
    before, _ = both_ways(model, batch, monkeypatch)
    query.bias = None
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)
    assert torch.equal(whole, before)


@pytest.mark.parametrize("is_packed", [False, True])
def test_what_trained_between_two_predictions_is_seen(
    kind: Kind, is_packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="all-linear"), batch_of(4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.01, fused=True)
    model.requires_grad_(False)
    before, _ = both_ways(model, batch, monkeypatch)
    for parameter in trained:
        parameter.requires_grad_(True)
    model.packed = is_packed
    torch.nn.functional.cross_entropy(model(batch), batch.label_ids).backward()
    optimiser.step()
    model.packed = True
    model.requires_grad_(False)
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)
    assert not torch.equal(whole, before)


def test_steps_of_an_optimiser_are_seen_which_leave_a_tensors_version_as_it_was(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="all-linear"), batch_of(4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser, seen = torch.optim.AdamW(trained, lr=0.01, fused=True), []
    for _ in range(3):
        whole, steps = both_ways(model, batch, monkeypatch)
        assert kind.agree(whole, steps)
        seen.append(whole)
        torch.nn.functional.cross_entropy(model(batch), batch.label_ids).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert not torch.equal(seen[0], seen[1])


def test_a_copy_of_a_classifier_computes_alike(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = kind.make("bert", tmp_path, sites="value"), batch_of(4)
    whole, _ = both_ways(model, batch, monkeypatch)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again, _ = both_ways(copied, batch, monkeypatch)
        assert torch.equal(again, whole)


def _resized(**shapes: tuple[int, ...]) -> Callable[[Any], None]:
    """What replaces a layer's parameters by some of other shapes: `site_bias`, `norm_weight`, `site_down`."""

    def change(layer: Any) -> None:
        for name, shape in shapes.items():
            site, _, part = name.rpartition("_")
            of = layer.sites[site] if site in layer.sites else getattr(layer, site)
            base = getattr(of, "base_layer", of)
            factors = {"down": ("lora_A", "weight"), "up": ("lora_B", "weight")}
            owner = getattr(of, factors[part][0])["default"] if part in factors else base
            owner.register_parameter(factors[part][1] if part in factors else part, _frozen(torch.randn(shape)))

    return change


def _frozen(values: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)


@pytest.mark.parametrize(
    "change",
    [
        _resized(attention_output_weight=(256, 128), attention_output_bias=(256,)),
        _resized(attention_output_weight=(128, 5120)),
        _resized(ffn_in_weight=(32, 128), ffn_in_bias=(32,)),
        _resized(ffn_in_bias=(4,)),
        _resized(query_bias=(64,)),
        _resized(attention_norm_weight=(4,)),
        _resized(ffn_norm_bias=(4,)),
        _resized(value_down=(3, 8)),
        _resized(value_down=(2, 128)),
        _resized(value_up=(5000, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_left_to_the_steps_which_say_so(
    kind: Kind, change: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C would read what is behind them."""
    model = kind.make("bert", tmp_path, sites="value", rank=3).requires_grad_(False)
    change(model._prepared().layers[1])
    with torch.no_grad(), counted(monkeypatch) as calls, pytest.raises(RuntimeError):
        model(batch_of(4))
    assert calls == [True, False]


def test_parameters_of_any_strides_and_dtypes_are_read(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("mpnet", tmp_path, sites="value").requires_grad_(False), batch_of(4)
    prepared = model._prepared()
    base: Any = prepared.layers[0].sites["ffn_in"]
    base.bias = _frozen(torch.randn(2 * len(base.bias))[::2])
    prepared.layers[1].sites["attention_output"].bias = _frozen(torch.randn(1).expand(128))
    prepared.layers[2].ffn_norm.weight = _frozen(torch.randn(256)[::2])
    prepared.mpnet.relative_attention_bias.half()
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)
    with torch.no_grad(), torch.device("meta"):  # torch's default
        assert torch.equal(model(batch), whole)


def test_norms_that_exchange_their_parameters_are_seen(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="value").requires_grad_(False), batch_of(4)
    one, other = (getattr(model._prepared().layers[0], name) for name in ("attention_norm", "ffn_norm"))
    one.bias, other.weight, other.bias = (_frozen(torch.randn(128)), _frozen(torch.randn(128)), None)
    both_ways(model, batch, monkeypatch)
    one.bias, other.weight, other.bias = None, one.bias, other.weight
    whole, steps = both_ways(model, batch, monkeypatch)
    assert kind.agree(whole, steps)


@pytest.mark.parametrize("kind", ["fp32"], indirect=True)
def test_in_float32_a_far_mean_is_taken_off_and_what_overflows_is_no_number(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, sites="value").requires_grad_(False), batch_of(4)
    out: Any = model._prepared().layers[0].sites["ffn_out"]
    with torch.no_grad():
        out.bias += 1000
    whole, steps = both_ways(model, batch, monkeypatch)
    torch.testing.assert_close(whole, steps, rtol=0, atol=1e-4)
    with torch.no_grad():
        out.weight[0, 0] = 1e30
    whole, _ = both_ways(model, batch, monkeypatch)
    assert whole.isnan().all()


@pytest.mark.parametrize("is_merged", [False, True])
def test_weights_that_are_no_parameters_are_read(
    is_merged: bool, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.nn.utils.prune replaces a parameter by a tensor."""
    model, batch = kind.make("bert", tmp_path, sites="all-linear").requires_grad_(False), batch_of(4)
    site: Any = model._prepared().layers[0].sites["ffn_in"]
    prune.l1_unstructured(site.lora_A["default"], "weight", 0.3)
    if is_merged:
        site.merge()
    with torch.no_grad(), counted(monkeypatch, is_off=True):
        steps = model(batch)
    with torch.no_grad():
        assert kind.agree(model(batch), steps)


@pytest.fixture(params=[16, 8, 4])
def vectors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Products in vectors of so many floats at most: those of other processors."""
    native.library().limit_vectors(request.param)
    yield
    native.library().limit_vectors(16)


@pytest.mark.parametrize("kind", ["fp32"], indirect=True)
@pytest.mark.usefixtures("vectors")
def test_in_float32_a_text_of_any_length_is_alone_and_beside_others_the_same(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of tokens have ends: every number of them, in texts that begin anywhere."""
    model = kind.make("mpnet", tmp_path, sites="all-linear").requires_grad_(False)
    split = random_split(40, seed=0, longest=41, lengths=np.arange(2, 42))
    for first in range(0, 40, 8):
        numbers = np.arange(first, first + 8)
        whole, steps = both_ways(model, split.batch(numbers), monkeypatch)
        assert kind.agree(whole, steps)
        with torch.no_grad():
            together = packed.encode(model._prepared(), split.batch(numbers))
            for number, hidden in zip(numbers, together, strict=True):
                torch.set_num_threads(1 + int(number) % 2)
                assert torch.equal(packed.encode(model._prepared(), split.batch(np.array([number])))[0], hidden)


@pytest.mark.parametrize("kind", ["fp32"], indirect=True)
def test_in_float32_many_rows_are_walked_and_so_are_all_where_vectors_are_narrow(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path), batch_of(20)
    n_cells = forward.laid_out(model._prepared(), batch).n_rows * 64
    for most, n_floats, is_one_call in ((n_cells, 16, True), (n_cells - 1, 16, False), (n_cells, 4, False)):
        monkeypatch.setattr(whole_layers, "_MOST_CELLS", {16: most, 8: most})
        monkeypatch.setattr(native, "_n_floats", n_floats)
        with torch.no_grad(), counted(monkeypatch) as calls:
            model(batch)
        assert calls == [is_one_call] * 3


@pytest.mark.parametrize("kind", ["int8"], indirect=True)
def test_a_feed_forward_wider_than_the_steps_functions_take_is_walked(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder("bert", tmp_path, width=128, n_heads=4, n_layers=2, ffn_width=8256)
    model = classifier(encoder, "full", kind.precision, CPU).eval()
    with torch.no_grad(), counted(monkeypatch) as calls:
        model(batch_of(2))
    assert calls == [False, False]


def test_where_something_trains_or_is_dropped_layers_are_walked(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = kind.make("bert", tmp_path, dropout=0.1), batch_of(4)
    with counted(monkeypatch) as calls:
        model(batch)
    assert calls == [False, False, False]
    with counted(monkeypatch) as calls, torch.no_grad():
        model.train()(batch)
    assert calls == [False, False, False]
