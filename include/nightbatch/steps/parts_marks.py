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

from nightbatch.core.arrow import number_array
from nightbatch.errors import StorageUnavailable
from nightbatch.ports import Store

AT_A_TIME = 1_000_000
"""Marks that are sorted at a time, in some 40 MB."""
MOST = 1_000_000
"""Most suspects; where there are more, all records may as well be looked at."""

_MASK = (1 << 32) - 1
_SLICE = 1 << 16
"""Numbers that are looked through at a time."""


def marks_of(asked: Iterable[tuple[str, str]]) -> bytes:
    """Give eight bytes for each key and fingerprint, little-endian: the key's mark, then that of the fingerprint."""
    return array("Q", [int(fingerprint[:8], 16) << 32 | _mark(key) for key, fingerprint in asked]).tobytes()


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
        while some := array("Q", islice(left, _SLICE)):
            _append(self._theirs, some.tobytes())

    def suspects(self) -> Sequence[int] | None:
        """Give the places, among all records, of those to look at, sorted; None where they are too many to tell."""
        with _mapped(self._ours) as ours, _mapped(self._theirs) as theirs:
            # A power of two, so that the last bits of a mark say whose turn it is.
            turns = 1 << (max(len(ours), len(theirs)) // self._at_a_time).bit_length()
            found: set[int] = set()
            for turn in range(turns):
                for some in _suspects(ours, theirs, _Turn(turn, turns)):
                    found.update(some.to_pylist())
                    if len(found) > self._most:
                        return None
            return array("Q", sorted(found))


class _Turn:
    """Marks that end in the same bits, which are compared with each other only."""

    def __init__(self, turn: int, turns: int) -> None:
        self._ending, self._bits = _number(turn), _number(turns - 1)

    def of(self, numbers: pa.Array, *, shift: int = 0) -> tuple[pa.Array, pa.Array]:
        """Pick the marks of this turn, and their places; `shift` says where a mark stands in its number."""
        # Into Python's arrays, which grow in one place: what Arrow filters keeps the room of all that was looked at.
        marks, places = array("I"), array("Q")
        for start in range(0, len(numbers), _SLICE):
            some = pc.bit_wise_and(pc.shift_right(numbers[start : start + _SLICE], _number(shift)), _number(_MASK))
            is_wanted = pc.equal(pc.bit_wise_and(some, self._bits), self._ending)
            marks.frombytes(_bytes_of(some.filter(is_wanted).cast(pa.uint32())))
            places.frombytes(_bytes_of(pc.add(pc.indices_nonzero(is_wanted), _number(start))))
        return number_array(marks, pa.uint32()), number_array(places, pa.uint64())


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


def _bytes_of(numbers: pa.Array) -> memoryview:
    """Give the bytes of an array of numbers, not copied."""
    width = numbers.type.bit_width // 8
    start = numbers.offset * width
    return memoryview(numbers.buffers()[1])[start : start + len(numbers) * width]


@contextmanager
def _mapped(file: Path) -> Iterator[pa.Array]:
    """Give a file of numbers as an array that stays on disk."""
    with pa.memory_map(str(file)) as mapped:
        numbers = mapped.read_buffer() if mapped.size() else pa.py_buffer(b"")
        yield pa.Array.from_buffers(pa.uint64(), numbers.size // 8, [None, numbers])


def _number(value: int) -> pa.Scalar:
    return number_array([value], pa.uint64())[0]


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
