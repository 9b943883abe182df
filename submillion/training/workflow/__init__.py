"""The order of the steps behind `train`: read, plan, build, fit, evaluate, write.

Owns nothing else. Each step is a module above; a run folder is the only thing left behind. `preparing`: the
question and the training's `Job` · `rows`: what is made of the training rows before the first step · `phases`: what a
watcher is shown besides records, and what it cost · `describing`: what a run says of itself · `interrupts`: Ctrl-C.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from submillion import data, planning, reports, runs
from submillion.config import Config
from submillion.data import Splits, augmentation
from submillion.data.tables import Table
from submillion.errors import ConfigError, DivergedError, RunError, command
from submillion.judging import metrics
from submillion.model import backbone, batching, processes
from submillion.model.classifier import refuse_another_encoder
from submillion.runs import Run, Stopped
from submillion.text import did_you_mean
from submillion.training import distillation, evaluation, loop, tracking, workers
from submillion.training.checkpoints import Checkpoints
from submillion.training.workflow import preparing
from submillion.training.workflow.interrupts import deferred_interrupt
from submillion.training.workflow.phases import Answer, Phase, Stopwatch, Watch, downloads
from submillion.training.workflow.preparing import Question

__all__ = ["Answer", "Phase", "Question", "Stopwatch", "Watch", "ask", "downloads", "train"]


def train(
    settings: Config,
    watch: Watch = lambda _: None,
    as_trial: bool = False,
    rows: Mapping[str, Table] | None = None,
) -> Run:
    """Return the run of the settings: trained now, resumed, or found finished in its folder.

    `watch` sees every record and phase. Its answer to a record counts: "pause" (or True) returns the run unfinished,
    its test split unopened, and the same call goes on; "stop" evaluates what was trained so far and finishes the run
    with its best checkpoint. A teacher that is a recipe is trained first, before the same `watch`: then the run that
    is paused or stopped is the teacher's. A study's trial, and such a teacher, gets no report and its test split stays
    unopened, until a call that asks for it. `rows` are tables of rows in memory (`data.memory.splits`), which take
    the place of data.source. ConfigError, DataError, BudgetError or RunError says what is wrong with the input;
    before the first record it leaves no folder.

    Under a launcher (`torchrun`) the processes train as one; the main one alone writes, and asks `watch`.
    """
    with processes.together():
        return _train(settings, Stopwatch(watch if processes.is_main() else lambda _: None), as_trial, rows)


def _train(settings: Config, watch: Stopwatch, as_trial: bool, rows: Mapping[str, Table] | None) -> Run:
    question = ask(settings, watch, as_trial, rows)
    if question.paused is not None:
        return question.paused
    if processes.on_main(lambda: question.hash) != question.hash:
        raise RunError("another process reads other settings, rows or teachers: give all the same files and arguments")
    found = processes.on_main(lambda: runs.find(settings.out, question.hash))
    if found is None or not _is_done(found):
        with processes.in_turn():  # before there is a folder: what cannot be had leaves none behind
            preparing.download(question.settings, watch)
    run = found or processes.on_main(lambda: runs.create(settings.out, settings.name, question.hash))
    if not _is_done(run):
        with run.lock() if processes.is_main() else nullcontext():
            if not _is_done(run):  # another process may have finished it meanwhile
                try:
                    n_threads, notes = processes.on_main(lambda: preparing.threads(run))
                    with workers.threads(n_threads):
                        _run(run, question, watch, notes)
                except BaseException:
                    if found is None and processes.is_main():
                        runs.discard(run)
                    raise
                return run
    processes.on_main(lambda: _revisit(run, question, watch))
    return run


def _is_done(run: Run) -> bool:
    return processes.on_main(lambda: run.is_done)


def ask(
    settings: Config, watch: Stopwatch, as_trial: bool = False, rows: Mapping[str, Table] | None = None
) -> Question:
    """Return the question of the settings, its teachers trained; the same errors as `train`'s.

    What comes from the Hub is pinned to a commit first: a run says what it was made from.
    """
    _refuse_missing_column(settings)
    with processes.in_turn():
        settings = preparing.pinned(settings, watch)
        asked = distillation.asked(settings)
        data.download(settings.data, downloads(watch))
        watch(Phase("reading"))
        splits = data.read(settings.data, rows)
        _refuse_unknown_classes(settings, splits)
        plan = planning.plan(settings, len(splits.labels))
        doubts = distillation.check([teacher for teacher in asked if isinstance(teacher, Run)], settings, splits)
    splits = replace(splits, warnings=splits.warnings + doubts)
    teachers = _teachers(asked, watch, rows)
    paused = next((teacher for teacher in teachers if not _is_done(teacher)), None)
    return Question(settings, splits, plan, tuple(teachers), as_trial, paused)


def _refuse_missing_column(settings: Config) -> None:
    """Raise a ConfigError for a perturbation of the first of several columns where there is one."""
    if "first-column" in augmentation.kinds_of(settings.augmentation) and isinstance(settings.data.text, str):
        raise ConfigError(
            f"augmentation.kind has first-column, but data.text is one column ({settings.data.text}): name several, "
            "or take first-column out"
        )


def _refuse_unknown_classes(settings: Config, splits: Splits) -> None:
    """Raise a ConfigError if `train.class_weights` names labels that the data does not have."""
    weights = settings.train.class_weights
    unknown = [label for label in weights if label not in splits.labels] if isinstance(weights, dict) else []
    if unknown:
        raise ConfigError(
            *(f"train.class_weights names {label!r}: {did_you_mean(label, splits.labels)}" for label in unknown)
        )


def _teachers(asked: Sequence[Run | Config], watch: Stopwatch, rows: Mapping[str, Table] | None) -> list[Run]:
    """The teachers' runs, those of recipes trained now or found; if `watch` pauses one, it is the last.

    A teacher's test split stays sealed: its student's is read once, of the same rows.
    """
    found: list[Run] = []
    for teacher in asked:
        if isinstance(teacher, Run):
            found.append(teacher)
            continue
        watch(Phase(f"first the teacher, {teacher.name}"))
        found.append(train(teacher, watch.watch, as_trial=True, rows=rows))  # its phases are its own
        if not _is_done(found[-1]):
            break
        watch(Phase("now its student", notes=(f"the teacher is {found[-1].path}",)))
    return found


def _run(run: Run, question: Question, watch: Stopwatch, notes: tuple[str, ...]) -> None:
    started = time.perf_counter()
    device = backbone.choose_device(question.settings.device)
    processes.place(device)
    precision, more = processes.on_main(lambda: preparing.begin(run, question, device))
    with processes.in_turn():
        job = preparing.job_of(run, question, (device, precision, (*notes, *more)), watch, started)
    for fitting in (job.fitting, job.classifier.fitting):
        fitting.say = lambda note: watch.watch(Phase("less memory than a batch needs", notes=(note,)))
    before = time.perf_counter()
    with _mirrored(run, question.settings, watch) if processes.is_main() else nullcontext() as mirror:
        job = replace(job, started=started + time.perf_counter() - before)  # their start is no part of training
        if _fit(run, job, watch, mirror):
            _finish(run, question, job, watch)
            if mirror is not None:
                mirror.log_scores(run.scores())


def _mirrored(run: Run, settings: Config, watch: Stopwatch) -> AbstractContextManager[tracking.Mirror]:
    if settings.tracking:
        watch(Phase("starting trackers", notes=(f"they write into {tracking.folder_of(run)}",)))
    return tracking.mirrored(run, settings, lambda why: watch.watch(Phase("a tracker less", notes=(why,))))


def _fit(run: Run, job: loop.Job, watch: Stopwatch, mirror: tracking.Mirror | None) -> bool:
    """Train; say whether it came to its end, rather than being paused by the watcher. Ctrl-C pauses and raises."""
    done = processes.on_main(job.checkpoints.progress)
    if processes.is_main():
        run.cut_back(done.step, done.evaluated_step)
    watch(Phase("training", n_steps=job.length.n_steps, done_steps=done.step, notes=job.classifier.notes))
    with deferred_interrupt() as is_interrupted:
        try:
            for record in loop.fit(replace(job, wish=lambda: "pause" if is_interrupted() else watch.wish)):
                if mirror is not None:  # the main process has one
                    run.append(record)
                    mirror(record)
                watch(record)
        except DivergedError as error:
            raise _with_best(run, job, error) from None
        if processes.anybody(is_interrupted()):
            raise KeyboardInterrupt
    return not processes.anybody(watch.wish == "pause")


def _with_best(run: Run, job: loop.Job, error: DivergedError) -> DivergedError:
    """Save the best evaluation's parameters, which the classifier holds, in the unfinished run; say so."""
    best = processes.on_main(job.checkpoints.progress).best_step
    if best is None:
        return DivergedError(f"{error}; nothing was evaluated before, so there is nothing to keep")
    processes.on_main(lambda: job.classifier.save(run.path / "adapter"))
    use = "model.name" if job.classifier.plan.method == "none" else "adapter.start_from"
    return DivergedError(f"{error}; what was best, after step {best}, is in {run.path / 'adapter'}, for {use} or PEFT")


