"""The S3 calls of a job are those that the policy in docs/security.md allows, no more and no less."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.ports import Connection
from tests.servers import S3ForTests, s3_server
from tests.strangers.desk import Desk, desk, parrot

__all__ = ["desk", "parrot", "s3_server"]

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (/\S*) HTTP/1\.1\r\n")
JOB = """
name: tickets
source: {{files: "s3://{bucket}/in/", connection: lake, key: id}}
prompt: {{user: "{{{{ text }}}}"}}
models: [{{provider: openai, model: gpt-5-mini, connection: openai_default, max_output_tokens: 2000}}]
sink: {{files: "s3://{bucket}/answers/", connection: lake}}
retention: 0
"""


class Recorder:
    """Stands between a client and a server, passes every byte on, and keeps what the client said."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._said: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                self._said.append(bytearray())
                threading.Thread(target=self._pass, args=(client, server, self._said[-1]), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, bytearray()), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, said: bytearray) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                said += piece
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def calls(self) -> set[Call]:
        """Give every call so far, as IAM sees it."""
        return {call for said in self._said for call in calls_in(bytes(said))}

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


class Call(NamedTuple):
    """An action, and what it is about: an object's ARN, or for a listing the bucket's ARN and the prefix."""

    action: str
    resource: str
    prefix: str = ""


ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}
"""What IAM asks for, by verb, where an object is named (Amazon S3's Service Authorization Reference)."""


def calls_in(said: bytes) -> Iterator[Call]:
    """Find the calls in what a client said on one connection."""
    found = list(REQUEST.finditer(said))
    ends = [*(after.start() for after in found[1:]), len(said)]
    for match, end in zip(found, ends, strict=False):  # a connection on which nothing was said has no match
        yield from calls_of(match[1].decode(), match[2].decode(), said[match.end() : end])


def calls_of(verb: str, target: str, rest: bytes) -> Iterator[Call]:
    """Say which rights a call takes; S3 asks for that of each object where one call deletes many."""
    parts = urlsplit(target)
    bucket, _, key = parts.path.lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if key:
        is_abort = verb == "DELETE" and "uploadId" in query
        yield Call("s3:AbortMultipartUpload" if is_abort else f"s3:{ACTIONS[verb]}", f"{arn}/{key}")
    elif verb == "GET" and "list-type" in query:
        yield Call("s3:ListBucket", arn, query.get("prefix", [""])[0])
    elif verb == "POST" and "delete" in query:
        yield from (Call("s3:DeleteObject", f"{arn}/{name}") for name in re.findall("<Key>(.*?)</Key>", rest.decode()))
    else:
        yield Call(f"{verb} {target}", arn)


class Grant(NamedTuple):
    """One thing that the policy allows."""

    action: str
    resource: str
    prefix: str

    def allows(self, call: Call) -> bool:
        """Say whether it covers a call."""
        of = (call.resource, self.resource), (call.prefix, self.prefix)
        return call.action == self.action and all(fnmatchcase(value, pattern) for value, pattern in of)


def grants(bucket: str) -> set[Grant]:
    """Read the policy of the page, for a bucket."""
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    policy: dict[str, Any] = json.loads(text.replace(":::bucket", f":::{bucket}"))
    return {
        Grant(action, resource, prefix)
        for one in policy["Statement"]
        for action in one["Action"]
        for resource in one["Resource"]
        for prefix in one.get("Condition", {}).get("StringLike", {}).get("s3:prefix", [""])
    }


@pytest.fixture
def recorder(s3_server: S3ForTests) -> Iterator[Recorder]:
    """A way to the S3 server that keeps what was asked."""
    found = Recorder(s3_server.endpoint)
    yield found
    found.close()


def test_every_call_of_a_job_is_allowed_and_nothing_allowed_is_unused(
    desk: Desk, s3_server: S3ForTests, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.new_bucket()
    extra = {"endpoint_url": recorder.endpoint, "region_name": s3_server.region}
    values = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(values))
    monkeypatch.setenv("NIGHTBATCH_STAGING_URI", f"s3://{bucket}/staging")
    monkeypatch.setenv("NIGHTBATCH_STAGING_CONNECTION", "lake")
    (desk.folder / "tickets.yaml").write_text(JOB.format(bucket=bucket))
    for number in range(2):
        record = json.dumps({"id": f"k{number}", "text": "hello"}).encode()
        s3_server.client().put_object(Bucket=bucket, Key=f"in/{number}.jsonl", Body=record)

    ended = desk.run()
    tidied = desk.type("tidy")
    lake = Connection("lake", "aws", login=s3_server.key, password=s3_server.secret, extra=extra)
    store = ObjectStore(f"s3://{bucket}/staging", lake)
    with store.writer("large") as file:
        file.write(b"x" * (9 << 20))
    with suppress(ZeroDivisionError), store.writer("broken off") as file:
        file.write(b"x" * (9 << 20))
        raise ZeroDivisionError

    assert (ended.code, tidied.code) == (0, 0), (ended, tidied)
    assert tidied.answer["files"] > 0, "the deletions were not looked at"
    calls, allowed = recorder.calls(), grants(bucket)
    assert {call for call in calls if not any(grant.allows(call) for grant in allowed)} == set()
    assert {grant for grant in allowed if not any(grant.allows(call) for call in calls)} == set()
    assert not store.exists("broken off")
