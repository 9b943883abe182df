"""Teachers: their runs, whether they may teach, and their logits, computed once and kept.

A teacher is a finished run, or the settings of one that `workflow` trains first, like any other run. Its logits are a
column of the training split; `losses` has the loss that reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from submillion import config, data, runs
from submillion.config import Config, Precision
from submillion.data import Example, Splits, cache
from submillion.data.duplicates import key_of
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, DataError, RunError, SubmillionError
from submillion.judging import metrics
from submillion.model import adapters, batching, precisions
from submillion.model.batching import TokenizedSplit, order
from submillion.model.classifier import Classifier, encoder_of
from submillion.model.packed import native
from submillion.model.prefix import computed_key
from submillion.runs import Run
from submillion.text import closest
from submillion.training import evaluation
from submillion.training.losses import log_probs

Place = tuple[torch.device, Precision]
_FORMAT = 1  # raised when the same teacher and texts would give other logits, or the file changes
_KIND, _FILE = "teacher-logits", "logits.npy"
_BATCH_ROWS = 128  # fixed, since in lower precision a row's last bits depend on its batch


def asked(settings: Config, chain: tuple[str, ...] = ()) -> tuple[Run | Config, ...]:
    """Return the teachers that the settings name, in their order: finished runs, checked, and settings to train first.

    A recipe's name takes precedence, then a config file, then a run: its folder, or its folder's name, name or hash in
    `out`. A recipe or a file gets the student's data section, `out` and `device`. `chain` are the recipes that led
    here. One ConfigError lists all that cannot teach, teachers of teachers included.
    """
    problems: list[str] = []
    teachers: list[Run | Config] = []
    for text in _names(settings):
        try:
            teachers.append(_recipe(text, settings, chain) or _finished(text, settings.out))
        except SubmillionError as error:
            problems += [f"distillation.teacher {text}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return tuple(teachers)


def check(teachers: Sequence[Run], settings: Config, splits: Splits) -> tuple[str, ...]:
    """Return warnings about finished teachers; one DataError names those that may not teach on these splits, and why.

    A teacher has the student's labels, in any order, and reads single texts or pairs as the student does. None of the
    student's validation and test rows may be in its training split. If both held out the same rows, nothing has to be
    read; else its data are read again, with a warning if they are gone.
    """
    problems, warnings = list[str](), list[str]()
    for run in teachers:
        problems += _other_labels(run, splits)
        teacher_settings = run.config()
        if (teacher_settings.data.text_pair is None) != (settings.data.text_pair is None):
            kinds = ("single texts", "pairs") if teacher_settings.data.text_pair is None else ("pairs", "single texts")
            problems.append(f"teacher {run.path} reads {kinds[0]}, but data.text_pair makes {kinds[1]} of these rows")
        _check_rows(run, splits, problems, warnings)
    if problems:
        raise DataError(*problems)
    return tuple(warnings)


def identity(run: Run) -> str:
    """Return 32 hex digits of all that decides a run's logits: weights, tokenizer, labels, how texts are read."""
    files = run.read_json("DONE")["files"]
    weights = {name: sha for name, sha in files.items() if name.startswith("adapter/") or name == "labels.json"}
    encoder = (run.environment() or {}).get("encoder_sha256")
    model = run.config().model
    facts: list[object] = [weights, encoder, model.max_length]
    if model.long_texts != "cut":
        facts.append([asdict(Reading.of(model)), model.window_pooling])
    return cache.key_of(json.dumps(facts, sort_keys=True))


def identified(settings: Config, teachers: Sequence[Run]) -> Config:
    """Return the settings with each teacher's identity in place of its name, for the hash that names a run.

    The hash then changes with the teacher, but not with its path or recipe.
    """
    if not teachers:
        return settings
    distillation = settings.distillation.model_copy(update={"teacher": tuple(identity(run) for run in teachers)})
    return settings.model_copy(update={"distillation": distillation})


