"""How long-running work says what it is doing: a callable that takes one line."""

from __future__ import annotations

import logging
from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with one complete line, in the present tense, at the start of each stage."""

_logger = logging.getLogger(__name__)


def log_progress(message: str) -> None:
    """The default `Progress`: each line is an INFO record of this module's logger."""
    _logger.info("%s", message)
