"""A deployer's own code, which a job names by its dotted name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

FindSpans = Callable[[str], Iterable[tuple[int, int]]]
"""Gives where in a text something must not leave, as begin and end in characters; for equal texts the same."""


def no_function(name: str) -> FindSpans:
    """Stand in where a deployer has none."""
    raise LookupError(f"there is no function {name}")
