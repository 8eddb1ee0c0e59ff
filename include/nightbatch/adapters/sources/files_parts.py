"""Cuts files into parts that are read side by side: files in a row, and row groups of Parquet files that are large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sources.pieces import complains
from nightbatch.core.parts import cut
from nightbatch.errors import BadSource, StorageUnavailable

_Piece = tuple[str, int, int | None, int | None, int]
"""A file, its bytes, its first row group and that after its last one, and how much of its bytes these are."""


def parts_of(
    store: ObjectStore, formats: Mapping[str, str | None], *, most: int, least_bytes: int
) -> list[dict[str, Any]]:
    """Cut files, in order, into at most `most` parts of no less than `least_bytes`."""
    sizes = {name: store.size_bytes(name) for name in formats}
    worth = max(least_bytes, sum(sizes.values()) // most)
    pieces: list[_Piece] = []
    for name, size in sizes.items():
        if formats[name] == "parquet" and size > worth:
            pieces += _row_groups(store, name, size)
        else:
            pieces.append((name, size, None, None, size))
    found = cut([piece[-1] for piece in pieces], most=most, least=least_bytes)
    return [{"files": _merged([pieces[at] for at in part])} for part in found]


def _row_groups(store: ObjectStore, name: str, size: int) -> Iterator[_Piece]:
    import pyarrow.parquet as pq

    with store.reader(name) as file, complains(store.uri(name), lambda: "its footer"):
        metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups)]
    whole = max(sum(groups), 1)
    for at, group in enumerate(groups):
        yield name, size, at, at + 1, size * group // whole


def _merged(pieces: list[_Piece]) -> list[list[Any]]:
    """Put row groups of one file that follow each other into one piece again."""
    found: list[list[Any]] = []
    for name, size, first, end, _ in pieces:
        if found and found[-1][0] == name and found[-1][3] == first:
            found[-1][3] = end
        else:
            found.append([name, size, first, end])
    return found


def check_size(store: ObjectStore, name: str, size_bytes: int) -> None:
    """Raise BadSource where a file is not as long as when the parts were cut: its records may be elsewhere by now."""
    try:
        found = store.size_bytes(name)
    except FileNotFoundError as error:
        raise StorageUnavailable(
            store.uri(name), cause="it was there when its folder was listed, and is gone"
        ) from error
    if found != size_bytes:
        raise BadSource(
            store.uri(name),
            problem=f"it had {size_bytes:,} bytes when its folder was cut into parts, and has {found:,} now",
            remedy="Write files once, under new names; then run the window again (in Airflow: clear `parts` with "
            "downstream)",
        )
