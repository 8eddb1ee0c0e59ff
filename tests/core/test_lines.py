"""Lines: counted the same however a file is cut into chunks."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.lines import LineCount

LINES = [b'{"a": 1}', b"{}", b"<html>", b"{cut", b"", b"  "]


def counted(*chunks: bytes) -> tuple[int, int]:
    count = LineCount()
    for chunk in chunks:
        count.feed(chunk)
    count.end()
    return count.whole, count.broken


@given(st.lists(st.sampled_from(LINES)), st.lists(st.integers(0, 60)))
def test_lines_are_counted_the_same_however_the_file_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    whole = b"\n".join(lines)
    at = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    chunks = [whole[start:end] for start, end in pairwise(at)]

    good = sum(line in LINES[:2] for line in lines)
    assert counted(*chunks) == (good, sum(bool(line.strip()) for line in lines) - good)
