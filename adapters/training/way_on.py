"""What a run that stops in the middle says: from which checkpoint it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import TrainingError
from adapters.training.checkpoint import newest_whole
from bases.disk import disk_errors, is_unwritable, why_unwritten
from bases.errors import HotswapError


def way_on(run_folder: Path) -> str:
    """How the run goes on from its newest whole checkpoint, as a sentence."""
    checkpoint, _ = newest_whole(run_folder / "checkpoints")
    if checkpoint is None:
        return "It has no checkpoint yet to go on from; --save-every-steps makes them more often."
    return f"To go on from {checkpoint.name}: hotswap train --name {run_folder.parent.name} --resume {run_folder}"


@contextmanager
def way_on_said(run_folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say, where a full disk or a signal stops the block, how the run goes on.

    Raises TrainingError in place of OSErrors about what cannot be written; every other error passes through.
    """
    try:
        with disk_errors():
            yield
    except OSError as error:
        if not is_unwritable(error):
            raise
        say(f"Stopped. {way_on(run_folder)}")
        place = error.filename or run_folder
        raise TrainingError(f"{place} cannot be written: {why_unwritten(error)}") from error
    except HotswapError as error:
        # Going on helps where there is room again, and not where the settings or the data are at fault.
        if isinstance(error.__cause__, OSError) and is_unwritable(error.__cause__):
            say(f"Stopped. {way_on(run_folder)}")
        raise
    except (KeyboardInterrupt, SystemExit):
        say(f"Stopped. {way_on(run_folder)}")
        raise
