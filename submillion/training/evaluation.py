"""From a model and a split to `Predictions`; batches are large and sorted by length, results keep the rows' order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy import special
from torch import nn

from submillion import runs
from submillion.config import Config, TrainConfig
from submillion.data import Example, Splits, groups_of
from submillion.data.long_texts import Reading
from submillion.errors import NotFiniteError
from submillion.judging import metrics
from submillion.judging.metrics import Predictions, thresholds
from submillion.model import batching, processes
from submillion.model import classifier as models
from submillion.model.batching import ALL, TokenizedSplit, evaluation_rows
from submillion.model.classifier import Classifier
from submillion.runs import Run, Which

_SHOWN_ROWS = 5


def predict(
    classifier: Classifier,
    split: TokenizedSplit,
    batch_size: int,
    watch: Callable[[int], object] | None = None,
    shared: bool = False,
) -> Predictions:
    """Return the probabilities of every row, float64 [N, C], in the split's order; for several labels without
    thresholds yet.

    `watch` is called with the number of rows done after each batch. The classifier is left in
    evaluation mode. `shared`: as in `logits`. NotFiniteError names the rows whose logits are NaN or infinite.
    """
    row_logits = logits(classifier, split, batch_size, watch, shared)
    refuse_not_finite(row_logits, split.example_ids, classifier.precision)
    probs = probabilities(row_logits, classifier.has_several)
    return Predictions(list(split.example_ids), split.label_ids, probs, groups=split.groups)


def probabilities(logits: np.ndarray, has_several: bool) -> np.ndarray:
    """Return the probabilities of classes from their logits [..., C], float64; for several labels each by itself."""
    if has_several:
        # Not torch's: the last bit of its sigmoid depends on a number's place in the array, and so on the rows' order.
        return special.expit(logits.astype(np.float64))
    return torch.softmax(torch.from_numpy(logits).double(), dim=-1).numpy()


def with_own_thresholds(predictions: Predictions, settings: TrainConfig) -> Predictions:
    """Return predictions of validation rows; for several labels with thresholds chosen on the other folds, since one
    chosen on a row itself flatters it."""
    if not predictions.has_several:
        return predictions
    keys = predictions.fold_keys
    row_thresholds = thresholds.out_of_fold(predictions.probs, predictions.label_ids, keys, settings.threshold)
    return replace(predictions, thresholds=row_thresholds)


def logits(
    classifier: Classifier,
    split: TokenizedSplit,
    batch_size: int,
    watch: Callable[[int], object] | None = None,
    shared: bool = False,
) -> np.ndarray:
    """Return the logits of every row, float32 [N, C], in the split's order; else as `predict`.

    `shared`: each process of a launch computes every n-th batch, and all return the whole. Batches are those of one
    process, so the logits are equal to the bit. Batches that do not fit in memory are cut (`Classifier.fitting`), and
    so are the next.
    """
    return several_logits([classifier], split, batch_size, watch, shared)[0]


def several_logits(
    classifiers: Sequence[Classifier],
    split: TokenizedSplit,
    batch_size: int,
    watch: Callable[[int], object] | None = None,
    shared: bool = False,
) -> list[np.ndarray]:
    """Return the logits of each classifier, as `logits` does for one; several share an encoder (`classifier`)."""
    all_logits = [np.zeros((len(split), len(each.labels)), dtype=np.float32) for each in classifiers]
    lengths, device, fitting = split.lengths, classifiers[0].device, classifiers[0].fitting

    @torch.no_grad()
    def compute(rows: np.ndarray) -> None:
        for part in fitting.parts(rows, lengths):
            batch = split.batch(part).to(device)
            for array, values in zip(all_logits, models.several_logits(classifiers, batch), strict=True):
                array[part] = values.cpu().numpy()

    for each in classifiers:
        if each.training:  # all its modules then are; setting each of 200 takes a sixth of a single text's time
            each.eval()
    n_done = 0
    batches = list(evaluation_rows(lengths, batch_size, on_gpu=device.type == "cuda"))
    for rows in batches[processes.part() if shared else ALL]:
        fitting.until_it_fits(partial(compute, rows))
        n_done += len(rows)
        if watch is not None:
            watch(n_done)
    if shared:
        for array in all_logits:
            processes.add_up(torch.from_numpy(array))
    return all_logits


def refuse_not_finite(values: np.ndarray, ids: Sequence[str], precision: str) -> None:
    """Raise a NotFiniteError if a row of logits or probabilities, float [N, C], is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        shown_ids = ", ".join(str(ids[row]) for row in bad[:_SHOWN_ROWS]) + (", ..." if len(bad) > _SHOWN_ROWS else "")
        raise NotFiniteError(
            f"the model's logits are not finite numbers for {len(bad):,} of {len(ids):,} rows (ids {shown_ids}): its "
            f"weights are damaged, or too large for {precision}; train again, in fp32 if that is another precision"
        )


def load(run: Which, device: str | None = None) -> tuple[Classifier, Config]:
    """Return a finished run's classifier and settings; RunError if it is unfinished or damaged.

    device None: the best available here, whatever the run was trained on.
    """
    run = runs.load(run)
    runs.verify(run)
    settings = run.config()
    return Classifier.load(run, device), settings


def predictions_of(
    run: Run, classifier: Classifier, examples: Sequence[Example], watch: Callable[[int], None] | None = None
) -> Predictions:
    """Return a finished run's predictions for examples, by its thresholds; `watch` gets the number of rows done."""
    settings = run.config()
    split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, Reading.of(settings.model))
    predictions = predict(classifier, split, settings.train.evaluation_batch_size, watch)
    return replace(predictions, thresholds=run.thresholds(), groups=groups_of(examples))


def features(run: Run, examples: Sequence[Example]) -> np.ndarray:
    """Return what a finished run's last layer reads for examples, float32 [N, D]; for texts in windows the mean."""
    classifier, settings = load(run)
    split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, Reading.of(settings.model))
    last: list[torch.Tensor] = []

    def note(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        last[:] = [inputs[0].detach().float().flatten(1)]  # the last such layer of a pass stays

    n_labels = len(classifier.labels)
    layers = [each for each in classifier.modules() if isinstance(each, nn.Linear) and each.out_features == n_labels]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    feature_rows, lengths = [np.empty(0)] * len(split), split.lengths

    @torch.no_grad()
    def compute(rows: np.ndarray) -> None:
        for part in classifier.fitting.parts(rows, lengths):
            batch = split.batch(part).to(classifier.device)
            classifier(batch)
            values = batching.pooled(last[0], batch.n_windows, "mean").cpu().numpy()
            for row, value in zip(part.tolist(), values, strict=True):
                feature_rows[row] = value

    for rows in evaluation_rows(lengths, settings.train.evaluation_batch_size):
        classifier.fitting.until_it_fits(partial(compute, rows))
    for hook in hooks:
        hook.remove()
    return np.array(feature_rows)


def open_test(run: Run, splits: Splits, device: str | None = None) -> None:
    """Score a finished run on its test split, which was left sealed; the opening is recorded first."""
    with run.lock():
        classifier, _ = load(run, device)
        runs.append_test_read(run.path.parent, str(splits.test_fingerprint), run, "train")
        run.save_predictions("test", predictions_of(run, classifier, splits.test))
        scores = {**run.scores(), "test": metrics.score_by(run.load_predictions("test"), run.metric())}
        run.mark_done(unsealed="scores.json")  # if killed before the last line, the run is still whole
        run.write_scores(scores)
        run.mark_done()
