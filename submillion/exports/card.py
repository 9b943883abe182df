"""The README.md of an exported folder: the run's model card with the export's own checks and code to load it."""

from __future__ import annotations

import yaml

from submillion import reports
from submillion.exports.checking import Accuracy, Checks
from submillion.exports.manifest import Format
from submillion.planning.architectures import files
from submillion.reports import card
from submillion.reports.card import Loading
from submillion.reports.page import plain
from submillion.reports.usage import reads_of
from submillion.runs import Run
from submillion.text import interval

_GRAPH = """\
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = "."  # this folder
with open(f"{folder}/config.json", encoding="utf-8") as file:
    labels = json.load(file)["id2label"]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # TOKENIZER_DOES
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])

LOGITS\
"""
_ONE = """\
exps = np.exp(logits - logits.max(axis=1, keepdims=True))
probs = exps / exps.sum(axis=1, keepdims=True)
print([labels[str(i)] for i in probs.argmax(axis=1)])
"""
_SEVERAL = """\
probs = 1 / (1 + np.exp(-logits))  # of each label by itself: a text may have several, or none
with open(f"{folder}/manifest.json", encoding="utf-8") as file:
    thresholds = np.array(json.load(file)["facts"]["thresholds"])  # chosen on the validation rows
print([[labels[str(i)] for i in np.flatnonzero(row)] for row in probs >= thresholds])
"""


def markdown(run: Run, kind: Format, checks: Checks, margin: float | None) -> str:
    """Return the card. Its scores are the run's, from its saved predictions; the checks are the export's."""
    report, reads = reports.read(run), reads_of(run)
    licence = _licence(card.base_of(run, report), report.plan.architecture.revision)
    sections = (_checks(kind, checks, margin, run.has_several()), licence)
    is_run = kind != "onnx-int8"
    match kind:
        case "merged":
            facts = {"library_name": "transformers", "base_model_relation": "finetune"}
            code = reads.stock_code(card.FULL, card.thresholds_of(report))
            loading = Loading(facts, (), code, card.PAIRS, sections, is_run)
        case "onnx" | "onnx-int8":
            facts = {"base_model_relation": "finetune" if kind == "onnx" else "quantized"}
            tags = ("onnx",) if kind == "onnx" else ("onnx", "int8")
            pairs = "give `encode_batch` a list of pairs, `(text, second text)`"
            code = _GRAPH.replace("TOKENIZER_DOES", reads.tokenizer_words()).replace("LOGITS", reads.graph_code())
            code += _SEVERAL if run.has_several() else _ONE
            loading = Loading(facts, tags, code, pairs, sections, is_run)
    return card.markdown(run, report, loading)


def _checks(kind: Format, checks: Checks, margin: float | None, has_several: bool) -> str:
    """Return what was measured when the folder was made, in sentences."""
    parity = checks.parity
    rows = "validation rows of the run" if checks.rows == "validation" else f"rows of {plain(checks.rows)}"
    same = "the same labels by the run's thresholds" if has_several else "the same label"
    n_same = f"{parity.n_same_label:,} of {parity.n:,} rows have {same}"
    lines = [
        "## What this export was checked for",
        f"This folder ({kind}) was loaded on its own and given the {parity.n:,} {rows}. Against the run in float32 its "
        f"logits differ by at most {parity.max_difference:.1e}"
        + (f" ({parity.tolerance:g} is allowed)" if parity.tolerance is not None else "")
        + f", {parity.mean_difference:.1e} on average; {n_same}.",
    ]
    if checks.accuracy is not None:
        lines.append(_accuracy(checks.accuracy, margin, has_several))
    if kind == "onnx-int8":
        lines.append(
            "The texts of a batch share the scales of their activations: a text's logits depend a little on its "
            "neighbours. Most rows were given in batches, where scales are coarser than alone."
        )
    lines.append("`manifest.json` has these numbers, the versions they were measured with, and the hash of every file.")
    return "\n\n".join(lines)


def _accuracy(accuracy: Accuracy, margin: float | None, has_several: bool) -> str:
    difference = accuracy.difference
    noun = "accuracy (the share of rows with all labels right)" if has_several else "accuracy"
    text = (
        f"On these rows its {noun} is {interval(accuracy.export)}, the run's in float32 {interval(accuracy.run)}; "
        f"the difference, paired, is {interval(difference, sign='+')}."
    )
    if margin is None:
        return text
    return (
        f"{text} The 95 % interval lies above {-margin:g}: a loss of accuracy of {margin:g} or more is ruled out, at "
        "the one-sided level 0.025 (non-inferiority). A gain is not claimed."
    )


def _licence(base: str, revision: str | None) -> str:
    """Return what is known about the licence of the weights inside."""
    licence = _licence_of(base, revision)
    statement = "was not at hand" if licence is None else f"says {plain(licence)}"
    return (
        f"## Licence\n\nThis folder holds the weights of {plain(card.shown(base))}, changed by training. Its own card "
        f"{statement}. No licence is claimed here: those of the base model and of the training data decide."
    )


def _licence_of(base: str, revision: str | None) -> str | None:
    """Return the `license` in the front matter of the base model's README.md, if that is on this disk."""
    if (folder := files.at_hand(base, revision)) is None:
        return None
    file = folder / "README.md"
    try:
        parts = file.read_text(encoding="utf-8").split("---", 2)
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return licence if isinstance(licence, str) else None
