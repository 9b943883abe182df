"""A training from question to sealed run: `train` is the whole story.

`preparing` makes the question and the `loop.Job`, `loop` trains, `describing` writes a run's description, `watching`
shows the work. A question is answered once: a finished run is found by its hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from submillion import config, data, planning, reports, runs
from submillion.config import Config, TrainConfig
from submillion.data import Splits, augmentation, groups_of, naming, sources
from submillion.data.long_texts import Reading
from submillion.data.tables import Table
from submillion.errors import ConfigError, DivergedError, RunError, command
from submillion.judging import metrics
from submillion.judging.metrics import thresholds
from submillion.model import batching, processes
from submillion.model.classifier import refuse_another_encoder
from submillion.runs import Run, Stopped
from submillion.text import did_you_mean
from submillion.training import distillation, evaluation, loop, preparing, tracking, workers
from submillion.training.checkpoints import Checkpoints
from submillion.training.preparing import Question
from submillion.training.watching import Answer, Phase, Stopwatch, Watch, deferred_interrupt, downloads

_SHOWN_LABELS = 8

__all__ = ["Answer", "Phase", "Question", "Stopwatch", "Watch", "ask", "downloads", "train"]


def train(
    settings: Config,
    watch: Watch = lambda _: None,
    as_trial: bool = False,
    rows: Mapping[str, Table] | None = None,
) -> Run:
    """Return the run of the settings: trained now, resumed, or found finished in its folder.

    `watch` sees every record and phase. Its answer to a record counts: "pause" (or True) returns the run unfinished,
    its test split unopened, and the same call continues it; "stop" evaluates what was trained so far and finishes the
    run with its best checkpoint. A teacher that is a recipe is trained first, with the same `watch`: the paused or
    stopped run is then the teacher's. A study's trial, and such a teacher, gets no report and its test split stays
    unopened, until a call asks for it. `rows` are tables of rows in memory (`data.memory.splits`), which replace
    data.source. ConfigError, DataError, HubError, BudgetError or RunError says what is wrong with the input; an error
    before the first record leaves no folder.

    Under a launcher (`torchrun`) the processes train as one; only the main one writes, and calls `watch`.
    """
    with processes.together():
        watch = Stopwatch(watch if processes.is_main() else lambda _: None)
        question = ask(settings, watch, as_trial, rows)
        if question.paused is not None:
            return question.paused
        with _placed(question, watch) as run:
            if run.is_done:
                processes.on_main(partial(_revisit, run, question, watch))
                return Run(run.path)
            n_threads, notes = preparing.threads(run)
            with workers.threads(n_threads):
                job = preparing.job_of(run, question, watch, notes)
                with tracking.mirrored(run, question.settings, watch) as mirror:
                    with _going_on_later(run, job, watch):
                        for record in loop.fit(replace(job, started=job.started + mirror.opened_s)):
                            run.append(record)
                            mirror(record)
                            watch(record)
                    if not processes.anybody(watch.wish() == "pause"):
                        _finish(run, job, question, watch)
                        mirror.log_scores(run.scores())
        return Run(run.path)


@contextmanager
def _placed(question: Question, watch: Stopwatch) -> Iterator[Run]:
    """Yield the question's run, as the main process has it: finished, or locked until the end; new ones are made here.

    A run that fails before its first record leaves no folder.
    """
    if processes.on_main(lambda: question.hash) != question.hash:
        raise RunError("another process has other settings, rows or teachers: give all the same files and arguments")
    out, name = question.settings.out, question.settings.name
    existing = processes.on_main(lambda: runs.find(out, question.hash))
    if existing is None or not processes.on_main(lambda: existing.is_done):
        with processes.in_turn():  # before there is a folder: a failed download leaves none
            preparing.download(question.settings, watch)
    is_new_out = not os.path.isdir(os.path.expanduser(out))
    run = existing or processes.on_main(lambda: runs.create(out, name, question.hash))
    shared = processes.of_main(run)
    if shared.is_done:
        yield shared
        return
    with run.lock() if processes.is_main() else nullcontext():
        try:
            yield shared  # another command may have finished it meanwhile
        except BaseException:
            if existing is None and processes.is_main():
                runs.discard(run, with_out=is_new_out)
            raise


def ask(
    settings: Config, watch: Stopwatch, as_trial: bool = False, rows: Mapping[str, Table] | None = None
) -> Question:
    """Return the question of the settings, its teachers trained; the same errors as `train`'s.

    What comes from the Hub is pinned to a commit first: a run records what it was made from.
    """
    _refuse_missing_column(settings)
    if rows is None:
        sources.refuse_missing(settings.data)  # before the encoder is looked for
    runs.refuse_missing_start(settings)
    with processes.in_turn():
        settings = preparing.pinned(settings, watch)
        candidates = distillation.asked(settings)
        data.download(settings.data, downloads(watch))
        watch(Phase("reading"))
        splits = data.read(settings.data, rows)
        settings = _resolved(_with_class_names(settings, splits), splits)
        plan = planning.plan(settings, len(splits.labels))
        doubts = distillation.check([teacher for teacher in candidates if isinstance(teacher, Run)], settings, splits)
    splits = replace(splits, warnings=splits.warnings + doubts + _rows_seen_before(settings, splits))
    teachers = _teachers(candidates, watch, rows)
    paused = next((teacher for teacher in teachers if not processes.of_main(teacher).is_done), None)
    return Question(settings, splits, plan, tuple(teachers), as_trial, paused)


def _rows_seen_before(settings: Config, splits: Splits) -> tuple[str, ...]:
    """Return warnings about held-out rows that the run of `adapter.start_from` was trained on."""
    source = settings.adapter.start_from
    if source is None or (start := runs.run_around(Path(source))) is None:
        return ()
    held_out = {"validation": splits.validation, "test": splits.test}
    counts = {name: (runs.count_trained_on(Run(start), rows), len(rows)) for name, rows in held_out.items() if rows}
    return tuple(
        f"adapter.start_from is {source}, which was trained on {n:,} of the {n_rows:,} {name} rows: their scores are "
        "too high; start from a run that holds out the same rows"
        for name, (n, n_rows) in counts.items()
        if n
    )


def _refuse_missing_column(settings: Config) -> None:
    """Raise a ConfigError if the first of several columns is to be perturbed and there is only one."""
    if "first-column" in augmentation.kinds_of(settings.augmentation) and isinstance(settings.data.text, str):
        raise ConfigError(
            f"augmentation.kind has first-column, but data.text is one column ({settings.data.text}): name several, "
            "or remove first-column"
        )


def _with_class_names(settings: Config, splits: Splits) -> Config:
    """Return the settings with the classes of `train.class_weights` named as in the data: 1.0 is 1, as in files.

    ConfigError if the data does not have one of them.
    """
    weights = settings.train.class_weights
    if not isinstance(weights, dict):
        return settings
    if unknown := [label for label in weights if naming.name_of(label) not in splits.labels]:
        raise ConfigError(
            *(f"train.class_weights names {label!r}: {did_you_mean(label, splits.labels)}" for label in unknown)
        )
    weight_of = {str(naming.name_of(label)): weight for label, weight in weights.items()}
    if len(weight_of) < len(weights):
        raise ConfigError(f"train.class_weights names a class twice: {', '.join(weights)}: give each one weight")
    return settings if weight_of == weights else config.changed(settings, {"train.class_weights": weight_of})


def _resolved(settings: Config, splits: Splits) -> Config:
    """Return the settings with what rows of several labels decide: that they have them, how, and the usual metric.

    ConfigError for settings that do not suit the rows.
    """
    train, allowed = settings.train, metrics.allowed_metrics(splits.has_several)
    kind, problems = "several labels" if splits.has_several else "one label", list[str]()
    if train.metric is not None and train.metric not in allowed:
        names = ", ".join(allowed)
        problems.append(f"train.metric is {train.metric}, but rows have {kind}: allowed are {names}, or null")
    if train.decide is not None and train.decide not in allowed:
        problems.append(
            f"train.decide is {train.decide}, but rows have {kind}: allowed are {', '.join(allowed)}, or null"
        )
    if not splits.has_several and train.threshold != TrainConfig().threshold:
        problems.append(
            f"train.threshold is {train.threshold}, but rows have {kind}, which is the likeliest one: leave it out; if "
            "they have several, set data.labels=several"
        )
    if problems:
        raise ConfigError(*problems)
    if not splits.has_several:
        return settings
    in_full = {"metric": train.metric or allowed[0], "decide": train.deciding}
    resolved = {"data": splits.settings, "train": train.model_copy(update=in_full)}
    return settings.model_copy(update=resolved)


def _teachers(candidates: Sequence[Run | Config], watch: Stopwatch, rows: Mapping[str, Table] | None) -> list[Run]:
    """Return the teachers' runs, those of recipes trained now or found; if `watch` pauses one, it is the last.

    A teacher's test split stays sealed: its student reads the same rows once.
    """
    teachers: list[Run] = []
    for teacher in candidates:
        if isinstance(teacher, Run):
            teachers.append(teacher)
            continue
        watch(Phase(f"teacher first: {teacher.name}"))
        teachers.append(train(teacher, watch.watch, as_trial=True, rows=rows))  # its phases are its own
        if not processes.of_main(teachers[-1]).is_done:
            break
        watch(Phase("now the student", notes=(f"the teacher is {teachers[-1].path}",)))
    return teachers


@contextmanager
def _going_on_later(run: Run, job: loop.Job, watch: Stopwatch) -> Iterator[None]:
    """Let the training continue from its last checkpoint, and end ready to continue: Ctrl-C waits for a step's end."""
    done = job.checkpoints.progress()
    run.cut_back(done.step, done.evaluated_step)
    watch(Phase("training", n_steps=job.length.n_steps, done_steps=done.step, notes=job.classifier.notes))
    with deferred_interrupt(watch):
        try:
            yield
        except DivergedError as error:
            raise _with_best(run, job, error) from None
    if processes.anybody(watch.is_interrupted):
        raise KeyboardInterrupt


