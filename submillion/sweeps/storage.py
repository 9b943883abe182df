"""The Optuna study behind a sweep: which trials there are, what became of them, and what is drawn next.

Any storage that Optuna opens by a URL will do; SQLite in the sweep's folder is the default. A trial counts once its
settings are noted, the last step of asking for one; a trial that a crash left without them is marked as failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from submillion.errors import ConfigError, RunError, install_line
from submillion.runs.study import label
from submillion.sweeps.space import Factor, Study, options
from submillion.sweeps.trials import Candidate, Failure
from submillion.text import first_line
from submillion.training.workers import Threads

try:
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
except ModuleNotFoundError as error:
    raise ConfigError(f"sweep needs {error.name}: {install_line('sweeps')}") from None

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_NOTED, _THREADS, _MODELS = "candidate", "threads", "models"


@dataclass(frozen=True)
class Storage:
    """An open Optuna study.

    n_parallel: how many candidates tpe proposes before it sees a result · threads: those that the study began with.
    """

    study: Study
    url: str
    optuna_study: optuna.Study
    n_parallel: int
    threads: Threads

    def begin(self, candidate: Candidate) -> int:
        """Return the number of the candidate's trial: its own, an earlier one of the same settings, or a new one."""
        if candidate.number is not None:
            return candidate.number
        noted = _noted(candidate)
        with _reported(self.url):
            for trial in self._trials():
                if trial.user_attrs[_NOTED] == noted:
                    return trial.number
            trial = self.optuna_study.ask()
            trial.set_user_attr(_NOTED, noted)
            return trial.number

    def failure(self, candidate: Candidate) -> Failure | None:
        """Return why an earlier sitting's trial of the candidate has no result; None if it has, or there is none."""
        noted = _noted(candidate)
        with _reported(self.url):
            told = (trial.user_attrs for trial in self._trials() if trial.user_attrs[_NOTED] == noted)
            return next((_failure(attributes) for attributes in told if attributes.get("why") is not None), None)

    def tell(self, number: int, height: float | None, runs: list[str], failure: Failure | None = None) -> None:
        """Note a trial's result: its mean validation score, signed so that higher is better, or why it has none. The
        first call counts."""
        with _reported(self.url):
            trial = self.optuna_study.trials[number]
            if trial.state.is_finished():
                return
            handle = optuna.Trial(self.optuna_study, trial._trial_id)
            handle.set_user_attr("runs", runs)
            handle.set_user_attr("why", None if failure is None else failure.why)
            if failure is not None:
                handle.set_user_attr("state", failure.state)
            state = TrialState.FAIL if height is None else TrialState.COMPLETE
            self.optuna_study.tell(number, height, state=state)

    def propose(self, n_before: int) -> tuple[Candidate, ...]:
        """Return the drawn candidates after the first `n_before`: those of earlier sittings, else new ones."""
        with _reported(self.url):
            earlier = [_candidate(trial) for trial in self._trials()][: self.study.n_trials]
            if n_before < len(earlier):
                return tuple(earlier[n_before:])
            n_left = self.study.n_trials - n_before
            n_new = n_left if self.study.kind == "random" else min(n_left, self.n_parallel)
            return tuple(self._draw(n_before + i) for i in range(n_new))

    def models(self) -> dict[str, tuple[str, str]]:
        """Return the Hub's models as the study first met them: name as configured → id, commit."""
        with _reported(self.url):
            return {
                name: (id_, commit) for name, (id_, commit) in self.optuna_study.user_attrs.get(_MODELS, {}).items()
            }

    def note_models(self, models: Mapping[str, tuple[str, str]]) -> None:
        """Note the models, for later sittings."""
        with _reported(self.url):
            self.optuna_study.set_user_attr(_MODELS, dict(models))

    def _trials(self) -> list[FrozenTrial]:
        """The trials whose settings are noted."""
        return [trial for trial in self.optuna_study.get_trials(deepcopy=False) if _NOTED in trial.user_attrs]

    def _draw(self, number: int) -> Candidate:
        """Ask for a candidate. The sampler is seeded anew for each, so that a resumed study draws the same."""
        seed = self.study.sampler_seed * 1_000_003 + number
        self.optuna_study.sampler = _sampler(self.study, seed, self.n_parallel)
        trial = self.optuna_study.ask()
        chosen = {factor.title: _chosen(factor, trial) for factor in self.study.factors}
        choices = {title: name for title, (name, _) in chosen.items()}
        settings = {key: value for _, own in chosen.values() for key, value in own.items()}
        trial.set_user_attr(_NOTED, _noted(Candidate("drawn", choices, settings)))
        return Candidate("drawn", choices, settings, trial.number)


