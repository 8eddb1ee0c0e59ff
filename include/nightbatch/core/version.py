"""Versions of the library: how far apart two may be that work on one run."""

from __future__ import annotations

import re


def is_too_new(other: str, *, own: str) -> bool:
    """
    Say whether what another version wrote is beyond this one: a newer major, or more than one minor ahead.

    Older versions never are, and neither is what cannot be read as a version: there, reading decides.
    """
    theirs, ours = _minor_of(other), _minor_of(own)
    if theirs is None or ours is None:
        return False
    return theirs[0] > ours[0] or (theirs[0] == ours[0] and theirs[1] > ours[1] + 1)


def _minor_of(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None