def _with_best(run: Run, job: loop.Job, error: DivergedError) -> DivergedError:
    """Save the best parameters, which the classifier holds, in the unfinished run; return the error that says so."""
    best = job.checkpoints.progress().best_step
    if best is None:
        return DivergedError(f"{error}; nothing was evaluated before, so there is nothing to keep")
    processes.on_main(lambda: job.classifier.save(run.path / "adapter"))
    use = "model.name" if job.classifier.plan.method == "none" else "adapter.start_from"
    return DivergedError(
        f"{error}; the best weights, after step {best}, are in {run.path / 'adapter'}, for {use} or PEFT"
    )


def _finish(run: Run, job: loop.Job, question: Question, watch: Stopwatch) -> None:
    """Save, score, seal and report what was trained; open test here, once, unless this is a trial."""
    settings, splits = question.settings, question.splits
    done = job.checkpoints.progress()
    if done.is_stopped:
        run.write_stopped(Stopped(done.step, job.length.n_steps))
    watch(Phase("saving", notes=_stopped(run)))
    processes.on_main(lambda: job.classifier.save(run.path / "adapter"))
    scores = {"validation": _score(run, "validation", job, job.validation)}
    if splits.has_several and (few := _few_positives(job)):
        watch(Phase("choosing thresholds", notes=few))
    if not question.as_trial and splits.test_fingerprint is not None:
        watch(Phase("testing"))
        processes.on_main(partial(runs.append_test_read, settings.out, splits.test_fingerprint, run, "train"))
        with processes.in_turn():
            reading = Reading.of(settings.model)
            test = batching.tokenize(splits.test, job.classifier.tokenizer, splits.labels, reading)
            test = replace(test, groups=groups_of(splits.test))
        scores["test"] = _score(run, "test", job, test)
    run.write_scores(scores)
    halved = {"training": job.fitting.max_tokens, "evaluation": job.classifier.fitting.max_tokens}
    cost = {**watch.cost(job.classifier.device), "halved_to_tokens": halved}
    run.write_json("cost.json", cost)
    run.mark_done()
    job.checkpoints.remove()
    if not question.as_trial:
        processes.on_main(partial(_report, run, splits, watch))
        run.mark_done(unsealed="cost.json")  # the report's cost is known now; the rest stays
        run.write_json("cost.json", cost | {"report": watch.cost_of("reporting")})
        run.mark_done()


