"""Waits for something to become true, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


class WaitedTooLong(TimeoutError):
    """What was waited for did not happen in time."""

    def __init__(self, what: str, waited_s: float) -> None:
        self.what, self.waited_s = what, waited_s
        super().__init__(f"waited {waited_s:.0f} s for {what}, in vain")


def monotonic_s() -> float:
    """Tell seconds on a clock that never goes back; only differences mean something."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Do nothing for so many seconds."""
    time.sleep(seconds)


def wait_until(check: Callable[[], Found], *, what: str, timeout_s: float, every_s: float = 0.1) -> Found:
    """
    Call `check` until it gives something true, and return that.

    Raises:
        WaitedTooLong: When nothing true came within `timeout_s`. `check` is called at least once.
    """
    deadline = monotonic_s() + timeout_s
    while not (found := check()):
        if monotonic_s() >= deadline:
            raise WaitedTooLong(what, timeout_s)
        pause(every_s)
    return found
