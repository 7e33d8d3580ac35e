"""What all rooms' tests have in common."""

from __future__ import annotations

from hypothesis import settings

# A machine that is busy with something else makes any example slow: time is no property of what is tested here.
settings.register_profile("hotswap", deadline=None)
settings.load_profile("hotswap")
