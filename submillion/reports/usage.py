"""How a run's texts are read, in the numbers and the code of stock libraries: what a card shows.

A stock model reads one window; which tokens it gets, and what becomes of several windows, is up to the caller. Tests
run the code unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from submillion.config import LongTexts, Pooling
from submillion.data.long_texts import Reading
from submillion.runs import Run

_TEXTS = 'texts = ["a text to classify", "another one"]\n'
_LABELS = """\
probs = logits.softmax(dim=-1)
print([config.id2label[i] for i in probs.argmax(dim=-1).tolist()])
"""
_LABELS_OF_SEVERAL = """\
thresholds = {thresholds!r}
for probs in logits.sigmoid().tolist():
    print([label for i, label in config.id2label.items() if probs[i] >= thresholds[label]])
"""
_STOCK: dict[LongTexts, str] = {
    "cut": """\
tokens = tokenizer(texts, truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
logits = model(**tokens).logits
""",
    "head-tail": """\
# Of texts of more than {max_length} tokens, the first {n_first} and the last {n_last} are read.
whole = tokenizer(texts)["input_ids"]
ids = [each if len(each) <= {max_length} else each[:{n_first}] + each[-{n_last}:] for each in whole]
logits = model(**tokenizer.pad({{"input_ids": ids}}, return_tensors="pt")).logits
""",
    "windows": """\
# Texts of more than {max_length} tokens are read in windows, {max_windows} at most, whose logits are pooled.
tokens = tokenizer(
    texts, truncation=True, max_length={max_length}, stride={stride}, return_overflowing_tokens=True, padding=True,
    return_tensors="pt",
)
text_of = tokens.pop("overflow_to_sample_mapping")
is_read = torch.arange(len(text_of)) - torch.searchsorted(text_of, text_of) < {max_windows}
of_windows = model(**{{name: values[is_read] for name, values in tokens.items()}}).logits
logits = torch.stack([of_windows[text_of[is_read] == i].{pooling}(dim=0) for i in range(len(texts))])
""",
}
_GRAPH_ROWS: dict[LongTexts, str] = {
    "cut": """\
rows = tokenizer.encode_batch(texts)
""",
    "head-tail": """\
# Of texts of more than {max_length} tokens, the first {n_first} and the last {n_last} are read.
pad_id = tokenizer.padding["pad_id"]
tokenizer.no_padding()
ids = [row.ids for row in tokenizer.encode_batch(texts)]
ids = [each if len(each) <= {max_length} else each[:{n_first}] + each[-{n_last}:] for each in ids]
longest = max(map(len, ids))
""",
    "windows": """\
# Texts of more than {max_length} tokens are read in windows, {max_windows} at most, whose logits are pooled.
windows = [[row, *row.overflowing][:{max_windows}] for row in tokenizer.encode_batch(texts)]
rows = [row for of_text in windows for row in of_text]
""",
}
_COLUMNS = """\
columns = {
    "input_ids": [row.ids for row in rows],
    "attention_mask": [row.attention_mask for row in rows],
    "token_type_ids": [row.type_ids for row in rows],
}
"""
_COLUMNS_OF_ENDS = """\
columns = {
    "input_ids": [each + [pad_id] * (longest - len(each)) for each in ids],
    "attention_mask": [[1] * len(each) + [0] * (longest - len(each)) for each in ids],
    "token_type_ids": [[0] * longest for _ in ids],
}
"""
_RUN_GRAPH = """\
names = [each.name for each in session.get_inputs()]  # not every model has token types
(logits,) = session.run(["logits"], {name: np.array(columns[name], dtype=np.int64) for name in names})
"""
_POOL_GRAPH = """\
ends = np.cumsum([len(of_text) for of_text in windows])
logits = np.stack([of_text.{pooling}(axis=0) for of_text in np.split(logits, ends[:-1])])
"""
_TOKENIZERS_DO: dict[LongTexts, str] = {
    "cut": "cuts at {max_length} tokens, pads to the longest text",
    "head-tail": "leaves texts whole",
    "windows": "makes windows of {max_length} tokens, pads to the longest",
}


@dataclass(frozen=True)
class Reads:
    """How a run reads texts, as in stock calls: in tokens, special ones included except in `stride`.

    stride, max_windows, pooling: of windows · n_first, n_last: of both ends of longer texts.
    """

    kind: LongTexts
    max_length: int
    stride: int = 0
    max_windows: int = 1
    pooling: Pooling = "mean"
    n_first: int = 0
    n_last: int = 0

    def values(self) -> dict[str, Any]:
        """Return what a manifest holds of it, besides max_length."""
        names = {"cut": (), "head-tail": ("n_first", "n_last"), "windows": ("stride", "max_windows", "pooling")}
        return {"kind": self.kind} | {name: asdict(self)[name] for name in names[self.kind]}

    def stock_code(self, loading: str, thresholds: Mapping[str, float] | None = None) -> str:
        """Return Python from texts to labels; `loading` makes `tokenizer`, `model` and `config` of transformers.

        thresholds: of each label, if a text may have several.
        """
        imports = "import torch\n" if self.kind == "windows" else ""
        labels = _LABELS if thresholds is None else _LABELS_OF_SEVERAL.format(thresholds=dict(thresholds))
        return imports + loading + _TEXTS + self._filled(_STOCK[self.kind], max="amax") + labels

    def graph_code(self) -> str:
        """Return Python from `tokenizer` of tokenizers and `session` of onnxruntime to the `logits` of texts."""
        rows = _TEXTS + self._filled(_GRAPH_ROWS[self.kind])
        columns = _COLUMNS_OF_ENDS if self.kind == "head-tail" else _COLUMNS
        return rows + columns + _RUN_GRAPH + (self._filled(_POOL_GRAPH) if self.kind == "windows" else "")

    def tokenizer_words(self) -> str:
        """Return what an export's tokenizer does by itself."""
        return self._filled(_TOKENIZERS_DO[self.kind])

    def words(self) -> str:
        """Return what becomes of long texts, as the end of a sentence about them."""
        match self.kind:
            case "cut":
                return "are cut"
            case "head-tail":
                return "are read from both ends"
            case "windows":
                return f"are read in windows, {self.max_windows} at most, and the {self.pooling} of their logits counts"

    def _filled(self, code: str, **pooling: str) -> str:
        values = asdict(self)
        return code.format(**values | {"pooling": pooling.get(self.pooling, self.pooling)})


def reads_of(run: Run) -> Reads:
    """Return how a finished run reads texts."""
    model = run.config().model
    if model.long_texts == "cut":
        return Reads("cut", model.max_length)
    from tokenizers import Tokenizer

    reading, tokenizer = Reading.of(model), Tokenizer.from_file(str(run.path / "adapter" / "tokenizer.json"))
    n_special = tokenizer.num_special_tokens_to_add(False)
    n_first, n_last = reading.kept(tokenizer.encode("a").sequence_ids.index(0), n_special)
    return Reads(
        kind=model.long_texts,
        max_length=model.max_length,
        stride=reading.overlap(n_special),
        max_windows=reading.max_windows,
        pooling=model.window_pooling or "mean",
        n_first=n_first,
        n_last=n_last,
    )