def _score(run: Run, name: str, job: loop.Job, split: batching.TokenizedSplit) -> dict[str, metrics.Score]:
    """Save the predictions of a split; score what was saved."""
    predictions = evaluation.predict(job.classifier, split, job.settings.evaluation_batch_size, shared=True)
    if name == "validation":
        processes.on_main(partial(_write_thresholds, run, predictions, job.settings))
        predictions = evaluation.with_own_thresholds(predictions, job.settings)
    elif predictions.has_several:
        predictions = replace(predictions, thresholds=processes.on_main(run.thresholds))
    run.save_predictions(name, predictions)
    if name == "validation":
        processes.on_main(run.write_temperature)
    return processes.on_main(lambda: metrics.score_by(run.load_predictions(name), run.metric()))


def _write_thresholds(run: Run, predictions: metrics.Predictions, settings: TrainConfig) -> None:
    """Choose the run's thresholds of several labels on all validation rows, and keep them."""
    if predictions.has_several:
        run.write_thresholds(thresholds.chosen(predictions.probs, predictions.label_ids, settings.threshold))


def _few_positives(job: loop.Job) -> tuple[str, ...]:
    """Return a note on labels with too few validation rows for their own threshold."""
    few = thresholds.few_positives(job.validation.label_ids) if job.settings.threshold == "each" else ()
    labels = [job.classifier.labels[label_id] for label_id in few]
    names = ", ".join(labels[:_SHOWN_LABELS]) + ", ..." * (len(labels) > _SHOWN_LABELS)
    least = f"fewer than {thresholds.MIN_POSITIVES} validation rows"
    return (f"labels with {least} get the threshold that is best for all together: {names}",) if labels else ()


