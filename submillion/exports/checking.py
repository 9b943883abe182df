"""An exported folder, loaded as a stranger would, judged against the run on the same rows.

From texts to logits with the folder's own files: only transformers for a merged checkpoint, only onnxruntime and
tokenizers for a graph. Float32 formats must give the run's logits; int8 must be shown to lose less accuracy than a
margin. Shapes: N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from submillion.data import Example
from submillion.errors import ExportError
from submillion.exports.formats import GRAPH
from submillion.exports.manifest import Format
from submillion.judging import metrics
from submillion.judging.comparison import Difference, mcnemar, rows_needed
from submillion.judging.metrics import Score
from submillion.model.backbone import quiet
from submillion.model.batching.order import EVALUATION_TOKENS
from submillion.reports.usage import Reads
from submillion.training.evaluation import probabilities

# Of logits in float32, since run and export add in different orders. Over 2,000 rows of a trained MiniLM 1e-5 is seen;
# 1e-4 moves a probability by at most 5e-5.
TOLERANCE = 1e-4
MARGIN = 0.01  # the most accuracy that int8 may lose, a share of rows; docs/export.md says why
_BATCH_ROWS = 64
_N_ALONE = 16  # rows that are computed one at a time, as in a service: no padding, another shape

Texts = Sequence[Example]
Logits = Callable[[Texts], np.ndarray]


@dataclass(frozen=True)
class Parity:
    """How far an export's logits are from the run's in float32: the largest and the mean distance, the tolerance of the
    largest (None if none is promised), rows, and rows with the same label, or the same several."""

    max_difference: float
    mean_difference: float
    tolerance: float | None
    n: int
    n_same_label: int


@dataclass(frozen=True)
class Accuracy:
    """The run's accuracy in float32 and the export's on the same rows, the export's minus the run's, paired, and the
    rows that only one of the two has right. A row with several labels is right if all of them are."""

    run: Score
    export: Score
    difference: Difference
    n_discordant: int


@dataclass(frozen=True)
class Checks:
    """How an export compares with its run; accuracy is None if rows have no labels."""

    rows: str
    parity: Parity
    accuracy: Accuracy | None

    def values(self) -> dict[str, Any]:
        """Return the checks as in the manifest."""
        return asdict(self)


def logits(kind: Format, folder: Path, examples: Texts, reads: Reads, watch: Callable[[int], object]) -> np.ndarray:
    """Return the folder's logits, float32 [N, C], as the code of its card gives them; `watch` is called with the number
    of rows done.

    The longest rows come first, in batches; some are computed alone.
    """
    model = _merged(folder, reads) if kind == "merged" else _graph(folder, reads)
    order = sorted(range(len(examples)), key=lambda i: -_n_characters(examples[i]))
    alone = order[:: max(1, len(order) // _N_ALONE)][:_N_ALONE]
    rest = [i for i in order if i not in set(alone)]
    size = max(1, min(_BATCH_ROWS, EVALUATION_TOKENS // (reads.max_length * reads.max_windows)))
    batches = [[i] for i in alone] + [rest[start : start + size] for start in range(0, len(rest), size)]
    logits_of, n_done = {}, 0
    for batch in batches:
        logits_of |= dict(zip(batch, model([examples[i] for i in batch]), strict=True))
        n_done += len(batch)
        watch(n_done)
    return np.stack([logits_of[i] for i in range(len(examples))])


def judge(
    kind: Format,
    rows: str,
    exported: np.ndarray,
    reference: np.ndarray,
    label_ids: np.ndarray | None,
    thresholds: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Checks:
    """Return how an export's logits compare with the run's, float32 [N, C]; label_ids int64 [N], or None.

    thresholds: the run's, float64 [C], for several labels; label_ids are then [N, C], 0 or 1 · groups: of rows that are
    not independent of each other, int64 [N].
    """
    distance = np.abs(exported.astype(np.float64) - reference)
    decided = [_decided(logits, thresholds) for logits in (reference, exported)]
    same = metrics.equal_rows(decided[0], decided[1])
    tolerance = None if kind == "onnx-int8" else TOLERANCE
    parity = Parity(float(distance.max()), float(distance.mean()), tolerance, len(exported), int(same.sum()))
    if label_ids is None:
        return Checks(rows, parity, None)
    rights = [metrics.equal_rows(each, label_ids) for each in decided]
    scores = [metrics.share(right, groups) for right in rights]
    n_discordant = int((rights[0] != rights[1]).sum())
    return Checks(rows, parity, Accuracy(scores[0], scores[1], mcnemar(rights[1], rights[0], groups), n_discordant))


def _decided(logits: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Return the label of each row, int64 [N]; for several which are given, bool [N, C]."""
    if thresholds is None:
        return logits.argmax(axis=1)
    return probabilities(logits, has_several=True) >= thresholds


