"""Cutting loses nothing, keeps the order, and makes no part that is not worth a task."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.parts import cut


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 8), st.integers(0, 200))
def test_every_piece_is_in_one_part_and_in_its_order(sizes, most, least) -> None:
    parts = cut(sizes, most=most, least=least)

    assert [at for part in parts for at in part] == list(range(len(sizes)))
    assert all(parts)
    assert len(parts) <= most
    assert len(parts) <= max(1, sum(sizes) // max(least, 1))


@given(st.integers(1, 8), st.integers(1, 50))
def test_equal_pieces_are_shared_out_evenly(most, each) -> None:
    assert [len(part) for part in cut([7] * most * each, most=most, least=1)] == [each] * most


def test_without_pieces_there_are_no_parts() -> None:
    assert cut([], most=3, least=1) == []
