"""How long a test waits for what has to happen "within two seconds".

The limits are the project's promises and hold on a machine that does nothing else. On a shared one a promise can be
late without being broken: HOTSWAP_TEST_PATIENCE multiplies every limit; the CI entry sets it.
"""

from __future__ import annotations

import os


def patient(seconds: float) -> float:
    """The limit, times HOTSWAP_TEST_PATIENCE (1 if it is not set)."""
    return seconds * float(os.environ.get("HOTSWAP_TEST_PATIENCE", "1"))
