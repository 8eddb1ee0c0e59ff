"""Walks a vendor's listing of batches to a place where "it is not there" is certain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from nightbatch.errors import ProviderBusy

DOING = "listing batches"


class Listed(Protocol):
    """What a listing must say of a batch."""

    id: str

    @property
    def created_utc(self) -> datetime:
        """When it was created."""


L = TypeVar("L", bound=Listed)

ReadPage = Callable[[str | None], tuple[Sequence[L], bool]]
"""Reads the page after a batch id (the first for None), and says whether there are more."""


def listed(read_page: ReadPage[L], *, oldest: datetime, provider: str) -> Iterator[L]:
    """
    Give every batch of a listing, newest first, at least back to `oldest`.

    Stops early only while the listing has kept its order: one that is not newest first is read to its end. Raises
    ProviderBusy for one that has no end.
    """
    # One id a page is enough to find out that it goes in circles, and keeps memory small however long it is.
    cursors: set[str] = set()
    is_newest_first, last, after = True, None, None
    while True:
        page, has_more = read_page(after)
        for batch in page:
            is_newest_first = is_newest_first and (last is None or batch.created_utc <= last)
            last = batch.created_utc
            yield batch
        if not has_more or (is_newest_first and last is not None and last < oldest):
            return
        if not page or page[-1].id in cursors:
            raise ProviderBusy(provider, DOING, cause="the listing repeats itself and has no end")
        after = page[-1].id
        cursors.add(after)
