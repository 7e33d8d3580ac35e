"""Turns of the loop that a step of the waiting room takes."""

from __future__ import annotations

import asyncio

# Enough turns of the loop for a chain of wake-ups: release, turn given, task entered, next task entered.
_SETTLING_TURNS = 8


async def settle() -> None:
    for _ in range(_SETTLING_TURNS):
        await asyncio.sleep(0)
