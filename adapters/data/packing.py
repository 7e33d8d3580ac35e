"""Sequences into as few rows of bounded length as a good guess makes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], *, capacity_tokens: int) -> list[list[int]]:
    """Groups of indices into `lengths`, each of at most `capacity_tokens`: best fit, longest first.

    Equal lengths keep their order, so that the caller's shuffle decides. Takes O(n log n) for n sequences. Needs at
    most 11/9 of the fewest groups possible, and one (Johnson 1974). Raises ValueError for a length that is not
    positive or does not fit.
    """
    for index, length in enumerate(lengths):
        if not 0 < length <= capacity_tokens:
            raise ValueError(f"Sequence {index} has {length} tokens; a row holds 1 to {capacity_tokens}.")
    groups: list[list[int]] = []
    rooms: list[int] = []  # the distinct free spaces, ascending
    of_room: dict[int, list[int]] = {}  # free space -> groups that have it
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        place = bisect_left(rooms, length)
        if place == len(rooms):
            group, room = len(groups), capacity_tokens
            groups.append([])
        else:
            room = rooms[place]
            group = of_room[room].pop()
            if not of_room[room]:
                del of_room[room], rooms[place]
        groups[group].append(index)
        left = room - length
        if left:
            if left not in of_room:
                of_room[left] = []
                insort(rooms, left)
            of_room[left].append(group)
    return groups
