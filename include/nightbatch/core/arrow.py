"""Turns Python's values into Arrow arrays without pandas."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_CODES = {"int32": "i", "int64": "q", "uint32": "I", "uint64": "Q"}


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


def repeated_text_array(texts: Collection[str | None]) -> pa.Array:
    """Give an array of texts of which many are the same: each is made once, and copied."""
    import pyarrow as pa

    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if len(distinct) == 1:
        return constant_array(*distinct, count=len(texts))
    return text_array(distinct).take(number_array([distinct[text] for text in texts], pa.int32()))


def constant_array(text: str | None, type_: pa.DataType | None = None, *, count: int) -> pa.Array:
    """Give an array of one text, or with `type_` of what it says in Arrow's spelling, so many times."""
    import pyarrow as pa

    return pa.repeat(text_array([text], type_)[0], count)


def number_array(numbers: Sequence[int], type_: pa.DataType) -> pa.Array:
    """
    Give an array of whole numbers of 32 or 64 bits, with a sign or without, none of them null.

    An `array` of that kind of number is not copied. Raises OverflowError for a number that does not fit.
    """
    import pyarrow as pa

    code = _CODES[str(type_)]
    made = numbers if isinstance(numbers, array) and numbers.typecode == code else array(code, numbers)
    return pa.Array.from_buffers(type_, len(made), [None, pa.py_buffer(made)])


def decimal_array(numbers: Sequence[int], type_: pa.Decimal128Type) -> pa.Array:
    """
    Give an array of decimals, none of them null, from whole numbers of their last digit.

    Raises OverflowError for one with more digits than the type has.
    """
    import pyarrow as pa

    if numbers and max(*numbers, -min(numbers)) >= 10 ** min(type_.precision, 18):
        raise OverflowError(f"a number has more than {type_.precision} digits")
    # Two words a number, the lower one first where the machine has it so; the upper one only says the sign.
    words = array("q", bytes(16 * len(numbers)))
    low = 0 if sys.byteorder == "little" else 1
    words[low::2] = array("q", numbers)
    words[1 - low :: 2] = array("q", [number >> 63 for number in numbers])
    return pa.Array.from_buffers(type_, len(numbers), [None, pa.py_buffer(words)])
