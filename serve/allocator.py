"""glibc's allocator in the gateway's process, told to keep what many threads free together.

glibc gives threads heaps of their own, up to eight for each core, and none lends what it has free to another. A
pool of threads works on files, the database and tokens, whichever is idle: each verb leaves holes in other heaps,
and resident memory goes on growing while what is in use does not (benchmarks/LOG.md, "adapter churn").
"""

from __future__ import annotations

import ctypes
import platform

ARENAS = (
    2  # the event loop is hardly ever alone with malloc: the interpreter's lock lets one thread at it anyway
)

_M_ARENA_MAX = -8  # <malloc.h>


def keep_few_arenas(arenas: int = ARENAS) -> bool:
    """Let threads that begin from now on share so many heaps. False where the C library is not glibc.

    The environment's own MALLOC_ARENA_MAX is for processes that are started; this one is not asked again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, arenas))
