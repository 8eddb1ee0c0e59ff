"""Parts of a source: how a row of pieces is cut into few parts that are about as large as each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby


def cut(sizes: Sequence[int], *, most: int, least: int) -> list[range]:
    """
    Cut pieces that stand in a row into at most `most` parts, in order; gives the positions of each part's pieces.

    There are no more parts than `least` goes into the whole, so that small pieces are merged. No part is empty.
    """
    total = sum(sizes)
    parts = max(1, min(most, total // max(least, 1)))
    # A piece belongs where its middle falls.
    middles = (2 * end - size for end, size in zip(accumulate(sizes), sizes, strict=True))
    numbers = [min(parts - 1, middle * parts // (2 * total)) if total else 0 for middle in middles]
    ends = list(accumulate(len(list(group)) for _, group in groupby(numbers)))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