def _stopped(run: Run) -> tuple[str, ...]:
    """Return a note on a run that was stopped."""
    stopped = run.stopped()
    return () if stopped is None else (str(stopped),)


def _revisit(run: Run, question: Question, watch: Watch) -> None:
    """Check a finished run; add what a trial lacks, unless this is a trial."""
    runs.verify(runs.load(run.path))
    refuse_another_encoder(run, question.settings.model.name, question.settings.model.revision)
    notes = _stopped(run)
    if notes:
        notes += (f"remove it (`{command('runs', 'remove', run.path)}`) to train to the end",)
    if not question.as_trial and run.name[:-9] != question.settings.name:
        notes = (f"the same settings were given before under the name {run.name[:-9]}: the run is {run.path}", *notes)
    if notes:
        watch(Phase("found finished", notes=notes))
    with suppress(OSError):  # killed after DONE, it left them; a read-only folder is fine too
        Checkpoints(run.path / "checkpoints").remove()
    if not question.as_trial:
        _complete(run, question, watch)


def _complete(run: Run, question: Question, watch: Watch) -> None:
    """Add to a finished run what a trial lacks: test's scores, and a report with them."""
    is_sealed = bool(question.splits.test) and "test" not in run.scores()
    if is_sealed:
        watch(Phase("testing"))
        with workers.threads(preparing.threads(run)[0]):
            evaluation.open_test(run, question.splits, question.settings.device)
    if is_sealed or not (run.path / "report.html").exists():
        _report(run, question.splits, watch)


def _report(run: Run, splits: Splits, watch: Watch) -> None:
    """Write a finished run's pages. Whatever goes wrong, the run is kept."""
    watch(Phase("reporting"))
    try:
        reports.write(run, splits)
    except Exception as error:
        again = f"the run is finished; `{command('report', run.path)}` tries again"
        watch(Phase("no report", notes=(f"{type(error).__name__}: {error}", again)))
