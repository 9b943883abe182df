"""Every saved adapter, loaded in a fresh process by transformers and PEFT alone, gives the same logits."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from submillion.model import adapters
from tests.adapted import HEADS, LABELS, METHODS, SEPARATE, adapted, shaken, stock_model
from tests.kit import forks
from tests.kit.pairs import each
from tests.kit.strangers import STRANGER
from tests.tiny import FAMILIES, PADDED, TEXTS

# What a stranger would write: nothing of submillion, one process for all folders.


@pytest.fixture(scope="module")
def reloaded(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """{(family, head, method): (our logits, a stranger's, the label names a stranger reads)}."""
    parent = tmp_path_factory.mktemp("adapters")
    ours, folders = {}, {}
    for number, case in enumerate(_cases()):
        family, head, method = case
        options = {"method": "none"} if method == "none" else METHODS[method]
        model, _ = adapted(encoders[family], head, **options)
        tokenizer = AutoTokenizer.from_pretrained(encoders[family])
        with torch.no_grad():
            ours[case] = shaken(model)(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
        folders[case] = parent / str(number)
        fresh = stock_model(encoders[family])[1]
        adapters.save(model, folders[case], tokenizer, LABELS, str(encoders[family]), fresh)
    wanted = [
        [str(folder), None if method == "none" else str(encoders[family]), len(LABELS)]
        for (family, _, method), folder in folders.items()
    ]
    found, stdin = str(parent / "logits"), json.dumps([TEXTS, wanted])
    done = forks.run(STRANGER, os.environ, "peft", words=[found], stdin=stdin)
    assert done.returncode == 0, done.stderr[-3000:]
    logits, names = load_file(parent / "logits"), json.loads(done.stdout)
    return {case: (ours[case], logits[str(folders[case])], names[str(folders[case])]) for case in ours}


def _cases() -> list[tuple[str, str, str]]:
    """Each kind of PEFT's on each family, and full fine-tuning; each variant on one; each other head."""
    kinds = {*product(FAMILIES, ("lora", "dora", "adalora", "ia3", "none")), *each(SEPARATE, METHODS)}
    kinds |= {*product(PADDED, ("lora", "none")), *each(PADDED, ["dora", "adalora", "ia3", "pissa"])}
    others = [place for place in HEADS if place[1] != "full"]
    cases = [*((family, "full", method) for family, method in kinds), *((*place, "lora") for place in others)]
    return sorted([*cases, *((*place, "adalora-bias-all") for place in others if place[0] in ("bert", "roberta"))])


@pytest.mark.parametrize("case", _cases(), ids="-".join)
def test_a_stranger_gets_the_same_logits_and_label_names(reloaded, case) -> None:
    ours, theirs, names = reloaded[case]
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    assert (ours.max(0).values - ours.min(0).values).max() > 1e-3, "logits that hardly differ prove nothing"
    assert names == list(LABELS)


def test_a_random_frozen_parameter_is_not_saved_silently(encoders, tmp_path) -> None:
    """BERT's pooler, where the checkpoint lacks it, is random: frozen and unsaved under a linear head."""
    folder = tmp_path / "no-pooler"
    folder.mkdir()
    for file in encoders["bert"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(encoders["bert"] / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    fresh = stock_model(folder)[1]
    for head in ("full", "bottleneck"):
        adapters.refuse_unsaved(adapted(folder, head)[0], fresh)
    model, _ = adapted(folder, "linear")
    with pytest.raises(Exception, match=r"use model.head: full or bottleneck"):
        adapters.save(model, tmp_path / "adapter", AutoTokenizer.from_pretrained(folder), LABELS, "base", fresh)
    assert not (tmp_path / "adapter").exists()
