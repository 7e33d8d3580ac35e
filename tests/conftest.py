"""What all rooms' tests have in common."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from tests.work_order import keep_to_cores, place_of, unit_of

# A machine that is busy with something else makes any example slow: time is no property of what is tested here.
settings.register_profile("hotswap", deadline=None)
settings.load_profile("hotswap")


def pytest_configure(config: pytest.Config) -> None:
    """In one of several processes: keep to its cores, before anything counts them."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        keep_to_cores(int(worker["workerid"].removeprefix("gw")), int(worker["workercount"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the units of tests/work_order.py in their order, whatever --dist says."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # by number of tests, else: it says nothing of their length
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = unit_of
    return scheduling
