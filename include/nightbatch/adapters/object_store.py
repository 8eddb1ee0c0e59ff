"""A store in a bucket or a folder: S3, Google Cloud Storage, Azure, local files, memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from nightbatch.adapters.object_store_connect import identity_of, open_bucket
from nightbatch.adapters.object_store_local import LocalFiles
from nightbatch.adapters.object_store_names import Location, check_name, parse_uri
from nightbatch.errors import StorageUnavailable
from nightbatch.ports import Connection

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

_PART_BYTES = 8 << 20
"""Size of one uploaded part; 10,000 parts are the most a vendor takes, so a file may have 80 GB."""
_PARTS_AT_ONCE = 3
_BLOCK_BYTES = 4 << 20
"""Size of one read; memory of an open reader."""


class _Files(Protocol):
    """What a backend does with names that were already checked."""

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]: ...
    def reader(self, name: str) -> AbstractContextManager[BinaryIO]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, content: bytes, *, if_absent: bool) -> bool: ...
    def exists(self, name: str) -> bool: ...
    def size_bytes(self, name: str) -> int: ...
    def names(self, prefix: str) -> list[str]: ...
    def delete(self, name: str) -> None: ...


class ObjectStore:
    """
    Immutable files below a base URI; implements the port `Store`.

    `s3://bucket/prefix`, `gs://…`, `az://container/…` or `abfs://container@account…`, `file:///folder`, a local path,
    `memory://name/…` (shared within a process). Without a connection the machine's own credentials are used. Making
    one sends no request. Every method raises StorageUnavailable where the store cannot be reached, and ValueError for
    a name that is no safe relative path.

    An upload that breaks off leaves no file; a bucket may keep its hidden parts until a lifecycle rule removes them.
    """

    def __init__(self, base_uri: str, connection: Connection | None = None) -> None:
        self.location = parse_uri(base_uri)
        self._files: _Files
        if self.location.scheme == "file":
            self._files = LocalFiles(Path(self.location.prefix))
        else:
            self._files = _BucketFiles(open_bucket(self.location, connection), self.location)
        self.identity = identity_of(base_uri, connection)
        """Names the folder without secrets; equal for two stores that hold the same files."""

    def __repr__(self) -> str:
        return f"ObjectStore({self.location.uri!r})"

    def uri(self, name: str) -> str:
        """Give the full URI of a file."""
        return f"{self.location.uri}/{check_name(name)}"

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Stream a file in, with at most 40 MB in memory; it appears whole when the block ends well, or not at all."""
        upload = self._files.writer(check_name(name))
        with self._told(name):
            file = upload.__enter__()
        try:
            yield file
        except BaseException as error:
            upload.__exit__(type(error), error, error.__traceback__)
            raise
        with self._told(name):
            upload.__exit__(None, None, None)

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Stream a file out, seekable, 4 MiB at a time. Raises FileNotFoundError."""
        opened = self._files.reader(check_name(name))
        with self._told(name):
            file = opened.__enter__()
        try:
            yield file
        finally:
            opened.__exit__(None, None, None)

    def read(self, name: str) -> bytes:
        """Read a small file whole. Raises FileNotFoundError."""
        with self._told(name):
            return self._files.read(check_name(name))

    def write(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write a small file at once; with `if_absent` a conditional put decides between two writers."""
        with self._told(name):
            return self._files.write(check_name(name), content, if_absent=if_absent)

    def exists(self, name: str) -> bool:
        """Say whether the file is there; a bucket that is absent or closed to us is an error, not a no."""
        with self._told(name):
            return self._files.exists(check_name(name))

    def size_bytes(self, name: str) -> int:
        """Tell how large a file is. Raises FileNotFoundError."""
        with self._told(name):
            return self._files.size_bytes(check_name(name))

    def names(self, prefix: str) -> Iterator[str]:
        """List the names of all files below a folder, sorted; an empty prefix lists all."""
        folder = prefix.rstrip("/")
        with self._told(prefix):
            return iter(self._files.names(check_name(folder) if folder else ""))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where it is not there."""
        with self._told(name):
            self._files.delete(check_name(name))

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Put the client's errors into our words; "it is not there" stays FileNotFoundError."""
        with told(f"{self.location.uri}/{name}"):
            yield


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what a bucket or a disk raises into StorageUnavailable; FileNotFoundError passes."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, BaseError) as error:
        raise StorageUnavailable(what, cause=_short(error)) from error


