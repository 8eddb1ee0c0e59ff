"""How often a process looks for garbage that refers to itself."""

from __future__ import annotations

import gc

OBJECTS = 500_000


def look_seldom() -> None:
    """
    Have Python look only once so many more objects are there, and not after each 700.

    For a process of our own, a command or a task: what it imported, some 300,000 objects, stays, and would be looked
    at again and again; that takes a tenth of a second of a start, and a thirtieth of each step. Not switched off, since
    a run waits for hours and must not grow without bounds.
    """
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
