"""The demo's data: 3,708 real review sentences, put into a warehouse table and into S3 as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import msgspec
import psycopg
import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.core.window import Window

FIRST_DAY = datetime(2026, 11, 16, tzinfo=UTC)
DAYS = 5
WINDOW = Window(FIRST_DAY, FIRST_DAY + timedelta(days=DAYS))
"""All reviews of the data set fall into this window, five days."""


@dataclass(frozen=True)
class Review:
    """One sentence of a review. `reviewed_at` is made up here; all else is as published."""

    sentence_id: str
    review_id: int
    position: int
    text: str
    human_sentiment: float

    @property
    def reviewed_at(self) -> datetime:
        """Give the sentence's time in UTC, derived from its review: reviews take turns on the five days."""
        return FIRST_DAY + timedelta(days=self.review_id % DAYS, minutes=self.review_id, seconds=self.position)


COLUMNS = ("sentence_id", "review_id", "position", "text", "human_sentiment", "reviewed_at")


def reviews() -> Iterator[Review]:
    """Read the data set that this package carries."""
    decoder = msgspec.json.Decoder(Review)
    with (files("nightbatch.demo") / "product_reviews" / "product_reviews.jsonl").open("rb") as lines:
        yield from map(decoder.decode, lines)


def _row(review: Review) -> tuple[Any, ...]:
    return tuple(getattr(review, column) for column in COLUMNS)


def load_warehouse(url: str) -> int:
    """Fill the table `product_reviews` anew; gives the number of rows."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "create table if not exists product_reviews (sentence_id text primary key, review_id int, position int, "
            "text text, human_sentiment double precision, reviewed_at timestamptz)"
        )
        cursor.execute("truncate product_reviews")
        with cursor.copy(f"copy product_reviews ({', '.join(COLUMNS)}) from stdin") as copy:
            for review in reviews():
                copy.write_row(_row(review))
        row = cursor.execute("select count(*) from product_reviews").fetchone()
        return int(row[0]) if row else 0


def load_bucket(store: ObjectStore) -> int:
    """Write the data set as one Parquet file a day; gives the number of rows."""
    import pyarrow.parquet as pq

    days: dict[str, list[Review]] = {}
    for review in reviews():
        days.setdefault(f"{review.reviewed_at:%Y-%m-%d}", []).append(review)
    for day, found in sorted(days.items()):
        columns = zip(*map(_row, found), strict=True)
        table = pa.table(dict(zip(COLUMNS, map(list, columns), strict=True)))
        with store.writer(f"{day}.parquet") as file:
            pq.write_table(table, file)
    return sum(map(len, days.values()))
