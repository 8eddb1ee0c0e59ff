"""
Time `prepare` from a query of PostgreSQL against `prepare` from Parquet: the same records, the same request files.

    .venv/bin/python benchmarks/postgres.py [RECORDS] [PAIRS]

The server is on this machine; its CPU is not counted, as that of whoever wrote the Parquet file is not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prepare import ours as from_parquet
from prepare import prepared
from records import make
from turns import Found, Row, Variant, asked_for, finish, in_turn, play, tell


def from_postgres(data: Path, out: Path) -> Mapping[str, Any]:
    """Prepare what a query gives."""
    source = {
        "query": "SELECT id, product, text FROM reviews ORDER BY id",
        "connection": "bench",
        "whole_table": True,
    }
    return prepared(source, out, AIRFLOW_CONN_BENCH=os.environ["BENCH_POSTGRES"])


def fill(data: Path) -> None:
    """Put the records into a table."""
    import psycopg
    import pyarrow.parquet as pq

    with psycopg.connect(os.environ["BENCH_POSTGRES"]) as database, database.cursor() as cursor:
        cursor.execute("CREATE TABLE reviews (id text, product text, text text)")
        with cursor.copy("COPY reviews FROM STDIN") as copy:
            for batch in pq.ParquetFile(data / "records.parquet").iter_batches(1_000):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    copy.write_row(row)
        cursor.execute("ALTER TABLE reviews ADD PRIMARY KEY (id)")
        cursor.execute("ANALYZE reviews")


VARIANTS: dict[str, Variant] = {"from PostgreSQL": from_postgres, "from Parquet": from_parquet}


def rows(found: Found) -> list[Row]:
    """Compare with what was asked for."""
    share = found["from Parquet"]["cpu_s"] / found["from PostgreSQL"]["cpu_s"]
    return [Row("prepare from PostgreSQL, of the rate from Parquet", "≥ 60 %", f"{share:.0%}", share >= 0.6)]


def main() -> None:
    """Start a server, make the records, and let the variants take turns."""
    if play(VARIANTS):
        return
    from nightbatch.demo.services.stack import Stack

    records, pairs = asked_for(100_000, 5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        data = Path(name) / "data"
        data.mkdir()
        os.environ["BENCH_POSTGRES"] = stack.start_postgres().url()
        make(data, records)
        fill(data)
        found = in_turn(__file__, VARIANTS, data, pairs=pairs)
    tell(found)
    finish(__file__, found, rows(found), turns=pairs)


if __name__ == "__main__":
    main()
