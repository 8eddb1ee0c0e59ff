"""Lets an iterator of bytes pass for a file, so that the SDK uploads it without holding it in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable


class UploadStream(io.RawIOBase):
    """
    A file of known length that can be read once, from its start.

    The SDK's form encoder asks a file for its length by seeking to its end and back; one that cannot answer is read
    into memory whole. A length that turns out wrong is refused by the transport, so nothing is stored by mistake.
    """

    def __init__(self, pieces: Iterable[bytes], *, size_bytes: int) -> None:
        self._pieces, self._size_bytes = iter(pieces), size_bytes
        self._rest = memoryview(b"")
        self._told = 0
        self._is_begun = False

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes, as far as `seek` goes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to the start or the end, before anything was read. Raises UnsupportedOperation for more."""
        if self._is_begun or offset != 0:
            raise io.UnsupportedOperation("this upload can be read once, from its start")
        self._told = self._size_bytes if whence == io.SEEK_END else 0
        return self._told

    def tell(self) -> int:
        """Give the place that was sought, or how much was read."""
        return self._told

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; empty at the end."""
        if size < 0:
            raise io.UnsupportedOperation("this upload is read in pieces")
        self._is_begun = True
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self._told += len(taken)
        return taken