def summary(teachers: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what `teachers.json` holds for each teacher: folder, identity, encoder, labels, validation accuracy."""
    return [
        {
            "run": run.name,
            "path": str(run.path.resolve()),
            "identity": identity(run),
            "model": run.config().model.name,
            "labels": list(run.labels()),
            **{f"validation_{name}": vars(score) for name, score in [metrics.leading(run.scores()["validation"])]},
        }
        for run in teachers
    ]


def logits(
    teacher: Run,
    examples: Sequence[Example],
    labels: Sequence[str],
    place: Place,
    watch: Callable[[int], object],
) -> tuple[np.ndarray, str]:
    """Return a teacher's logits for the examples, float32 [N, C] with columns in the order of `labels`, and a note.

    They are read from the cache, or else computed now, on the device and in the precision of `place`, and `watch`
    called with the number of rows done. A teacher may not use int8: it is replaced by the precision measured here. If
    the cache cannot be written, the note says why.
    """
    device, precision = place
    if precision == "int8":
        precision, _ = precisions.choose_precision(None, device)
    classifier = Classifier.load(teacher, device.type, precision)
    reading = Reading.of(teacher.config().model)
    split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, reading)
    teacher_logits, note = _found_or_computed(teacher, classifier, split, watch)
    return teacher_logits[:, [classifier.labels.index(label) for label in labels]], note


def mean_logits(teachers: Sequence[np.ndarray], temperature: float, has_several: bool = False) -> np.ndarray:
    """Return the logits, float32 [N, C], whose softmax (for several labels, sigmoid) at the temperature is the mean of
    the teachers'.

    Their gradient is then the mean of the teachers' gradients, and a teacher with large logits does not outvote the
    others, as it would in a mean of logits (docs/decisions/012-teachers.md). A single teacher's logits are unchanged.
    """
    if len(teachers) == 1:
        return teachers[0]
    stacked = torch.from_numpy(np.stack(teachers)).double() / temperature
    mean = torch.logsumexp(log_probs(stacked, has_several), dim=0) - np.log(len(teachers))
    if has_several:
        mean = mean[..., 0] - mean[..., 1]
    return (temperature * mean).float().numpy()


def _names(settings: Config) -> tuple[str, ...]:
    """Return the texts in `distillation.teacher`; none without a teacher."""
    teacher = settings.distillation.teacher
    return (teacher,) if isinstance(teacher, str) else teacher or ()


def _recipe(text: str, settings: Config, chain: tuple[str, ...]) -> Config | None:
    """Return the settings of a teacher that is a recipe or a config file; its own teachers are checked too."""
    if text in config.recipe_names():
        origin, recipe = text, config.load(recipe=text)
    elif text.endswith((".yaml", ".yml")):
        origin = str(Path(os.path.expanduser(text)).resolve())
        recipe = config.load(origin)
    else:
        return None
    if origin in chain:
        raise ConfigError(f"a recipe cannot teach itself ({' → '.join((*chain, origin))}): name another teacher there")
    recipe = recipe.model_copy(update={"data": settings.data, "out": settings.out, "device": settings.device})
    asked(recipe, (*chain, origin))
    return recipe


def _finished(text: str, out: str) -> Run:
    try:
        path = runs.locate(text, out)
    except RunError as error:
        names = config.recipe_names()
        meant = closest(text, names)
        which = f": did you mean the recipe {meant!r}?" if meant else f" (recipes: {', '.join(names)})"
        end = "" if str(error).endswith("?") else "."
        raise RunError(f"{error}{end} A recipe or a config file (.yaml) may be named too{which}") from None
    run = runs.load(path)
    runs.verify(run)
    encoder_of(run)
    return run


def _other_labels(run: Run, splits: Splits) -> list[str]:
    if run.has_several() != splits.has_several:
        kinds = ("several labels", "one label")
        theirs, ours = kinds if run.has_several() else kinds[::-1]
        return [f"teacher {run.path} gives a row {theirs}, but these rows have {ours}: train it on rows like these"]
    theirs, labels = run.labels(), splits.labels
    missing, extra = ([label for label in a if label not in b] for a, b in ((labels, theirs), (theirs, labels)))
    if not missing and not extra:
        return []
    differences = [f"it lacks {', '.join(map(repr, missing))}"] if missing else []
    differences += [f"it has {', '.join(map(repr, extra))}, which the rows do not have"] if extra else []
    return [f"teacher {run.path} has different labels: {'; '.join(differences)}; train it on rows with the same labels"]


def _check_rows(run: Run, splits: Splits, problems: list[str], warnings: list[str]) -> None:
    """Add a problem if the teacher was trained on rows that the splits hold out, a warning if that is unknown."""
    facts = run.read_json("data.json")
    held_out = {data.fingerprint(splits.validation), splits.test_fingerprint} - {None}
    if held_out <= {facts.get("validation_fingerprint"), facts.get("test_fingerprint")}:
        return  # no row that a run holds out is in its own training split: `data` refuses that
    texts = _training_texts(run, facts.get("fingerprint"))
    if texts is None:
        warnings.append(
            f"teacher {run.name} held out different rows, and its training rows are no longer there to compare: if "
            "validation or test rows of this run are among them, scores are too high"
        )
        return
    held_rows = {"validation": splits.validation, "test": splits.test}
    shared = {name: sum(key_of(example) in texts for example in examples) for name, examples in held_rows.items()}
    if any(shared.values()):
        counts = " and ".join(f"{n:,} {name} rows" for name, n in shared.items() if n)
        problems.append(
            f"teacher {run.path} was trained on {counts} of this run, whose scores would be too high: train it with "
            "this run's data section (a recipe or a config file as teacher gets it)"
        )


def _training_texts(run: Run, fingerprint: str | None) -> set[str] | None:
    """Return the texts of a run's training split, read again; None if its data are gone or have changed."""
    try:
        splits = data.read(run.config().data)
    except SubmillionError:
        return None
    return {key_of(example) for example in splits.train} if splits.fingerprint == fingerprint else None


def _found_or_computed(
    teacher: Run, classifier: Classifier, split: TokenizedSplit, watch: Callable[[int], object]
) -> tuple[np.ndarray, str]:
    key = _key(teacher, classifier, split)
    folder = cache.find(_KIND, key)
    if folder is not None:
        try:
            return np.load(folder / _FILE), "found"
        except OSError:  # another process has just removed it, to make room
            pass
    teacher_logits = evaluation.logits(classifier, split, _BATCH_ROWS, watch)
    evaluation.refuse_not_finite(teacher_logits, split.example_ids, classifier.precision)
    if classifier.fitting.max_tokens is not None:
        return teacher_logits, "computed in smaller batches, and not kept for other runs: their last digits may differ"
    try:
        with cache.filling(_KIND, key) as folder:
            np.save(folder / _FILE, teacher_logits)
    except OSError as error:
        return teacher_logits, f"computed, and not kept for other runs: {error}"
    return teacher_logits, "computed"


def _key(teacher: Run, classifier: Classifier, split: TokenizedSplit) -> str:
    """Return the key of everything that decides the logits: current weights, tokens, and how they are computed."""
    facts = [_FORMAT, *native.conditions(classifier.device), classifier.precision]
    facts += [_BATCH_ROWS, order.EVALUATION_TOKENS]
    # A moved folder holds the same model.
    facts += [identity(teacher), adapters.stock(classifier.model).config.to_dict() | {"_name_or_path": None}]
    # All weights: no other fact covers an encoder of the Hub.
    return computed_key(facts, classifier.model.state_dict().items(), split)
