"""
Measure what it costs to have request files in S3: CPU a gigabyte, local copies, and whether it overlaps with preparing.

    .venv/bin/python benchmarks/upload.py [RECORDS] [PAIRS]

`to S3` prepares records; `upload alone` sends as many bytes through the same store, and does nothing else, and is what
the CPU seconds a gigabyte are of. The server is on this machine, so it takes a core that a bucket elsewhere would not,
and seconds say little: whether uploading overlaps with preparing is therefore told in bytes, by asking the server what
it has when the last record of a file was written. Local bytes are those that the process gave to a disk, and those of
the largest file that it had open beside its source; a ledger and caches of imports are among them.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prepare import prepared
from records import make
from turns import Found, Row, Variant, asked_for, finish, in_turn, play, tell

LINE = b"x" * 2_900 + b"\n"
GB = 1e9


def to_s3(data: Path, out: Path) -> Mapping[str, Any]:
    """Prepare into a bucket."""
    with watched(data / "records.parquet") as local, asked_writers() as there:
        return {**prepared(source(data), out, **staging(out)), **local, **there}


def upload(data: Path, out: Path) -> Mapping[str, Any]:
    """Send as many bytes as a request file of these records would have, a line at a time."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_store, settings_from

    environ, lines = staging(out), int(os.environ["BENCH_RECORDS"])
    store = open_store(settings_from(environ), from_environment(environ))
    with store.writer("warm-up") as file:
        file.write(LINE)
    began, cpu = time.perf_counter(), time.process_time()
    with store.writer("requests.jsonl") as file:
        for _ in range(lines):
            file.write(LINE)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return {"rows": lines, "bytes": lines * len(LINE), "sent_s": took, "sent_cpu_s": used}


def source(data: Path) -> dict[str, Any]:
    """Describe the source."""
    return {"files": f"{data}/records.parquet"}


def staging(out: Path) -> dict[str, str]:
    """Name a folder of the bucket, another for each turn."""
    return {
        "NIGHTBATCH_STAGING_URI": f"s3://bench/{out.name}",
        "NIGHTBATCH_STAGING_CONNECTION": "bench",
        "AIRFLOW_CONN_BENCH": os.environ["BENCH_S3"],
    }


@contextmanager
def asked_writers() -> Iterator[dict[str, float]]:
    """Add up what the server has of each file in parts when the last of it was written, and what waiting took."""
    import boto3
    import obstore

    given = json.loads(os.environ["BENCH_S3"])
    client = boto3.client(
        "s3",
        aws_access_key_id=given["login"],
        aws_secret_access_key=given["password"],
        endpoint_url=given["extra"]["endpoint_url"],
        region_name=given["extra"].get("region_name"),
    )
    told = {"there_bytes": 0.0, "waited_s": 0.0}

    def bytes_there(name: str) -> float:
        found = client.list_multipart_uploads(Bucket="bench", Prefix=name).get("Uploads", [])
        parts = [client.list_parts(Bucket="bench", Key=one["Key"], UploadId=one["UploadId"]) for one in found]
        return float(sum(part["Size"] for page in parts for part in page.get("Parts", [])))

    class Asked:
        def __init__(self, bucket: Any, name: str, **choices: Any) -> None:
            self.writer, self.name = opened(bucket, name, **choices), name

        def write(self, piece: bytes) -> None:
            began = time.perf_counter()
            self.writer.write(piece)
            told["waited_s"] += time.perf_counter() - began

        def close(self) -> None:
            told["there_bytes"] += bytes_there(self.name)
            began = time.perf_counter()
            self.writer.close()
            told["waited_s"] += time.perf_counter() - began

    opened, obstore.open_writer = obstore.open_writer, Asked
    yield told


@contextmanager
def watched(source: Path) -> Iterator[dict[str, float]]:
    """Fill in how many bytes went to a disk, and how large a file was open, but for the source."""
    local, done = {"disk_bytes": 0.0, "open_bytes": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            local["open_bytes"] = max(local["open_bytes"], _largest_open(source))

    before, watch = _written_bytes(), threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield local
    finally:
        done.set()
        watch.join()
        local["disk_bytes"] = _written_bytes() - before


def _written_bytes() -> int:
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["write_bytes"])


def _largest_open(source: Path) -> float:
    largest = 0
    for opened in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            about = opened.stat()
            if stat.S_ISREG(about.st_mode) and not os.path.samestat(about, source.stat()):
                largest = max(largest, about.st_size)
    return largest


VARIANTS: dict[str, Variant] = {"to S3": to_s3, "upload alone": upload}


def rows(found: Found) -> list[Row]:
    """Compare with what was asked for."""
    bucket, alone = (found[name] for name in VARIANTS)
    a_gb = alone["sent_cpu_s"] / alone["bytes"] * GB
    local = max(bucket["disk_bytes"], bucket["open_bytes"])
    early = bucket["there_bytes"] / bucket["bytes"]
    seen = f"{local / 1e6:.1f} MB on disk of {bucket['bytes'] / 1e6:,.0f} MB sent"
    return [
        Row("upload to S3: client CPU a GB", "≤ 1.5 s", f"{a_gb:.2f} s", a_gb <= 1.5),
        Row("upload to S3: local copy", "none", seen, local < 0.05 * bucket["bytes"]),
        Row(
            "upload to S3: there when the last record is written",
            "≥ 80 % of the bytes",
            f"{early:.0%} (waited {bucket['waited_s']:.1f} s)",
            early >= 0.8,
        ),
    ]


def main() -> None:
    """Start a server, make the records, and let the variants take turns."""
    if play(VARIANTS):
        return
    from nightbatch.demo.services.stack import Stack

    records, pairs = asked_for(100_000, 5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        server, data = stack.start_s3(), Path(name) / "data"
        server.create_bucket("bench")
        os.environ |= {"BENCH_S3": server.airflow_connection(), "BENCH_RECORDS": str(records)}
        data.mkdir()
        make(data, records)
        found = in_turn(__file__, VARIANTS, data, pairs=pairs)
    tell(found)
    finish(__file__, found, rows(found), turns=pairs)


if __name__ == "__main__":
    main()
