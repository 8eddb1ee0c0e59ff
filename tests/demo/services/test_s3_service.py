"""The S3 server keeps its objects, wants its key, and listens on loopback."""

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import EndpointConnectionError

from nightbatch.demo.services.s3 import S3Server


def read(client: Any, bucket: str) -> bytes:
    return bytes(client.get_object(Bucket=bucket, Key="a/b")["Body"].read())


def test_objects_survive_a_crash_on_other_ports_and_leave_no_sockets(tmp_path: Path) -> None:
    first = S3Server.start(tmp_path / "s3")
    bucket = first.create_bucket("answers")
    first.client().put_object(Bucket=bucket, Key="a/b", Body=b"x" * 10_000_000)
    os.kill(first.process.pid, signal.SIGKILL)

    second = S3Server.start(tmp_path / "s3")
    try:
        assert second.create_bucket("answers") == bucket
        assert read(second.client(), bucket) == b"x" * 10_000_000
        assert (second.key, second.secret) == (first.key, first.secret)
        heard = psutil.Process(second.process.pid).net_connections(kind="tcp")
        listening = [connection.laddr for connection in heard if connection.status == psutil.CONN_LISTEN]
        assert {host for host, _ in listening} == {"127.0.0.1"}
        assert {port for _, port in listening} == set(second.ports)
        assert _refuses_another_secret(second, bucket)
    finally:
        second.stop()
    for port in {*first.ports, *second.ports}:
        assert not list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))


def test_its_file_of_keys_is_private(tmp_path: Path) -> None:
    server = S3Server.start(tmp_path / "s3")
    server.stop()

    assert (tmp_path / "s3" / "identities.json").stat().st_mode & 0o077 == 0


def _refuses_another_secret(server: S3Server, bucket: str) -> bool:
    from botocore.exceptions import ClientError

    server.secret, right = "guess", server.secret
    with pytest.raises(ClientError):
        read(server.client(), bucket)
    server.secret = right
    return True


def test_it_goes_away_and_comes_back_where_it_was(tmp_path: Path) -> None:
    server = S3Server.start(tmp_path / "s3")
    try:
        bucket = server.create_bucket("answers")
        server.client().put_object(Bucket=bucket, Key="a/b", Body=b"x")
        # The disk is given away in volumes; a bucket that took several would leave none to the hundredth.
        assert len(list((tmp_path / "s3" / "objects").glob("answers_*.dat"))) == 1
        client = server.client()
        server.go_away()
        with pytest.raises(EndpointConnectionError):
            read(client, bucket)
        server.start_again()

        assert read(client, bucket) == b"x"
    finally:
        server.stop()
