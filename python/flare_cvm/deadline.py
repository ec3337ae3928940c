"""Waiting until a point in time, never for a number of attempts.

A count of attempts lasts as long as each attempt does: short where the peer answers "not yet" at
once, endless where it is silent. A deadline lasts what its reader expects.
"""

from __future__ import annotations

import random
import time

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class Deadline:
    """A point on the monotonic clock: the guest's own clock may be set while we wait."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def over(self) -> bool:
        return self.left() == 0.0


class Backoff:
    """Pauses that double up to a bound, each with jitter, so that sites which started together do
    not stay in step.
    """

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE_S

    def next_pause(self, deadline: Deadline) -> float:
        pause = min(random.uniform(0.5, 1.0) * self._pause, deadline.left())
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        return pause
