"""Reads the dead letters of a file sink by its rule: a letter that an answer has overtaken is none any more."""

from __future__ import annotations

import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.columns import ARROW_TYPES, Kind
from nightbatch.adapters.sinks.files_latest import as_sink, pairs_of, read_part
from nightbatch.adapters.sinks.files_layout import parts_of, rank_of, read_marker
from nightbatch.adapters.sinks.table import DEAD_LETTERS
from nightbatch.core.arrow import number_array
from nightbatch.errors import BadSink
from nightbatch.ports import Connection


def read_dead_letters(uri: str, connection: Connection | None = None) -> pa.Table:
    """
    Read the dead letters that stand into one Arrow table, in memory, oldest run first.

    Left out are those whose key has an answer of the same or a later window end, then generation. Streams the keys
    of the answers. Raises BadSink where the folder is no file sink.
    """
    store = ObjectStore(uri, connection)
    marker = read_marker(store)
    if marker is None:
        raise BadSink(store.identity, problem="it has no marker file", remedy="Name the folder that a job writes to")
    kinds = {marker.key_column: Kind.TEXT} | DEAD_LETTERS
    names = parts_of(store, "dead_letters")
    tables = [pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()]).empty_table()]
    overtaken = _overtaken(store, marker.key_column, {name: _keys(store, name, marker.key_column) for name in names})
    for name in names:
        with as_sink(store, name):
            table = read_part(store, name, kinds)
        keys: list[str] = table.column(marker.key_column).to_pylist()
        left = [row for row, key in enumerate(keys) if key not in overtaken[name]]
        tables.append(table.take(number_array(left, pa.int64())))
    return pa.concat_tables(tables)


def _keys(store: ObjectStore, name: str, key_column: str) -> set[str]:
    return {key for pairs in pairs_of(store, name, key_column) for key, _ in pairs}


def _overtaken(store: ObjectStore, key_column: str, letters: dict[str, set[str]]) -> dict[str, set[str]]:
    """Say of each file of letters which of its keys have an answer that is not older."""
    found: dict[str, set[str]] = {name: set() for name in letters}
    oldest = min((rank_of(name)[:2] for name in letters), default=None)
    for name in parts_of(store, "answers"):
        rank = rank_of(name)[:2]
        if oldest is None or rank < oldest:
            continue
        older = [other for other in letters if rank_of(other)[:2] <= rank]
        for pairs in pairs_of(store, name, key_column):
            for other in older:
                found[other].update(key for key, _ in pairs if key in letters[other])
    return found
