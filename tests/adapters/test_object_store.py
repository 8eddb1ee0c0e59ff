"""Every store keeps the same promises: whole files or none, no false "not there", safe names."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nightbatch.adapters import object_store_connect
from nightbatch.adapters.memory import MemoryStore
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.object_store_names import parse_uri
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, Store

if TYPE_CHECKING:
    from tests.servers import S3ForTests

pytest_plugins = ["tests.servers"]

MB = 1 << 20


def connection_to(server: S3ForTests, **changes: Any) -> Connection:
    extra = {"endpoint_url": server.endpoint, "region_name": server.region}
    facts = {"conn_id": "s3", "conn_type": "aws", "login": server.key, "password": server.secret, "extra": extra}
    return Connection(**{**facts, **changes})


@pytest.fixture(scope="module")
def s3_bucket(s3_server: S3ForTests) -> str:
    return s3_server.new_bucket()


@pytest.fixture(params=["fake", "memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    name = uuid.uuid4().hex
    if request.param == "fake":
        yield MemoryStore()
    elif request.param == "memory":
        yield ObjectStore(f"memory://{name}/base")
    elif request.param == "local":
        yield ObjectStore(str(tmp_path / "base"))
    else:
        bucket = request.getfixturevalue("s3_bucket")
        yield ObjectStore(f"s3://{bucket}/{name}", connection_to(request.getfixturevalue("s3_server")))


def test_what_is_written_is_read_back(store: Store) -> None:
    assert store.write("a/b.json", b"one")
    assert store.write("a/b.json", b"two")

    assert store.read("a/b.json") == b"two"
    assert store.exists("a/b.json")
    assert store.uri("a/b.json").endswith("/a/b.json")


def test_an_absent_file_is_file_not_found_and_nothing_else(store: Store) -> None:
    assert not store.exists("nope")
    with pytest.raises(FileNotFoundError):
        store.read("nope")
    with pytest.raises(FileNotFoundError), store.reader("nope"):
        pass
    store.delete("nope")
    assert list(store.names("nope")) == []


def test_if_absent_lets_the_first_writer_win(store: Store) -> None:
    assert store.write("claim", b"first", if_absent=True)
    assert not store.write("claim", b"second", if_absent=True)

    assert store.read("claim") == b"first"


def test_of_many_claims_at_once_exactly_one_wins(store: Store) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        barrier.wait()
        if store.write("claim", f"{number}".encode(), if_absent=True):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert store.read("claim") == f"{won[0]}".encode()
    assert list(store.names("")) == ["claim"]


@pytest.mark.parametrize("size_bytes", [0, 1, 9 * MB, 20 * MB + 7])
def test_a_stream_of_any_size_arrives_whole(store: Store, size_bytes: int) -> None:
    content = os.urandom(MB) * (size_bytes // MB + 1)
    content = content[:size_bytes]
    with store.writer("big") as file:
        for start in range(0, size_bytes, 300_000):
            file.write(content[start : start + 300_000])
        assert not store.exists("big")

    with store.reader("big") as file:
        assert file.read() == content
        file.seek(-min(5, size_bytes), os.SEEK_END)
        assert file.read() == content[-5:]
        file.seek(size_bytes // 2)
        assert file.read(10) == content[size_bytes // 2 : size_bytes // 2 + 10]
        assert file.tell() == min(size_bytes, size_bytes // 2 + 10)


@pytest.mark.parametrize("size_bytes", [10, 20 * MB])
def test_a_writer_that_breaks_off_leaves_nothing(store: Store, size_bytes: int) -> None:
    with pytest.raises(RuntimeError, match="mine"), store.writer("half") as file:
        file.write(b"x" * size_bytes)
        raise RuntimeError("mine")

    assert not store.exists("half")
    assert list(store.names("")) == []


def test_a_writer_that_breaks_off_leaves_the_old_file(store: Store) -> None:
    store.write("file", b"old")
    with pytest.raises(RuntimeError), store.writer("file") as file:
        file.write(b"new")
        raise RuntimeError

    assert store.read("file") == b"old"


def test_closing_the_file_inside_the_block_is_fine(store: Store) -> None:
    with store.writer("closed") as file:
        file.write(b"content")
        file.close()

    assert store.read("closed") == b"content"


def test_names_are_sorted_and_of_one_folder(store: Store) -> None:
    for name in ("b", "a/2", "a/10", "ab/1", "a/c/d"):
        store.write(name, b"")

    assert list(store.names("a")) == ["a/10", "a/2", "a/c/d"]
    assert list(store.names("a/")) == ["a/10", "a/2", "a/c/d"]
    assert list(store.names("")) == ["a/10", "a/2", "a/c/d", "ab/1", "b"]


@pytest.mark.parametrize("name", ["window=1/a b.txt", "é/日本.json", "100%/x", "a%20b", "q?x=1&y#z", "a+b", "~.tmp"])
def test_odd_but_safe_names_keep_their_spelling(store: Store, name: str) -> None:
    store.write(name, b"here")

    assert list(store.names("")) == [name]
    assert store.read(name) == b"here"
    with store.reader(name) as file:
        assert file.read() == b"here"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\nb", "x" * 1025])
def test_unsafe_names_are_refused(store: Store, name: str) -> None:
    for call in (store.read, store.exists, store.delete, store.uri, lambda name: store.write(name, b"")):
        with pytest.raises(ValueError, match="is no file name"):
            call(name)
    with pytest.raises(ValueError, match="is no file name"), store.writer(name):
        pass


def test_two_openers_of_one_memory_bucket_see_the_same_files() -> None:
    ObjectStore("memory://shared/x").write("file", b"1")

    assert ObjectStore("memory://shared").read("x/file") == b"1"


def test_delete_removes(store: Store) -> None:
    store.write("gone", b"1")
    store.delete("gone")

    assert not store.exists("gone")


# --- what only real places do -----------------------------------------------------------------------------------

WRITE_AND_HANG = """
import json, sys, time
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.ports import Connection
uri, facts = json.loads(sys.argv[1])
store = ObjectStore(uri, Connection(**facts) if facts else None)
with store.writer("half") as file:
    for _ in range(30):
        file.write(b"x" * 1_000_000)
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_writer_killed_in_the_middle_leaves_nothing(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import json

    facts, uri = None, str(tmp_path)
    if place == "s3":
        connection = connection_to(request.getfixturevalue("s3_server"))
        facts, uri = vars(connection), f"s3://{request.getfixturevalue('s3_bucket')}/killed"
    store = ObjectStore(uri, Connection(**facts) if facts else None)
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_HANG, json.dumps([uri, facts])], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    child.kill()
    child.wait()
    child.stdout.close()

    assert not store.exists("half")
    assert list(store.names("")) == []


