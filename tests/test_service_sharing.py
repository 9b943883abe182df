"""Laws of shared encoders: a run answers as it does alone, whoever shares its weights and its batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from submillion import prediction
from submillion.model import backbone
from submillion.model.packed import forward, mixing
from submillion.prediction import ensemble
from submillion.prediction.sharing import Loaded, Loader
from submillion.serving import models
from submillion.serving.models import Models, Row
from tests.adapted import FUSED, HEADS, METHODS
from tests.kit.untrained import TWO, make_run
from tests.tiny import PADDED, TEXTS

# Every family with a full head, and the other heads where the dense layer is part of the stock head, or not.
FAMILY_HEADS = [
    (family, head) for family, head in HEADS if head == "full" or family in ("bert", "roberta", "modernbert")
]


def tokenized(loaded: Loaded, texts: tuple[str, ...]) -> list[Row]:
    return models.rows([(loaded, [(text, None) for text in texts])])[0]


def predicted(runs: list[Loaded]) -> list[np.ndarray]:
    """What each run's own `predict` says."""
    return [prediction.predict(loaded.run.path, TEXTS).probs for loaded in runs]


def mixed(runs: list[Loaded], alone: list[np.ndarray]) -> list[tuple[Row, np.ndarray]]:
    """Every run's rows in one batch in any order, each with what the run says alone."""
    expected = [
        (row, probs)
        for loaded, own in zip(runs, alone, strict=True)
        for row, probs in zip(tokenized(loaded, TEXTS), own, strict=True)
    ]
    return [expected[i] for i in np.random.default_rng(0).permutation(len(expected))]