def _finish(run: Run, question: Question, job: loop.Job, watch: Stopwatch) -> None:
    settings, splits = question.settings, question.splits
    processes.on_main(lambda: _note_stop(run, job))
    watch(Phase("saving", notes=_stopped(run)))
    processes.on_main(lambda: job.classifier.save(run.path / "adapter"))
    scores = {"validation": _score(run, "validation", job, job.validation)}
    if not question.as_trial and splits.test_fingerprint is not None:
        watch(Phase("testing"))
        fingerprint = splits.test_fingerprint
        processes.on_main(lambda: runs.append_test_read(settings.out, fingerprint, run, "train"))
        with processes.in_turn():
            test = batching.tokenize(splits.test, job.classifier.tokenizer, splits.labels, settings.model.max_length)
        scores["test"] = _score(run, "test", job, test)
    processes.on_main(lambda: _seal(run, question, job, scores, watch))


def _note_stop(run: Run, job: loop.Job) -> None:
    """Write down that the training was told to end before its last step."""
    done = job.checkpoints.progress()
    if done.is_stopped:
        run.write_stopped(Stopped(done.step, job.length.n_steps))


def _stopped(run: Run) -> tuple[str, ...]:
    """What there is to say of a run that was stopped."""
    found = run.stopped()
    return () if found is None else (str(found),)


