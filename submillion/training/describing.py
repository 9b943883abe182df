"""How a run describes itself before its first step: files of its folder, and sentences worth printing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

import torch

from submillion import config, planning, runs
from submillion.config import Config
from submillion.data import Splits
from submillion.errors import install_line, is_checkout
from submillion.model import batching, processes
from submillion.model.packed import cuda, native
from submillion.runs import Run
from submillion.text import plural, without_secrets

# Keys of environment.json: with the same values results are equal to the bit, with others up to rounding.
_BITS = ("device", "precision", "threads", "processes", "processor", "kernels", "packages")


def write(
    run: Run, settings: Config, splits: Splits, plan: planning.Plan, chosen: dict[str, str | None]
) -> tuple[str, ...]:
    """Write the files that say what the run is: settings, plan, environment (with what was `chosen`), labels, data.

    Return a note if the run was begun in another environment.
    """
    before, environment = run.environment() or {}, chosen | _environment()
    begun_with = {key: before[key] for key in _BITS if key in before and before[key] != environment[key]}
    begun_with |= before.get("begun_with", {})
    run.write("config.yaml", config.to_yaml(settings))
    run.write("plan.json", planning.to_json(plan))
    run.write_json("environment.json", environment | ({"begun_with": begun_with} if begun_with else {}))
    run.write_labels(splits.classes, splits.has_several)
    run.write_json("data.json", splits.summary())
    runs.note_trained_on(run, splits.train)
    if not begun_with:
        return ()
    changed = ", ".join(begun_with)
    return (f"started in another environment ({changed}): its last bits may differ from those of an uninterrupted run",)


def _environment() -> dict[str, object]:
    packages = ("submillion", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")
    return {
        "bits_depend_on": list(_BITS),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": native.processor(),
        "threads": torch.get_num_threads(),
        "processes": processes.count(),
        "kernels": native.kind(),
        "command": [without_secrets(word) for word in (*program(sys.argv[0]), *sys.argv[1:])],
        "packages": {package: version(package) for package in packages},
    }


def program(called: str) -> tuple[str, ...]:
    """Return how a program is typed, from the called file: `python -m submillion` for the package's."""
    name = os.path.basename(called)
    return ("python", "-m", os.path.basename(os.path.dirname(called))) if name == "__main__.py" else (name,)


def slowness(precision: config.Precision, device: torch.device, wants_int8: bool = False) -> tuple[str, ...]:
    """Return the sentence about missing kernels, if they would be used."""
    if device.type == "cuda" and (reason := cuda.missing(device)) is not None:
        return (f"the kernels for GPUs are not used, and steps take longer: {reason}",)
    is_used = precision in ("bf16", "int8") or (precision == "fp32" and wants_int8)
    if not is_used or device.type != "cpu" or native.available():
        return ()
    advice = (
        f"install a C compiler, then type: {install_line()}"
        if is_checkout()
        else "install a wheel that was built for this system where there is a C compiler (`make dist` in a checkout)"
    )
    longer = "up to twice as long, without int8" if precision == "fp32" else "about 1.2 times as long"
    return (f"kernels.c is not compiled: a step takes {longer}; {advice}",)


def long_texts(split: batching.TokenizedSplit, model: config.ModelConfig) -> tuple[str, ...]:
    """Return the sentence about texts longer than the model reads at once, if there are any."""
    n, longest = split.n_truncated if split.windows is None else int((split.windows.counts > 1).sum()), model.max_length
    if not n:
        return ()
    texts = f"{n:,} of {len(split):,} training texts {plural(n, 'is', 'are')}"
    fact = f"{texts} longer than {longest} tokens (model.max_length)"
    if split.windows is not None:
        return (f"{fact}: {_in_windows(split, split.windows)}",)
    if model.long_texts == "head-tail":
        return (f"{fact}, and read from both ends",)
    return (f"{texts} cut at {longest} tokens (model.max_length)",)


def _in_windows(split: batching.TokenizedSplit, windows: batching.Windows) -> str:
    """Return what reading in windows costs, and what it leaves out."""
    factor = len(split.tokens) / windows.first_lengths.sum()
    note = (
        f"texts are read in windows (model.long_texts), {windows.counts.mean():.2f} each on average, "
        f"{factor:.2f} times the tokens of cut ones"
    )
    n_longer = split.n_truncated
    beyond = plural(n_longer, "extends beyond its", "extend beyond their")
    return note + (f"; {n_longer:,} {beyond} last window (model.max_windows)" if n_longer else "")
