"""A leaky bucket in whole numbers: what was taken runs out again at the limit's rate."""

from __future__ import annotations

_SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * _SECOND_NS


class Bucket:
    """What was taken of a limit per minute; full at one minute's worth.

    In any `t` seconds at most `limit * (1 + t / 60)` are taken. Levels are kept in billionths of a sixtieth, so
    that nothing is lost or won by rounding. `now_ns` is any clock that does not go back, in nanoseconds.
    """

    __slots__ = ("_at_ns", "_level")

    def __init__(self) -> None:
        self._level = 0  # units of 1 / _MINUTE_NS
        self._at_ns = 0

    def take(self, count: int, limit: int, now_ns: int) -> bool:
        """Take `count` if they fit; otherwise nothing."""
        self._leak(limit, now_ns)
        if self._level + count * _MINUTE_NS > limit * _MINUTE_NS:
            return False
        self._level += count * _MINUTE_NS
        return True

    def put_back(self, count: int) -> None:
        """Return what was taken and not used; a negative count is more that was used."""
        self._level = max(0, self._level - count * _MINUTE_NS)

    def remaining(self, limit: int, now_ns: int) -> int:
        """How many could be taken now."""
        self._leak(limit, now_ns)
        return max(0, limit * _MINUTE_NS - self._level) // _MINUTE_NS

    def seconds_until(self, count: int, limit: int, now_ns: int) -> float:
        """Seconds until `count` can be taken, if nobody else takes any. `count` is at most `limit`."""
        self._leak(limit, now_ns)
        over = self._level + count * _MINUTE_NS - limit * _MINUTE_NS
        return max(0, over) / limit / _SECOND_NS

    def seconds_to_empty(self, limit: int, now_ns: int) -> float:
        """Seconds until all of the limit can be taken again."""
        return self.seconds_until(limit, limit, now_ns)

    def is_empty(self, limit: int, now_ns: int) -> bool:
        """True when nothing is remembered any more."""
        self._leak(limit, now_ns)
        return self._level == 0

    def _leak(self, limit: int, now_ns: int) -> None:
        passed = max(0, now_ns - self._at_ns)
        self._at_ns = max(self._at_ns, now_ns)
        self._level = max(0, self._level - passed * limit)