def _seal(
    run: Run, question: Question, job: loop.Job, scores: dict[str, dict[str, metrics.Score]], watch: Stopwatch
) -> None:
    run.write_scores(scores)
    halved = {"training": job.fitting.max_tokens, "evaluation": job.classifier.fitting.max_tokens}
    run.write_json("cost.json", {**watch.cost(job.classifier.device), "halved_to_tokens": halved})
    run.mark_done()
    job.checkpoints.remove()
    if not question.as_trial:
        _report(run, question.splits, watch)


def _revisit(run: Run, question: Question, watch: Watch) -> None:
    """Check a finished run; give it what a trial was left without, unless a trial asks."""
    runs.verify(runs.load(run.path))
    refuse_another_encoder(run, question.settings.model.name, question.settings.model.revision)
    if notes := _stopped(run):
        again = f"remove it (`{command('runs', 'remove', run.path)}`) to train to the end"
        watch(Phase("found finished", notes=(*notes, again)))
    with suppress(OSError):  # killed after DONE, it left them; a folder that may only be read answers as well
        Checkpoints(run.path / "checkpoints").remove()
    if not question.as_trial:
        _complete(run, question, watch)


def _complete(run: Run, question: Question, watch: Watch) -> None:
    """Give a finished run what a trial was left without: test's scores, and a report that has them."""
    is_sealed = bool(question.splits.test) and "test" not in run.scores()
    if is_sealed:
        watch(Phase("testing"))
        with workers.threads(preparing.threads(run)[0]):
            evaluation.open_test(run, question.splits, question.settings.device)
    if is_sealed or not (run.path / "report.html").exists():
        _report(run, question.splits, watch)


def _report(run: Run, splits: Splits, watch: Watch) -> None:
    """Write a finished run's pages. Whatever is wrong with them, the run stands."""
    watch(Phase("reporting"))
    try:
        reports.write(run, splits)
    except Exception as error:
        again = f"the run is finished all the same; `{command('report', run.path)}` tries again"
        watch(Phase("no report", notes=(f"{type(error).__name__}: {error}", again)))


def _score(run: Run, name: str, job: loop.Job, split: batching.TokenizedSplit) -> dict[str, metrics.Score]:
    predictions = evaluation.predict(job.classifier, split, job.settings.evaluation_batch_size, shared=True)

    def saved() -> dict[str, metrics.Score]:
        run.save_predictions(name, predictions)
        return metrics.score(run.load_predictions(name))

    return processes.on_main(saved)
