"""Reads a file sink by its rule: the latest per key wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.columns import ARROW_TYPES, BOOKKEEPING, Kind
from nightbatch.adapters.sinks.files_layout import parts_of, rank_of, read_marker
from nightbatch.adapters.sources.formats import format_of, read_whole
from nightbatch.adapters.sources.pieces import Wanted
from nightbatch.core.arrow import number_array, text_array
from nightbatch.core.money import NANO
from nightbatch.errors import BadSink, BadSource
from nightbatch.ports import Connection, GivenAnswer, HeldAnswer

_ROWS_AT_ONCE = 10_000


def read_latest(uri: str, connection: Connection | None = None) -> pa.Table:
    """
    Read the winning answers of a file sink into one Arrow table, in memory.

    Columns: the key, every answer column the job ever had, bookkeeping. Answers older than a column have null in
    it. A folder without answers gives a table without rows. Raises BadSink where the folder is no file sink.
    """
    store = ObjectStore(uri, connection)
    marker = read_marker(store)
    if marker is None:
        raise BadSink(store.identity, problem="it has no marker file", remedy="Name the folder that a job writes to")
    kinds: dict[str, Kind] = {marker.key_column: Kind.TEXT}
    kinds |= {name: Kind(kind) for name, kind in marker.columns.items()} | BOOKKEEPING
    seen: set[str] = set()
    tables = []
    for name in reversed(parts_of(store, "answers")):
        with as_sink(store, name):
            table = read_part(store, name, kinds)
        tables.append(_unseen(table, marker.key_column, seen))
    return pa.concat_tables(tables) if tables else _schema(kinds).empty_table()


def known_of(store: ObjectStore) -> Iterator[list[tuple[str, str, datetime]]]:
    """Stream (key, fingerprint, window end) of all parts, oldest first."""
    marker = read_marker(store)
    if marker is None:
        return
    for name in parts_of(store, "answers"):
        end = rank_of(name)[0]
        for pairs in pairs_of(store, name, marker.key_column):
            yield [(key, fingerprint, end) for key, fingerprint in pairs]


def pairs_of(store: ObjectStore, name: str, key_column: str) -> Iterator[list[tuple[str, str]]]:
    """Stream (key, fingerprint) of one part's file."""
    wanted = Wanted((key_column, "nb_fingerprint"), _ROWS_AT_ONCE, set())
    with as_sink(store, name), store.reader(name) as file:
        for piece in read_whole(file, store.uri(name), format_of(name) or "parquet", wanted):
            yield [(str(key), str(fingerprint)) for key, fingerprint in piece.rows]


def held_of(store: ObjectStore, name: str, key_column: str) -> Iterator[list[HeldAnswer]]:
    """Stream what one part's file says of each answer."""
    wanted = Wanted((key_column, "nb_run", "nb_fingerprint", "nb_custom_id", "nb_cost_usd"), _ROWS_AT_ONCE, set())
    with as_sink(store, name), store.reader(name) as file:
        for piece in read_whole(file, store.uri(name), format_of(name) or "parquet", wanted):
            yield [HeldAnswer(str(key), run, print_, named, _usd(cost)) for key, run, print_, named, cost in piece.rows]


def given_of(store: ObjectStore, name: str, key_column: str, column: str, kind: Kind) -> list[GivenAnswer]:
    """Read one column of one part's file; a part that is older than the column has null in it. Memory: the part."""
    beside = {each: BOOKKEEPING[each] for each in ("nb_prompt_version", "nb_model", "nb_cost_usd")}
    with as_sink(store, name):
        table = read_part(store, name, {key_column: Kind.TEXT, column: kind, **beside})
    rows = zip(*(each.to_pylist() for each in table.columns), strict=True)
    return [GivenAnswer(str(key), value, version or "", model or "", cost) for key, value, version, model, cost in rows]


def _usd(value: Any) -> Decimal | None:
    """Give an amount as it was written, nine decimals, from whatever number a format reads it as."""
    return None if value is None else Decimal(str(value)).quantize(NANO)


# --- one part into a table ----------------------------------------------------------------------------------------


def read_part(store: ObjectStore, name: str, kinds: Mapping[str, Kind]) -> pa.Table:
    """Read a part with exactly these columns; one that it does not have is null."""
    with store.reader(name) as file:
        if name.endswith(".jsonl"):
            return _read_lines(file.read(), kinds)
        import pyarrow.parquet as pq

        parquet = pq.ParquetFile(file, pre_buffer=False)
        found = parquet.read(columns=[name for name in parquet.schema_arrow.names if name in kinds], use_threads=False)
    columns = [
        found.column(name).cast(ARROW_TYPES[kind])
        if name in found.column_names
        else pa.nulls(found.num_rows, ARROW_TYPES[kind])
        for name, kind in kinds.items()
    ]
    return pa.table(columns, schema=_schema(kinds))


def _read_lines(content: bytes, kinds: Mapping[str, Kind]) -> pa.Table:
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    rows = [decoder.decode(line) for line in content.split(b"\n") if line.strip()]
    columns = [
        text_array([_text(row.get(name), kind) for row in rows]).cast(ARROW_TYPES[kind]) for name, kind in kinds.items()
    ]
    return pa.table(columns, schema=_schema(kinds))


def _text(raw: msgspec.Raw | None, kind: Kind) -> str | None:
    """Give a JSON value as the text that Arrow reads a column of this kind from."""
    if raw is None or bytes(raw) == b"null":
        return None
    if kind in (Kind.TEXT, Kind.DATE, Kind.TIMESTAMP):
        return str(msgspec.json.decode(raw))
    return bytes(raw).decode()


def _unseen(table: pa.Table, key_column: str, seen: set[str]) -> pa.Table:
    """Keep the rows whose key no newer file had; within a file the last row wins."""
    kept = []
    keys: list[str] = table.column(key_column).to_pylist()
    for index in range(len(keys) - 1, -1, -1):
        if keys[index] not in seen:
            seen.add(keys[index])
            kept.append(index)
    if len(kept) == len(keys):
        return table
    return table.take(number_array(kept[::-1], pa.int64()))


def _schema(kinds: Mapping[str, Kind]) -> pa.Schema:
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])


@contextmanager
def as_sink(store: ObjectStore, name: str) -> Iterator[None]:
    """Tell a damaged file of our own as a trouble of the sink."""
    try:
        yield
    except (BadSource, pa.ArrowException, msgspec.MsgspecError) as error:
        raise BadSink(
            store.identity,
            problem=f"{name} cannot be read: {_told(error)}",
            remedy="Restore the file, or remove it and run its window again with force",
        ) from error


def _told(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