def refuse(kind: Format, checks: Checks, margin: float | None) -> None:
    """Raise an ExportError if the export differs too much from its run.

    A float32 format: if a logit is further off than the tolerance, or not finite. int8: unless the 95 % interval of its
    accuracy minus the run's is above -margin: a test of non-inferiority at the one-sided level 0.025.
    """
    parity = checks.parity
    if parity.tolerance is not None and not parity.max_difference <= parity.tolerance:
        raise ExportError(
            f"{kind} is refused: its logits differ from the run's by up to {parity.max_difference:.2g} on {parity.n:,} "
            f"rows, and {parity.tolerance:g} is allowed; this is a bug in the export, not a fault of your input"
        )
    if not np.isfinite(parity.max_difference):
        raise ExportError(f"{kind} is refused: some of its logits are NaN or infinite; use --format onnx")
    if margin is not None and checks.accuracy is not None and checks.accuracy.difference.low <= -margin:
        raise ExportError(_inferior(kind, checks.accuracy, margin))


def _inferior(kind: Format, accuracy: Accuracy, margin: float) -> str:
    difference = accuracy.difference
    seen = (
        f"{kind} is refused: its accuracy minus the run's is {difference.value:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}] on {difference.n:,} rows, and the 95 % interval must lie "
        f"above {-margin:g} (--margin)"
    )
    ways = "use --format onnx, or allow more with --margin"
    if difference.value <= -margin:
        return f"{seen}; {ways}"
    at_best = math.ceil(metrics.Z_95**2 * (1 - margin) / margin)  # if no label changes, by the same interval
    # With as many changed labels as these rows allow: few rows show fewer, and the number would be too small.
    most_discordant = metrics.wilson(accuracy.n_discordant, difference.n).high
    n_rows = max(at_best, rows_needed(difference.value + margin, most_discordant) or 0)
    return (
        f"{seen}: too few rows to tell; {at_best:,} labelled ones would do if int8 changed no label, {n_rows:,} if it "
        f"changed as many as these rows allow (--data FILE); or {ways}"
    )


def _n_characters(example: Example) -> int:
    return len(example.text) + len(example.text_pair or "")


def _merged(folder: Path, reads: Reads) -> Logits:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        ).eval()

    @torch.no_grad()
    def logits(examples: Texts) -> np.ndarray:
        texts = [example.text for example in examples]
        pairs = None if examples[0].text_pair is None else [str(example.text_pair) for example in examples]
        if reads.kind == "head-tail":
            ids = [_ends(each, reads) for each in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
            return model(**tokenizer.pad({"input_ids": ids}, return_tensors="pt", verbose=False)).logits.numpy()
        windows = {"stride": reads.stride, "return_overflowing_tokens": True} if reads.kind == "windows" else {}
        inputs = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="pt", **windows)
        if not windows:
            return model(**inputs).logits.numpy()
        text_of = inputs.pop("overflow_to_sample_mapping")
        is_read = torch.arange(len(text_of)) - torch.searchsorted(text_of, text_of) < reads.max_windows
        window_logits = model(**{name: values[is_read] for name, values in inputs.items()}).logits.numpy()
        return _pooled(window_logits, np.bincount(text_of[is_read]), reads)

    return logits


def _graph(folder: Path, reads: Reads) -> Logits:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # it follows neither OMP_NUM_THREADS nor torch
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    pad_id, has_windows = (tokenizer.padding or {})["pad_id"], reads.kind == "windows"
    if reads.kind == "head-tail":
        tokenizer.no_padding()

    def logits(examples: Texts) -> np.ndarray:
        encodings = tokenizer.encode_batch([e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples])
        windows = [[each, *each.overflowing][: reads.max_windows] if has_windows else [each] for each in encodings]
        rows = [each for of_text in windows for each in of_text]
        columns = {
            "input_ids": [each.ids for each in rows],
            "attention_mask": [each.attention_mask for each in rows],
            "token_type_ids": [each.type_ids for each in rows],
        }
        if reads.kind == "head-tail":
            columns = _padded_ends(columns, pad_id, reads)
        inputs = {name: np.array(columns[name], dtype=np.int64) for name in names}
        row_logits = np.asarray(session.run(["logits"], inputs)[0])
        return (
            _pooled(row_logits, np.array([len(of_text) for of_text in windows]), reads) if has_windows else row_logits
        )

    return logits


def _ends(tokens: list[int], reads: Reads) -> list[int]:
    """Return both ends of a longer text's tokens."""
    return tokens if len(tokens) <= reads.max_length else tokens[: reads.n_first] + tokens[-reads.n_last :]


def _padded_ends(columns: dict[str, list[list[int]]], pad_id: int, reads: Reads) -> dict[str, list[list[int]]]:
    """Return the columns of the texts' ends, each row padded to the longest."""
    ends = {name: [_ends(row, reads) for row in rows] for name, rows in columns.items()}
    longest, padding = max(map(len, ends["input_ids"])), {"input_ids": pad_id}
    return {name: [row + [padding.get(name, 0)] * (longest - len(row)) for row in rows] for name, rows in ends.items()}


def _pooled(logits: np.ndarray, n_windows: np.ndarray, reads: Reads) -> np.ndarray:
    """Return the logits of texts, [B, C], from those of their windows, [W, C]."""
    of_texts = np.split(logits, np.cumsum(n_windows)[:-1])
    return np.stack([each.mean(axis=0) if reads.pooling == "mean" else each.max(axis=0) for each in of_texts])
