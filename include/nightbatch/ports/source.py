"""Where records come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nightbatch.core.window import Window


@dataclass(frozen=True)
class Unreadable:
    """One record that is there and cannot be read; it becomes a dead letter, and the others go on."""

    place: str
    """Where it is, for a person who looks for it: `s3://bucket/in/a.jsonl line 4`."""
    problem: str
    """What is wrong with it, without what it holds."""


@dataclass(frozen=True)
class Chunk:
    """A few hundred records: names of the columns, and a tuple of values a record, in that order."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    unreadable: tuple[Unreadable, ...] = ()


class Source(Protocol):
    """Rows in."""

    def read(self, window: Window) -> Iterator[Chunk]:
        """
        Stream the records of a window, in a stable order, in bounded memory.

        Yields no chunk where there are no records. Raises BadSource where it is not what the job says, or where it is
        so damaged that nobody can say how many records it holds; StorageUnavailable where it cannot be reached.
        """

    @property
    def identity(self) -> str:
        """Name what is read, without secrets, so that a sink that is the same thing is found out."""


@runtime_checkable
class PartedSource(Source, Protocol):
    """A source that several workers can read side by side, a part each."""

    def parts(self, window: Window, *, most: int, least_bytes: int) -> list[dict[str, Any]]:
        """
        Cut what a window reads into at most `most` parts, each told in JSON values.

        Together they hold each record once. No part is smaller than `least_bytes`, where sizes are known. Raises as
        `read` does.
        """

    def read_part(self, window: Window, part: Mapping[str, Any], *, seen: dict[str, bool]) -> Iterator[Chunk]:
        """
        Stream the records of one part, as `read` does those of all.

        Into `seen` goes, at its end, whether any record of the part had a column, for those that another part may
        have; nothing where the part has no records. A column that none had makes the source a BadSource.
        """
