"""Records from a table in memory: a pandas DataFrame, an Arrow table, or what gives itself as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from nightbatch.adapters.sources.files_arrow import rows_of
from nightbatch.adapters.sources.files_time import TimeFilter
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk


class FrameSource:
    """
    Implements the port `Source` for a frame: pandas, Arrow, or anything with the Arrow stream interface (Polars, …).

    Rows come in the frame's order. A pandas frame is turned over in slices; NaN and NaT become None, and its index
    is left out.
    """

    def __init__(
        self,
        frame: Any,
        *,
        columns: Sequence[str] | None = None,
        time_column: str | None = None,
        timezone: str | None = None,
        name: str = "frame",
        chunk_rows: int = 500,
    ) -> None:
        """
        Set the source up.

        Args:
            frame: The table.
            columns: Which columns to give, in this order; None for all.
            time_column: Give only records whose time in this column is inside the window.
            timezone: The zone of times that carry none.
            name: What to call it in messages.
            chunk_rows: How many records at once.
        """
        self._frame, self._name, self._chunk_rows = frame, name, chunk_rows
        self._columns = tuple(columns) if columns is not None else None
        self._time_column, self._timezone = time_column, timezone

    @property
    def identity(self) -> str:
        """Name the frame; it is no place where a sink could be."""
        return f"frame://{self._name}"

    def read(self, window: Window) -> Iterator[Chunk]:
        """Stream the records of a window. Raises BadSource for a missing column or one of mixed types."""
        filter_ = TimeFilter(self._time_column, window, self._timezone) if self._time_column else None
        row = 0
        for batch in self._batches():
            columns = self._columns or tuple(batch.schema.names)
            rows = rows_of(batch.select(list(columns)))
            if filter_ is not None:
                times = rows_of(batch.select([filter_.column]))
                rows = self._inside(rows, times, filter_, row)
            row += batch.num_rows
            if rows:
                yield Chunk(columns, rows)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if type(self._frame).__module__.partition(".")[0] == "pandas":
            yield from self._pandas_batches()
            return
        if not isinstance(self._frame, pa.Table | pa.RecordBatch) and not hasattr(self._frame, "__arrow_c_stream__"):
            self._refuse(f"it is a {type(self._frame).__name__}", "Give a pandas DataFrame or an Arrow table")
        table = self._frame if isinstance(self._frame, pa.Table) else pa.table(self._frame)
        self._check(table.schema.names)
        yield from table.to_batches(max_chunksize=self._chunk_rows)

    def _pandas_batches(self) -> Iterator[pa.RecordBatch]:
        self._check([str(name) for name in self._frame.columns])
        for start in range(0, len(self._frame), self._chunk_rows):
            part = self._frame.iloc[start : start + self._chunk_rows]
            part.columns = [str(name) for name in part.columns]
            try:
                yield pa.RecordBatch.from_pandas(part, preserve_index=False)
            except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
                self._refuse(
                    f"rows {start} to {start + len(part) - 1} do not fit columns of one type each: {error.args[0]}",
                    "Give every column values of one type",
                )

    def _check(self, present: list[str]) -> None:
        wanted = [*(self._columns or present), *([self._time_column] if self._time_column else [])]
        if missing := [column for column in wanted if column not in present]:
            self._refuse(f"it has no column {', '.join(missing)}", "Correct the column's name")
        if twice := [column for column in wanted if present.count(column) > 1]:
            self._refuse(f"it has the column {twice[0]!r} more than once", "Name each column differently")

    def _inside(self, rows: list[Any], times: list[Any], filter_: TimeFilter, row: int) -> list[Any]:
        try:
            return [record for record, (time,) in zip(rows, times, strict=True) if filter_.contains(time)]
        except ValueError as error:
            self._refuse(
                f"rows {row} to {row + len(rows) - 1}: {error}",
                "Give every record a time with a zone, or set timezone for times without one",
            )

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise BadSource(self._name, problem=problem, remedy=remedy)
