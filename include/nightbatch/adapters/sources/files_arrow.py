"""Turns Arrow record batches into tuples of plain Python values, without pandas."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Give a batch's rows as tuples. Times are datetimes, cut to microseconds; nulls are None."""
    values = [_plain(column).to_pylist() for column in batch.columns]
    return list(zip(*values, strict=True)) if values else [()] * batch.num_rows


def _plain(array: pa.Array) -> pa.Array:
    """Cut nanoseconds off: Arrow gives those as pandas objects, and imports pandas for them."""
    wanted = _micro(array.type)
    return array if wanted == array.type else array.cast(wanted, safe=False)


def _micro(type_: pa.DataType) -> pa.DataType:
    found = type_
    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        found = pa.timestamp("us", tz=type_.tz)
    elif pa.types.is_duration(type_) and type_.unit == "ns":
        found = pa.duration("us")
    elif pa.types.is_time64(type_) and type_.unit == "ns":
        found = pa.time64("us")
    elif pa.types.is_dictionary(type_):
        found = _micro(type_.value_type)
    elif pa.types.is_struct(type_):
        found = pa.struct([field.with_type(_micro(field.type)) for field in type_])
    elif pa.types.is_list(type_) or pa.types.is_large_list(type_):
        make = pa.list_ if pa.types.is_list(type_) else pa.large_list
        found = make(type_.value_field.with_type(_micro(type_.value_type)))
    return found
