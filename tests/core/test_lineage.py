"""Identities of sources and sinks, as lineage calls them."""

from __future__ import annotations

import pytest

from nightbatch.core.lineage import Place, places_of


@pytest.mark.parametrize(
    ("identity", "places"),
    [
        ("postgresql://db:5432/shop/public.reviews", [("postgres://db:5432", "shop.public.reviews")]),
        (
            "postgresql://db:5432/shop/public.a,sales.b",
            [("postgres://db:5432", "shop.public.a"), ("postgres://db:5432", "shop.sales.b")],
        ),
        ("postgresql://db:5432/shop/query", []),
        ("duckdb:///srv/w.duckdb/main.reviews", [("duckdb:///srv/w.duckdb", "main.reviews")]),
        ("s3://bucket/in/reviews.jsonl at http://store:9000", [("s3://bucket", "in/reviews.jsonl")]),
        ("s3://bucket/answers/", [("s3://bucket", "answers")]),
        ("file:///srv/in", [("file", "/srv/in")]),
        ("frame://reviews", []),
        ("memory://source", []),
    ],
)
def test_a_place_is_named_so_that_others_find_it_again(identity: str, places: list[tuple[str, str]]) -> None:
    assert places_of(identity) == [Place(*place) for place in places]
