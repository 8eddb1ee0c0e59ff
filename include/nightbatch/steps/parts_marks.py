"""
Which records of all parts could be double, or answered before: told by marks of 32 bits, so that few are looked at.

Two keys that are the same have the same mark, and two fingerprints too, so nobody is overlooked; who only looks alike
is looked at for nothing. Each part marks its own records, and who puts the parts together reads eight bytes a record.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

from nightbatch.errors import StorageUnavailable
from nightbatch.ports import Store

from .fill import Request

AT_A_TIME = 1_000_000
"""Marks that are sorted at a time, in some 80 MB."""
MOST = 1_000_000
"""Most suspects; where there are more, all records may as well be looked at."""

_MASK = (1 << 32) - 1
_SLICE = 1 << 18
"""Numbers that are looked through at a time."""


def marks_of(requests: Iterable[Request]) -> bytes:
    """Give eight bytes a request, little-endian: the mark of its key, then that of its fingerprint, a hash already."""
    return array("Q", [int(one.fingerprint[:8], 16) << 32 | _mark(one.key) for one in requests]).tobytes()


def _mark(key: str) -> int:
    return crc32(key.encode())  # the same on every machine, which Python's own hash is not


class Marks:
    """The marks of all parts, and of the keys that others hold, in two files that are thrown away."""

    def __init__(self, folder: Path, *, at_a_time: int, most: int) -> None:
        self._ours, self._theirs = folder / "ours", folder / "theirs"
        self._at_a_time, self._most = at_a_time, most
        _append(self._ours, b"")
        _append(self._theirs, b"")

    def copy(self, store: Store, names: Iterable[str]) -> None:
        """Take in what the parts marked, in their order."""
        for name in names:
            with store.reader(name) as file:
                while piece := file.read(1 << 20):
                    _append(self._ours, piece)

    def expect(self, keys: Iterable[str]) -> None:
        """Take in keys that somebody else holds: a record with one of them is a suspect."""
        left = map(_mark, keys)
        while some := array("I", islice(left, _SLICE)):
            _append(self._theirs, some.tobytes())

    def suspects(self) -> Sequence[int] | None:
        """Give the places, among all records, of those to look at, sorted; None where they are too many to tell."""
        with _mapped(self._ours, pa.uint64()) as ours, _mapped(self._theirs, pa.uint32()) as theirs:
            # A power of two, so that the last bits of a mark say whose turn it is.
            turns = 1 << (max(len(ours), len(theirs)) // self._at_a_time).bit_length()
            found = _numbers([], pa.uint64())
            for turn in range(turns):
                for some in _suspects(ours, theirs, _Turn(turn, turns)):
                    found = pa.concat_arrays([found, some]).unique()
                    if len(found) > self._most:
                        return None
            return array("Q", found.take(pc.array_sort_indices(found)).to_pylist())


class _Turn:
    """Marks that end in the same bits, which are compared with each other only."""

    def __init__(self, turn: int, turns: int) -> None:
        self._ending, self._bits = _number(turn, pa.uint32()), _number(turns - 1, pa.uint32())

    def of(self, numbers: pa.Array, *, shift: int = 0) -> tuple[pa.Array, pa.Array]:
        """Pick the marks of this turn, and their places; `shift` says where a mark stands in its number."""
        marks, places = [_numbers([], pa.uint32())], [_numbers([], pa.uint64())]
        for start in range(0, len(numbers), _SLICE):
            some = numbers[start : start + _SLICE]
            if numbers.type == pa.uint64():
                some = pc.bit_wise_and(pc.shift_right(some, _number(shift, some.type)), _number(_MASK, some.type))
            some = some.cast(pa.uint32())
            is_wanted = pc.equal(pc.bit_wise_and(some, self._bits), self._ending)
            marks.append(some.filter(is_wanted))
            places.append(pc.add(pc.indices_nonzero(is_wanted), _number(start, pa.uint64())))
        return pa.concat_arrays(marks), pa.concat_arrays(places)


def _suspects(ours: pa.Array, theirs: pa.Array, turn: _Turn) -> Iterator[pa.Array]:
    keys, places = turn.of(ours)
    yield from _doubled(keys, places)
    held, _ = turn.of(theirs)
    yield places.filter(pc.is_in(keys, value_set=held))
    yield from _doubled(*turn.of(ours, shift=32))


def _doubled(marks: pa.Array, places: pa.Array) -> Iterator[pa.Array]:
    """Give the places of all marks that are there more than once."""
    order = pc.array_sort_indices(marks)
    ordered = marks.take(order)
    is_same = pc.equal(ordered[1:], ordered[:-1])
    yield places.take(order[1:].filter(is_same))
    yield places.take(order[:-1].filter(is_same))


@contextmanager
def _mapped(file: Path, type_: pa.DataType) -> Iterator[pa.Array]:
    """Give a file of numbers as an array that stays on disk."""
    with pa.memory_map(str(file)) as mapped:
        numbers = mapped.read_buffer() if mapped.size() else pa.py_buffer(b"")
        yield pa.Array.from_buffers(type_, numbers.size // (type_.bit_width // 8), [None, numbers])


def _numbers(values: list[int], type_: pa.DataType) -> pa.Array:
    """Make an array; not by `pa.array`, which imports pandas where it is installed."""
    numbers = array("I" if type_ == pa.uint32() else "Q", values)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(numbers)])


def _number(value: int, type_: pa.DataType) -> pa.Scalar:
    return _numbers([value], type_)[0]


def _append(file: Path, piece: bytes) -> None:
    try:
        with file.open("ab") as end:
            end.write(piece)
    except OSError as error:
        raise StorageUnavailable(str(file), cause=error.strerror or type(error).__name__) from error


@contextmanager
def marks(*, at_a_time: int = AT_A_TIME, most: int = MOST) -> Iterator[Marks]:
    """Open the marks in a temporary folder. Raises StorageUnavailable where that is full."""
    with TemporaryDirectory(prefix="nightbatch-marks-") as folder:
        yield Marks(Path(folder), at_a_time=at_a_time, most=most)