@pytest.mark.parametrize(
    ("endpoint", "is_signed"),
    [
        ("", False),
        ("https://s3.example.com", False),
        ("http://127.0.0.1:9000", False),
        ("http://s3.example.com:9000", True),
        ("http://127.0.0.1.example.com", True),
    ],
)
def test_what_is_sent_is_signed_byte_by_byte_only_where_it_could_be_changed_on_its_way(
    endpoint: str, is_signed: bool
) -> None:
    """The signature takes half of an upload's CPU seconds."""
    extra = {"region_name": "x", **({"endpoint_url": endpoint} if endpoint else {})}
    connection = Connection("s3", "aws", login="key", password="secret", extra=extra)

    bucket = object_store_connect.open_bucket(parse_uri("s3://bucket/base"), connection)

    assert (bucket.config.get("unsigned_payload") is None) == is_signed


def test_a_store_that_is_down_is_unavailable_and_never_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store_connect, "_RETRY", {"max_retries": 0})
    connection = Connection("s3", "aws", login="key", password="secret", extra={"endpoint_url": "http://127.0.0.1:9"})
    store = ObjectStore("s3://bucket/base", connection)

    for call in (store.exists, store.read, store.names, store.delete, lambda name: store.write(name, b"")):
        with pytest.raises(StorageUnavailable, match="s3://bucket/base/x cannot be reached"):
            call("x")
    with pytest.raises(StorageUnavailable), store.writer("x") as file:
        file.write(b"1")


def test_a_bucket_that_is_not_there_is_unavailable(s3_server: S3ForTests) -> None:
    store = ObjectStore("s3://no-such-bucket/base", connection_to(s3_server))

    for call in (store.exists, store.read, store.names):
        with pytest.raises(StorageUnavailable, match="bucket"):
            call("x")


