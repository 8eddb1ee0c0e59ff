"""Turns Python's values into Arrow arrays without pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def text_array(texts: Iterable[str | None], type_: pa.DataType | None = None) -> pa.Array:
    """
    Give an array of texts, or with `type_` of what they say in Arrow's spelling. Raises ArrowInvalid for a misfit.

    Not by `pa.array(list)`, which imports pandas where it is installed: a second of CPU and 45 MB.
    """
    import pyarrow as pa  # here, so that whoever needs no array does not pay for it

    builder = pa.lib.StringBuilder()
    builder.append_values(list(texts))
    array = builder.finish()
    return array if type_ is None or array.type == type_ else array.cast(type_)
