"""What a training step costs if kernels.c was not compiled: `python -m benchmarks.kernels` prints the ratio.

Steps on one batch alternate, with the library and without, on one thread; the fastest of each counts, by the
processor time that it took. So the ratio also holds if other programs share the machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.contestants import Spec, classifier, records
from benchmarks.material import MINILM, roberta_base, rows
from submillion.model.packed import native

_WARM, _STEPS = 4, 16


def times_as_long(spec: Spec) -> float:
    """Return the time of a step without the library over that with it."""
    steps = records(spec, classifier(spec), rows(spec.batch_size, 0))
    compiled = native._library, native._has_tiles
    took_s: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_WARM + _STEPS):
        for is_compiled in took_s:
            native._library, native._has_tiles = compiled if is_compiled else (None, False)
            start = time.process_time()
            next(steps)
            took_s[is_compiled].append(time.process_time() - start)
    native._library, native._has_tiles = compiled
    return min(took_s[False][_WARM:]) / min(took_s[True][_WARM:])


def main() -> None:
    """Print the ratio for MiniLM, adapters on all linear sites, and for roberta-base's size, on values."""
    if not native.available():
        raise SystemExit("kernels.c is not compiled here: install a C compiler, then Submillion again")
    torch.set_num_threads(1)
    small = Spec("submillion", MINILM, sites="all-linear", rank=20, batch_size=32, device="cpu")
    print(f"MiniLM: a step takes {times_as_long(small):.2f} times as long without kernels.c")
    with tempfile.TemporaryDirectory() as folder:
        big = Spec("submillion", str(roberta_base(Path(folder))), device="cpu")
        print(f"roberta-base's size: {times_as_long(big):.2f} times")


if __name__ == "__main__":
    main()
