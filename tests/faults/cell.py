"""A row of the table at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Cell:
    """
    One cell of the fault matrix; a test that asks for the fixture must record once, before it asserts.

    A figure that a cell has none of stays None, and is shown as a dash.
    """

    name: str
    expected: int | None = None
    """Rows that should be in the sink at the end."""
    loaded: int | None = None
    """Rows that are."""
    batches: int | None = None
    """Batches that were ever made at the vendor."""
    billed: int | None = None
    """Rows that the vendor billed, a row twice as two."""
    is_recorded: bool = False

    def record(
        self, *, expected: int | None, loaded: int | None, batches: int | None = None, billed: int | None = None
    ) -> None:
        """Keep what the table shows of this cell; call it before the assertions, so that a failed cell shows it too."""
        self.expected, self.loaded, self.batches, self.billed = expected, loaded, batches, billed
        self.is_recorded = True