def opened(study: Study, folder: Path, identity: str, url: str | None, n_parallel: int, threads: Threads) -> Storage:
    """Return the storage of a study in its folder, or at a URL; RunError or ConfigError if it cannot be opened.

    identity: of the shared settings; with another one the same file holds another Optuna study · threads: kept for a
    study that begins now.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = url or f"sqlite:///{folder.absolute() / 'study.sqlite3'}"
    with _reported(url):
        optuna_study = optuna.create_study(
            study_name=f"{study.name}-{identity}", storage=url, direction="maximize", load_if_exists=True
        )
        for trial in optuna_study.get_trials(deepcopy=False):
            if _NOTED not in trial.user_attrs and not trial.state.is_finished():
                optuna_study.tell(trial.number, state=TrialState.FAIL)
        if _THREADS not in optuna_study.user_attrs:
            optuna_study.set_user_attr(_THREADS, asdict(threads))
        threads = Threads(**optuna_study.user_attrs[_THREADS])
    return Storage(study, url, optuna_study, n_parallel, threads)


def in_memory(study: Study) -> Storage:
    """Return a storage for a dry run; tpe then draws at random, as there are no results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Storage(study, "memory", optuna.create_study(direction="maximize"), study.n_trials, Threads())


def _sampler(study: Study, seed: int, n_parallel: int) -> optuna.samplers.BaseSampler:
    if study.kind == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=n_parallel > 1)


def _chosen(factor: Factor, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
    """The label and the settings of what Optuna draws from a factor."""
    if factor.low is not None and factor.high is not None:
        name = f"{factor.title} (log)" if factor.log else factor.title  # one name may not change its scale
        if isinstance(factor.low, int) and isinstance(factor.high, int):
            value = trial.suggest_int(name, factor.low, factor.high, log=factor.log)
        else:
            value = trial.suggest_float(name, factor.low, factor.high, log=factor.log)
        return label(value), {**factor.settings, str(factor.key): value}
    by_label = {option.label: option for option in options(factor)}
    # Optuna refuses other choices under one name: with its choices in the name, a factor may get more later.
    drawn = trial.suggest_categorical(f"{factor.title} of {', '.join(by_label)}", list(by_label))
    return drawn, dict(by_label[drawn].settings)


def _noted(candidate: Candidate) -> str:
    return json.dumps([candidate.stage, dict(candidate.choices), dict(candidate.settings)])


def _failure(attributes: dict[str, Any]) -> Failure:
    why = str(attributes["why"])
    # In studies from before the state was noted, it is the sentence's first words.
    return Failure(attributes.get("state") or cast("Any", why.partition(":")[0]), why)


def _candidate(trial: FrozenTrial) -> Candidate:
    return Candidate(*json.loads(trial.user_attrs[_NOTED]), number=trial.number)


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Turn a storage's errors into sentences, without the password in its URL."""
    try:
        yield
    except (ArgumentError, ImportError) as error:
        raise ConfigError(
            f"the storage cannot be opened ({first_line(error)}): give an SQLAlchemy URL, such as "
            "sqlite:///study.sqlite3 or postgresql+psycopg://user:password@host/name, and install its driver"
        ) from None
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = first_line(error.__cause__ or error)
        raise RunError(
            f"{make_url(url).render_as_string(hide_password=True)} cannot be used ({reason}): another process may hold "
            "it, the disk may be full, or the server down; finished trials are kept, and the same command resumes"
        ) from None
