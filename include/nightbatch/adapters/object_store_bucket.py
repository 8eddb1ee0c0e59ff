"""Files in a bucket, through the Rust object store: uploads that appear whole, reads of one version, sure answers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from nightbatch.errors import StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

_PART_BYTES = 8 << 20
"""Size of one uploaded part; 10,000 parts are the most a vendor takes, so a file may have 80 GB."""
_PARTS_AT_ONCE = 3
_BLOCK_BYTES = 4 << 20
"""Size of one read; memory of an open reader."""


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


class _Threads:
    """
    Whether the client's threads are there. They do not survive a fork, and a call would then wait for ever.

    A process that forks must not have used a bucket before; one that starts anew (spawn, exec) may do as it likes.
    """

    in_use = False
    are_lost = False

    @classmethod
    def check(cls) -> None:
        """Note the first use; raise in a child that was forked after it."""
        if cls.are_lost:
            raise RuntimeError("this process was forked from one that had used a bucket; start it by spawn instead")
        cls.in_use = True

    @classmethod
    def lose(cls) -> None:
        """Note that this process is a fork."""
        cls.are_lost = cls.are_lost or cls.in_use


os.register_at_fork(after_in_child=_Threads.lose)


class BucketFiles:
    """Files in a bucket. Raises the client's errors and FileNotFoundError."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._opened = bucket
        self._base = f"{prefix}/" if prefix else ""
        self._is_seen = False

    @property
    def _bucket(self) -> Bucket:
        _Threads.check()
        return self._opened

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Upload in parts; the closing call makes the file appear, and without it nothing does."""
        import obstore

        path = self._base + name
        sink = obstore.open_writer(self._bucket, path, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        raw = _Upload(sink, path)
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
        """Read a small file whole."""
        with self._certain(name):
            return bytes(self._bucket.get(self._base + name).bytes())

    def write(self, name: str, content: bytes, *, if_absent: bool) -> bool:
        """Put a small file in one call; with `if_absent`, say False where it exists."""

        from obstore.exceptions import AlreadyExistsError

        try:
            self._bucket.put(
                self._base + name, content, mode="create" if if_absent else "overwrite", use_multipart=False
            )
        except AlreadyExistsError:
            return False
        return True

    def exists(self, name: str) -> bool:
        """Say whether the file is there."""
        try:
            with self._certain(name):
                self._bucket.head(self._base + name)
        except FileNotFoundError:
            return False
        return True

    def size_bytes(self, name: str) -> int:
        """Give the size of a file."""
        with self._certain(name):
            return int(self._bucket.head(self._base + name)["size"])

    def names(self, prefix: str) -> list[str]:
        """List all files below a folder, sorted, without the folders that consoles create."""
        listing = self._bucket.list((self._base + prefix).rstrip("/") or None, chunk_size=1000)
        with self._no_absent_bucket():
            found = [item for page in listing for item in page if item["size"] or self._is_file(item["path"])]
            return sorted(item["path"][len(self._base) :] for item in found)

    def delete(self, name: str) -> None:
        """Remove a file; an absent one is fine."""
        with suppress(FileNotFoundError), self._certain(name):
            self._bucket.delete(self._base + name)

    def _is_file(self, path: str) -> bool:
        """Tell an empty file from the `folder/` that consoles create, which the listing shows without its slash."""
        if len(path) <= len(self._base):
            return False
        try:
            self._bucket.head(path)
        except FileNotFoundError:
            return False
        return True

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

    def __init__(self, sink: Any, path: str) -> None:
        self._sink: Any = sink
        self._path = path
        self._count = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._count

    def write(self, piece: Any, /) -> int:
        if self._sink is not None:
            with told(self._path):
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
            piece = self._piece(options)
        buffer[: len(piece)] = memoryview(piece)
        self._at += len(piece)
        return len(piece)

    def _piece(self, options: dict[str, Any]) -> Any:
        from obstore.exceptions import PreconditionError

        try:
            return self._bucket.get(self._path, options=options).bytes()  # type: ignore[arg-type]  # a TypedDict
        except (FileNotFoundError, PreconditionError) as error:
            raise StorageUnavailable(self._path, cause="it was deleted or replaced while it was read") from error


def _short(error: BaseException) -> str:
    """Give the first line of a client's error; the rest repeats it as a debug dump."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300].rstrip(".")