def check(runs: list[Loaded]) -> None:
    rows = mixed(runs, predicted(runs))
    for (_, expected), found in zip(rows, models.probs([row for row, _ in rows]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
def test_runs_of_one_encoder_answer_as_alone_in_mixed_batches(
    encoders: dict[str, Path], family: str, head: str, tmp_path: Path
) -> None:
    encoder, loader = encoders[family], Loader()
    query = "qkv" if family in FUSED else "query"
    adapters = [{}, {"rslora": True, "sites": (query, "ffn_out"), "rank": {query: 2, "ffn_out": 3}}]
    adapters.append({"sites": ("ffn_in", query), "rank": 2, "layers": "top:1"})
    made = [make_run(tmp_path, encoder, head=head, **adapter) for adapter in adapters]
    made.append(make_run(tmp_path, encoder, TWO, head))
    runs = [loader.load(run) for run in made]
    check(runs)
    assert {loaded.classifier.is_mixable for loaded in runs} == {family not in PADDED}
    assert len({loaded.encoder for loaded in runs}) == len({loaded.tokenizer for loaded in runs}) == 1
    embeddings = {loaded.classifier.model.get_input_embeddings().weight.data_ptr() for loaded in runs}
    assert len(embeddings) == 1


def test_every_method_answers_as_alone_beside_the_others(encoders: dict[str, Path], tmp_path: Path) -> None:
    loader, encoder = Loader(), encoders["bert"]
    runs = {name: loader.load(make_run(tmp_path, encoder, **adapter)) for name, adapter in METHODS.items()}
    runs["none"] = loader.load(make_run(tmp_path, encoder, method="none"))
    runs["roberta"] = loader.load(make_run(tmp_path, encoders["roberta"]))
    check(list(runs.values()))
    shared = {name for name, loaded in runs.items() if loaded.encoder is runs["lora"].encoder}
    # PiSSA and OLoRA are saved as LoRA on the weights as they were
    assert shared == set(METHODS) - {"bias-all", "bias-lora-only", "adalora-bias-all"}
    own = {name for name in shared if not runs[name].classifier.is_mixable}
    assert own == {"dora", "ia3", "adalora"}
    check(list(runs.values()))  # and nobody changed what others share


def test_an_encoder_goes_with_its_last_run_and_the_least_used_first(encoders: dict[str, Path], tmp_path: Path) -> None:
    bert = [make_run(tmp_path, encoders["bert"]) for _ in range(3)]
    roberta, electra = (make_run(tmp_path, encoders[family]) for family in ("roberta", "electra"))
    models = Models(n_encoders=2)
    for run in (bert[0], roberta, *bert[1:]):
        models.get(run)
    assert len(models.loaded()) == 4
    models.get(electra)
    assert {loaded.run.name for loaded in models.loaded()} == {run.name for run in (*bert, electra)}
    shutil.rmtree(bert[1].path)
    models.forget_gone()
    assert len(models.loaded()) == 3
    assert models.get(bert[0]) is models.find(bert[0])


def test_another_encoder_under_the_same_path_is_refused_before_it_is_shared(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    loader = Loader()
    run, other = (make_run(tmp_path, encoders["bert"]) for _ in range(2))
    other.write_json("environment.json", {"encoder_sha256": "0" * 64})
    other.mark_done()
    first = loader.load(run)
    with pytest.raises(Exception, match="does not hold the weights"):
        loader.load(other)
    check([first])


@pytest.mark.parametrize("is_noted", [False, True], ids=["older runs", "runs with a hash"])
def test_runs_that_have_only_a_name_on_the_hub_do_not_share_what_may_differ(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded, loader = [], Loader()
    (tmp_path / "runs").mkdir()
    for number, name in enumerate(("one", "two", "two")):
        storage = tmp_path / "hub" / f"models--org--{name}"
        encoder = storage / "snapshots" / (str(len(name)) * 40)
        if number < 2:
            shutil.copytree(encoders["bert"], encoder)
            tensors = load_file(encoder / "model.safetensors")
            changed = {key: tensor * (1 + number / 10) for key, tensor in tensors.items()}
            save_file(changed, encoder / "model.safetensors", {"format": "pt"})
            (storage / "refs").mkdir()
            (storage / "refs" / "main").write_text(encoder.name)
        run = make_run(tmp_path / "runs", encoder)
        file = run.path / "adapter" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": f"org/{name}"}))
        if is_noted:
            noted = {"encoder_sha256": backbone.weights_sha256(str(encoder))}
            run.write_json("environment.json", {**(run.environment() or {}), **noted})
        run.mark_done()
        loaded.append(loader.load(run))
    check(loaded)
    assert (loaded[1].encoder is loaded[2].encoder) == is_noted
    assert loaded[0].encoder is not loaded[1].encoder


def test_bf16_agrees(encoders: dict[str, Path], tmp_path: Path) -> None:
    runs = [make_run(tmp_path, encoders["bert"]) for _ in range(2)]
    loader = Loader("bf16")
    loaded = [loader.load(run) for run in runs]
    rows = mixed(loaded, predicted(loaded))
    for (_, expected), found in zip(rows, models.probs([row for row, _ in rows]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("n_rows", [1, 7, 200, 1000])
@pytest.mark.parametrize("n_models", [1, 3, 20])
def test_each_row_has_one_place_in_a_lot_of_its_own_model(n_rows: int, n_models: int) -> None:
    rng = np.random.default_rng(n_rows)
    owners = np.concatenate([np.arange(n_models), rng.integers(-1, n_models, n_rows)])
    lots = mixing._lots(owners, torch.device("cpu"))
    rows = np.flatnonzero(owners >= 0)
    places = lots.put.numpy()[rows]
    size = len(lots.take) // len(lots.model)
    assert len(set(places.tolist())) == len(rows)
    np.testing.assert_array_equal(lots.take.numpy()[places], rows)
    np.testing.assert_array_equal(lots.model.numpy()[places // size], owners[rows])
    assert len(lots.take) < len(rows) + n_models * size, "at most a lot too many for each model"


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("layers", [["top:1"] * 3, ["top:1", "all", "top:1"]], ids=["a prefix is shared", "none is"])
def test_a_text_for_several_runs_is_answered_as_by_each_and_goes_through_shared_layers_once(
    encoders: dict[str, Path], tmp_path: Path, family: str, layers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [make_run(tmp_path, encoders[family], layers=None if each == "all" else each) for each in layers]
    loader, rows_of_layers = Loader(), list[int]()
    runs = [loader.load(run) for run in made]
    full = forward._full

    def counted(layer, state, tiles, is_in_steps):
        rows_of_layers.append(len(state[0]))
        return full(layer, state, tiles, is_in_steps)

    monkeypatch.setattr(forward, "_full", counted)
    alone = predicted(runs)
    n_alone = len(rows_of_layers)
    rows = mixed(runs, alone)
    rows_of_layers.clear()
    for (_, expected), found in zip(rows, models.probs([row for row, _ in rows]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    distinct = sum(len(row.tokens) for row in tokenized(runs[0], TEXTS))
    assert (rows_of_layers[0] < 2 * distinct) == ("all" not in layers)
    rows_of_layers.clear()
    several = prediction.predict([run.path for run in made], TEXTS).probs
    np.testing.assert_array_equal(several, np.mean(alone, axis=0))
    assert (len(rows_of_layers) < n_alone) == ("all" not in layers)


def test_runs_that_predict_together_share_one_encoder(encoders: dict[str, Path], tmp_path: Path) -> None:
    made = [make_run(tmp_path, encoders["bert"]), make_run(tmp_path, encoders["bert"], method="ia3")]
    found = ensemble.Ensemble(ensemble.members([run.path for run in made]))
    weights = {each.classifier.model.get_input_embeddings().weight.data_ptr() for each in found.loaded}
    assert len(weights) == 1
