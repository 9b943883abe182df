"""What libraries below torch keep in memory between batches on a CPU: freed blocks (glibc), kernels (oneDNN)."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Some 130 KiB each. oneDNN's own limit, 1,024, is reached after hours: until then memory grows.
_MOST_KERNELS = "256"


def keep_freed() -> None:
    """Let glibc keep blocks below 1 GiB that were freed, for the next ones; with another C library nothing happens.

    By default it gives blocks above 32 MiB back to the system at once, and gets them again page by page: a quarter of
    the time of an evaluation at roberta-base's size. It holds for the whole process.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_M_MMAP_THRESHOLD, 1 << 30) == 1:  # refused before glibc 2.35, where the second alone would harm
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def keep_few_kernels() -> None:
    """Let oneDNN keep few kernels, in a process that predicts; call it before the first product.

    Each new number of texts or tokens needs some; one made again costs 0.4 ms. Training has more of them in turn, and
    keeps them all. `$ONEDNN_PRIMITIVE_CACHE_CAPACITY` is left as it is where it is set.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _MOST_KERNELS)
