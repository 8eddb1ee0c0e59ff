"""Packages that nightbatch brings only where they are asked for, and the extra that brings each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from nightbatch.errors import PackageMissing

EXTRAS = {"anthropic": "anthropic", "boto3": "s3", "openai": "openai", "psycopg": "postgres"}
"""Package -> extra."""


@contextmanager
def extras_told() -> Iterator[None]:
    """Say which extra is missing, where an import fails for the want of it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise PackageMissing(package, extra=EXTRAS[package]) from error


def is_absent(package: str) -> bool:
    """Say whether a package comes with an extra and is not installed here; imports nothing."""
    return package in EXTRAS and find_spec(package) is None
