"""The lines of a result file, looked at as they stream by: how many look like JSON objects, and how many do not."""

from __future__ import annotations


class LineCount:
    """
    Counts lines that begin and end as an object does, and lines that do not; blank ones are neither.

    Memory does not grow, also not with a file that has no line end at all.
    """

    def __init__(self) -> None:
        self.whole = 0
        self.broken = 0
        self._first = self._last = b""

    def feed(self, chunk: bytes) -> None:
        """Take in the next piece of the file."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            # Most lines are whole in their chunk, and have no spaces around.
            if piece.endswith(b"}") and piece.startswith(b"{") and not self._first:
                self.whole += 1
                continue
            self._take(piece)
            self.end()
        self._take(rest)

    def end(self) -> None:
        """End the line, also a last one without a line end."""
        if self._first:
            if (self._first, self._last) == (b"{", b"}"):
                self.whole += 1
            else:
                self.broken += 1
        self._first = self._last = b""

    def _take(self, piece: bytes) -> None:
        text = piece.strip()
        if text:
            self._first, self._last = self._first or text[:1], text[-1:]
