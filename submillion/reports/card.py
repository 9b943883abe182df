"""The model card of an adapter's folder or an export's: YAML that the Hub reads, and below it what people need.

No licence is claimed: the encoder's and the data's decide it, and neither is known here. Paths of this machine are left
out; a file is named without its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from submillion.config import DataConfig
from submillion.data.sources import MEMORY, kind_of
from submillion.judging.metrics import NAMES, leading
from submillion.planning import architectures
from submillion.reports.findings import answer
from submillion.reports.page import plain, table_lines
from submillion.reports.run import Report
from submillion.reports.usage import Reads, reads_of
from submillion.runs import Run

_HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "mcc": "matthews_correlation", "subset_accuracy": "accuracy"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_ADAPTER = """\
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
config = AutoConfig.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained({base!r}, config=config)
model = PeftModel.from_pretrained(model, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
"""
FULL = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
config = model.config
"""
PAIRS = "give the tokenizer a second list, `tokenizer(texts, pairs, ...)`"


@dataclass(frozen=True)
class Loading:
    """How the card's folder is loaded: the front matter's own keys and tags, Python code, what it needs for pairs, the
    sections after it, and whether the run's scores are the folder's too."""

    facts: dict[str, str]
    tags: tuple[str, ...]
    code: str
    pairs: str
    sections: tuple[str, ...] = ()
    is_run: bool = True


def markdown(run: Run, report: Report, loading: Loading | None = None) -> str:
    """Return the card of a run: YAML between two lines of dashes, then Markdown. `loading` None: for its adapter."""
    settings, plan = run.config(), report.plan
    name, base = settings.model.name, base_of(run, report)
    reads = reads_of(run)
    loading = loading or _of_adapter(base, plan.method, reads, thresholds_of(report))
    facts = yaml.safe_dump(_facts(report, base, settings.data, loading), sort_keys=False, allow_unicode=True)
    result = answer(report)
    lines = [
        f"---\n{facts}---\n",
        f"# {report.run}\n",
        f"{plain(shown(base or name))}, fine-tuned to {_task(report)}: "
        f"{plain(', '.join(report.labels[:30]))}{' and more' if len(report.labels) > 30 else ''}. "
        f"{plan.total:,} of {plan.all_params:,} parameters were trained (method {plan.method}).\n",
        "" if loading.is_run else "The scores are those of the run; what this folder keeps of them is below.\n",
        f"## {plain(result.title)}\n",
        *(f"{plain(sentence)}\n" for sentence in result.sentences),
        *("\n".join(table_lines(table)) + "\n" for table in result.tables),
        f"## How to use it\n\n```python\n{loading.code}```\n",
        "" if settings.data.text_pair is None else f"Rows are pairs: {loading.pairs}.\n",
        *(f"{section}\n" for section in loading.sections),
        "## Limits\n",
        f"Trained on {report.data['rows']['train']:,} texts of at most {reads.max_length} tokens; longer ones "
        f"{reads.words()}. The scores hold for rows drawn like these. {_limit(report)}\n",
    ]
    return "\n".join(line for line in lines if line)


def _task(report: Report) -> str:
    if report.several is None:
        return f"tell {len(report.labels)} classes apart"
    return f"say which of {len(report.labels)} labels a text has"


def _limit(report: Report) -> str:
    if report.several is None:
        return "Every text gets one of the classes, even one that fits none."
    return "A text gets every label whose probability reaches its threshold, which may be none."


def thresholds_of(report: Report) -> dict[str, float] | None:
    """Return the probability from which each label is predicted; None if rows have one label."""
    return None if report.several is None else dict(zip(report.labels, report.several.thresholds, strict=True))


def _of_adapter(base: str, method: str, reads: Reads, thresholds: Mapping[str, float] | None) -> Loading:
    code = reads.stock_code(FULL if method == "none" else _ADAPTER.format(base=base), thresholds)
    library = "transformers" if method == "none" else "peft"
    return Loading({"library_name": library}, () if method == "none" else (method,), code, PAIRS)


def base_of(run: Run, report: Report) -> str:
    """Return the name that the base model is loaded by: as in PEFT's settings, or the encoder's public name."""
    if report.plan.method == "none":
        name = report.plan.architecture.name
        return architectures.hub_id(name) or name
    return str(run.read_json("adapter/adapter_config.json").get("base_model_name_or_path"))


def shown(base: str) -> str:
    """Return the base model's name without the folders of this machine.

    >>> shown("/home/me/my-encoder"), shown("FacebookAI/roberta-base")
    ('my-encoder', 'FacebookAI/roberta-base')
    """
    return Path(base).name if Path(base).is_absolute() else base


def _facts(report: Report, base: str, data: DataConfig, loading: Loading) -> dict[str, Any]:
    """The front matter, as https://huggingface.co/docs/hub/model-cards describes it."""
    facts: dict[str, Any] = dict(loading.facts)
    if _HUB_ID.fullmatch(base):
        facts["base_model"] = base
    facts["pipeline_tag"] = "text-classification"
    facts["tags"] = ["text-classification", "submillion", *loading.tags]
    if not loading.is_run:
        return facts
    scores = report.scores[report.split]
    usual = ("accuracy", "macro_f1") if report.several is None else ("micro_f1", "macro_f1", "subset_accuracy")
    results = {
        "task": {"type": "text-classification"},
        "dataset": _dataset(data, report),
        "metrics": [
            {"type": _HUB_METRICS.get(key, key), "value": scores[key].value}
            | ({} if key == "accuracy" else {"name": NAMES[key]})
            for key in dict.fromkeys((leading(scores)[0], *usual))
        ],
    }
    facts["model-index"] = [{"name": report.run, "results": [results]}]
    return facts


def _dataset(data: DataConfig, report: Report) -> dict[str, str]:
    source = "unknown" if data.source in (None, MEMORY) else data.source
    name = source if kind_of(source) in ("hub", "packaged") else Path(source).name
    of_hub = {"config": data.config, "revision": data.revision}
    return {"name": name, "type": name, "split": report.split} | {key: value for key, value in of_hub.items() if value}
