"""The C library's way with freed memory, which large batches on a CPU depend on."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed() -> None:
    """Let glibc keep blocks below 1 GiB that were freed, for the next ones; with another C library nothing happens.

    By default it gives blocks above 32 MiB back to the system at once, and gets them again page by page: a quarter of
    the time of an evaluation at roberta-base's size. It holds for the whole process.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_M_MMAP_THRESHOLD, 1 << 30) == 1:  # refused before glibc 2.35, where the second alone would harm
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