class _BucketFiles:
    """Files in a bucket. Raises the client's errors and FileNotFoundError."""

    def __init__(self, bucket: Bucket, location: Location) -> None:
        self._bucket = bucket
        self._base = f"{location.prefix}/" if location.prefix else ""
        self._is_seen = False

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Upload in parts; the closing call makes the file appear, and without it nothing does."""
        import obstore

        path = self._base + name
        sink = obstore.open_writer(self._bucket, path, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        raw = _Upload(sink)
        file = io.BufferedWriter(raw, 1 << 20)
        try:
            yield cast(BinaryIO, file)
            if not file.closed:
                file.flush()
        except BaseException:
            raw.abandon()
            raise
        sink.close()

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Read by ranges of one version of the file."""
        with self._certain(name):
            meta = self._bucket.head(self._base + name)
        download = _Download(self._bucket, self._base + name, meta["size"], meta.get("e_tag"))
        with io.BufferedReader(download, _BLOCK_BYTES) as file:
            yield cast(BinaryIO, file)

    def read(self, name: str) -> bytes:
        with self._certain(name):
            return bytes(self._bucket.get(self._base + name).bytes())

    def write(self, name: str, content: bytes, *, if_absent: bool) -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            self._bucket.put(
                self._base + name, content, mode="create" if if_absent else "overwrite", use_multipart=False
            )
        except AlreadyExistsError:
            return False
        return True

    def exists(self, name: str) -> bool:
        try:
            with self._certain(name):
                self._bucket.head(self._base + name)
        except FileNotFoundError:
            return False
        return True

    def size_bytes(self, name: str) -> int:
        with self._certain(name):
            return int(self._bucket.head(self._base + name)["size"])

    def names(self, prefix: str) -> list[str]:
        listing = self._bucket.list((self._base + prefix).rstrip("/") or None, chunk_size=1000)
        with self._no_absent_bucket():
            cut = len(self._base)
            return sorted(item["path"][cut:] for page in listing for item in page)

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._certain(name):
            self._bucket.delete(self._base + name)

    @contextmanager
    def _certain(self, name: str) -> Iterator[None]:
        """
        Let "not there" pass only where the bucket itself is there.

        A look at one object says 404 for both, so the first such answer is checked by a listing.
        """
        try:
            yield
        except FileNotFoundError as error:
            if not self._is_seen:
                with self._no_absent_bucket():
                    next(iter(self._bucket.list(self._base + name, chunk_size=1)), None)
                self._is_seen = True
            raise FileNotFoundError(f"{self._base}{name} is not in the bucket") from error

    @contextmanager
    def _no_absent_bucket(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise OSError("the bucket does not exist, or these credentials may not list it") from error


class _Upload(io.RawIOBase):
    """The writing end of an upload. Closing it makes nothing appear: only the end of the block does."""

    def __init__(self, sink: Any) -> None:
        self._sink: Any = sink
        self._count = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._count

    def write(self, piece: Any, /) -> int:
        if self._sink is not None:
            self._sink.write(bytes(piece))
        self._count += len(piece)
        return len(piece)

    def abandon(self) -> None:
        """Drop the upload; what a closing buffer still flushes goes nowhere."""
        self._sink = None


class _Download(io.RawIOBase):
    """The reading end: seekable, one request a block, always of the version that was there at first."""

    def __init__(self, bucket: Bucket, path: str, size_bytes: int, e_tag: str | None) -> None:
        self._bucket, self._path, self._size, self._tag = bucket, path, size_bytes, e_tag
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._at + len(buffer), self._size)
        if self._at >= end:
            return 0
        options: dict[str, Any] = {"range": (self._at, end)}
        if self._tag is not None:
            options["if_match"] = self._tag
        with told(self._path):
            piece = self._bucket.get(self._path, options=options).bytes()  # type: ignore[arg-type]  # a TypedDict
        buffer[: len(piece)] = memoryview(piece)
        self._at += len(piece)
        return len(piece)


def _short(error: BaseException) -> str:
    """Give the first line of a client's error; the rest repeats it as a debug dump."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300].rstrip(".")