def test_a_wrong_secret_is_unavailable_and_not_shown(s3_server: S3ForTests, s3_bucket: str) -> None:
    store = ObjectStore(f"s3://{s3_bucket}/x", connection_to(s3_server, password="wr0ng"))

    with pytest.raises(StorageUnavailable) as caught:
        store.exists("x")

    assert "wr0ng" not in str(caught.value)
    assert "wr0ng" not in repr(store)


def test_a_file_replaced_while_it_is_read_is_noticed(s3_server: S3ForTests, s3_bucket: str) -> None:
    store = ObjectStore(f"s3://{s3_bucket}/replaced", connection_to(s3_server))
    store.write("file", b"a" * 10 * MB)

    with store.reader("file") as file, pytest.raises(StorageUnavailable):
        file.read(10)
        store.write("file", b"b" * 10 * MB)
        file.read()


def test_an_unreadable_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ObjectStore(str(tmp_path / "file"))

    with pytest.raises(StorageUnavailable):
        store.write("x", b"")


def test_a_half_written_local_file_is_in_no_listing(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path.as_uri())
    with store.writer("a/file") as file:
        file.write(b"1")
        assert list(store.names("")) == []

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_keys_of_the_machine_are_found_without_a_connection(
    s3_server: S3ForTests,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_REGION", s3_server.region)
    store = ObjectStore(f"s3://{s3_bucket}/environment")

    assert store.write("x", b"1")
    assert store.identity == f"s3://{s3_bucket}/environment at {s3_server.endpoint}"


def test_a_session_token_of_the_machine_does_not_mix_with_a_connections_keys(
    s3_server: S3ForTests,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")

    assert ObjectStore(f"s3://{s3_bucket}/mix", connection_to(s3_server)).write("x", b"1")


def test_a_profile_gives_keys_through_boto3(
    s3_server: S3ForTests,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[night]\naws_access_key_id={s3_server.key}\naws_secret_access_key={s3_server.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    extra = {"endpoint_url": s3_server.endpoint, "region_name": s3_server.region, "profile_name": "night"}
    store = ObjectStore(f"s3://{s3_bucket}/profile", Connection("s3", "aws", extra=extra))

    assert store.write("x", b"1")
    assert store.read("x") == b"1"


def test_a_connection_of_another_type_is_refused() -> None:
    with pytest.raises(ConnectionInvalid, match="type postgres, and s3:// needs aws"):
        ObjectStore("s3://bucket/x", Connection("pg", "postgres"))


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3://", "s3://key:secret@bucket/x", "file://host/x", ""])
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        ObjectStore(uri)

    assert "secret@" not in str(caught.value)


def test_spellings_of_one_place_have_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spellings = ["data", "./data", "data/", (tmp_path / "data").as_uri(), str(tmp_path / "data")]

    assert {ObjectStore(uri).identity for uri in spellings} == {f"file://{tmp_path}/data"}
    assert ObjectStore("s3a://b/x/").identity == ObjectStore("s3://b/x").identity == "s3://b/x"


def test_google_and_azure_are_opened_from_their_connections() -> None:
    """Only opened: no request is sent, and nobody has run them against the real services."""
    gcs = ObjectStore("gs://bucket/x", Connection("g", "google_cloud_platform", extra={}))
    azure = ObjectStore(
        "abfs://box@account.dfs.core.windows.net/x", Connection("a", "wasb", "", None, "account", "a2V5")
    )

    assert gcs.uri("f") == "gs://bucket/x/f"
    assert azure.uri("f") == "az://box/x/f"


FORK = """
import os
from nightbatch.adapters.object_store import ObjectStore
store = ObjectStore("memory://x")
first = os.fork()
if first == 0:
    store.write("a", b"1")  # nothing was used before: fine
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]), flush=True)
store.write("a", b"1")
second = os.fork()
if second == 0:
    try:
        ObjectStore("memory://y").exists("a")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(second, 0)
"""


def test_a_process_forked_after_the_first_use_is_told_and_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.splitlines() == [
        "0",
        "this process was forked from one that had used a bucket; start it by spawn instead",
    ]
