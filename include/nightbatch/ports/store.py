"""Files between the steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


class Store(Protocol):
    """Immutable files below one base URI. A name is a relative path with forward slashes."""

    def uri(self, name: str) -> str:
        """Give the full URI of a file, for people and for XCom."""

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """
        Stream a file in, in bounded memory.

        The file is there, whole, only after the block ended well; when the block raises, nothing appears.
        """

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Stream a file out; seekable, buffered, in bounded memory. Raises FileNotFoundError."""

    def read(self, name: str) -> bytes:
        """Read a small file whole. Raises FileNotFoundError."""

    def write(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write a small file at once; with `if_absent`, say False and change nothing where it exists."""

    def size_bytes(self, name: str) -> int:
        """Tell how large a file is. Raises FileNotFoundError."""

    def exists(self, name: str) -> bool:
        """Say whether the file is there. "Could not read" raises StorageUnavailable; it is never False."""

    def names(self, prefix: str) -> Iterator[str]:
        """List the names of all files below a folder, sorted."""

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where it is not there."""
