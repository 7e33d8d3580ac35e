"""How a run of all tests is shared by two processes: what stays together, and what begins first.

pytest-xdist gives a process one unit of work after the other. A unit is a file, or files that share something which
takes long to make. What takes longest begins first, so that the processes end together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_LIVE = "tests/serve/live"
_CPU = "tests/serve/engine/cpu"

LONGEST: tuple[tuple[str, ...], ...] = (
    # The server on the default base, and the adapters that are trained for it.
    (
        f"{_LIVE}/test_answers.py",
        f"{_LIVE}/test_cache_salt.py",
        f"{_LIVE}/test_dialects.py",
        f"{_LIVE}/test_disconnect.py",
        f"{_LIVE}/test_fidelity.py",
        f"{_LIVE}/test_openai_client.py",
        f"{_LIVE}/test_stock_server.py",
        f"{_LIVE}/test_swap_under_load.py",
    ),
    (f"{_LIVE}/test_families.py",),
    ("tests/contamination/test_live.py",),
    # The server that is started twice.
    (f"{_LIVE}/test_reasoning.py", f"{_LIVE}/test_restart.py"),
    (f"{_LIVE}/test_engine_killed.py",),
    (f"{_LIVE}/test_doctored.py",),
    (f"{_LIVE}/test_canary.py",),
    (f"{_LIVE}/test_score.py",),
    (f"{_LIVE}/test_full_engine.py",),
    (f"{_CPU}/test_engine_isolation.py",),
    (f"{_CPU}/test_engine_quantised.py",),
    (f"{_CPU}/test_engine_paths.py",),
    ("tests/adapters/export/test_export_served.py",),
    ("tests/quantize/recovery/test_make.py",),
    ("tests/quantize/test_run.py",),
    ("tests/adapters/training/test_processes.py",),
    ("tests/bases/test_embedded_model.py",),
)
"""Units of files, longest first. All other files are units of their own, in the order of their paths."""

_PLACE = {path: place for place, unit in enumerate(LONGEST) for path in unit}


def unit_of(node_id: str) -> str:
    """The name of the unit that a test belongs to: its file, or the first one of the files it stays with."""
    path = node_id.partition("::")[0]
    return LONGEST[_PLACE[path]][0] if path in _PLACE else path


def place_of(node_id: str) -> int:
    """Sorts tests by when their units begin; equal for tests whose order is no matter."""
    return _PLACE.get(node_id.partition("::")[0], len(LONGEST))


def cores_of(worker: int, num_workers: int, cores: Sequence[int]) -> list[int]:
    """The share of one process: no core is anybody else's, and none is left over; all where there are too few.

    Whoever takes a dead process's place has a higher number, and its cores.
    """
    return list(cores[worker % num_workers :: num_workers]) if len(cores) >= num_workers else list(cores)


def keep_to_cores(worker: int, num_workers: int) -> None:
    """Keep this process, and whatever it starts from now on, to its share of the cores.

    Engines take as many threads as they have cores, bind them, and spin while they wait: two engines on the same
    cores would stand in each other's way, and what a test measures would be the other process.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores_of(worker, num_workers, sorted(os.sched_getaffinity(0))))
