"""Studies: many settings tried in a stated order, each trial an ordinary run, and their comparison.

`space` has the study file, `trials` a trial's exact config and plan, `strategies` which candidates come next,
`previews` the trials before any is run, `timing` how long they take, `storage` the Optuna study, `executors` where
trials run and what stops them early, `study` the types, `lookup` what is known already, `sitting` the order of it
all, `summary` what is written.
"""

from submillion.sweeps.space import study_names, study_text

__all__ = ["study_names", "study_text"]
