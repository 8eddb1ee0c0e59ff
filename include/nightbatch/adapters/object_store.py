"""A store in a bucket or a folder: S3, Google Cloud Storage, Azure, local files, memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from nightbatch.adapters.object_store_bucket import BucketFiles, told
from nightbatch.adapters.object_store_connect import identity_of, open_bucket
from nightbatch.adapters.object_store_local import LocalFiles
from nightbatch.adapters.object_store_names import check_name, parse_uri
from nightbatch.ports import Connection


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
            self._files = BucketFiles(open_bucket(self.location, connection), self.location.prefix)
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
