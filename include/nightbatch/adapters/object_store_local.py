"""Files in a local folder: whole or not there, and on the disk when a write returns."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any, BinaryIO, cast

from nightbatch.errors import StorageUnavailable

_TEMPORARY = ".nightbatch-"
"""Files that are being written start like this, next to where they will be; no listing shows them."""


class LocalFiles:
    """A folder. Raises OSError; the caller puts it into our words."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Write to a temporary file, make it durable, and rename it; remove it where the block raises."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with io.BufferedWriter(_Told(temporary, "xb"), 1 << 20) as file:
                yield cast(BinaryIO, file)
                if not file.closed:
                    file.flush()
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file."""
        with io.BufferedReader(_Told(self._folder / name, "rb"), 1 << 20) as file:
            yield cast(BinaryIO, file)

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes, *, if_absent: bool) -> bool:
        """Write a file whole; with `if_absent` a hard link decides between two writers."""
        if not if_absent:
            with self.writer(name) as file:
                file.write(content)
            return True
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(content)
            _sync(temporary)
            os.link(temporary, target)
            _sync(target.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def exists(self, name: str) -> bool:
        """Look for a file. A folder of that name is no file; an unreadable parent raises."""
        try:
            status = (self._folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return not S_ISDIR(status.st_mode)

    def size_bytes(self, name: str) -> int:
        """Tell how large a file is."""
        return (self._folder / name).stat().st_size

    def names(self, prefix: str) -> list[str]:
        """List the files below a folder, sorted; an absent folder has none."""
        start = self._folder / prefix if prefix else self._folder
        found: list[str] = []
        for folder, _, files in os.walk(start, onerror=_raise_unless_absent):
            below = Path(folder).relative_to(self._folder)
            found.extend((below / file).as_posix() for file in files if not file.startswith(_TEMPORARY))
        return sorted(found)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)


class _Told(io.FileIO):
    """
    A file whose disk may be full, or fail, in the middle of a block: then it is the store that is unavailable.

    So it is where a file became shorter while it was read: what is left may look whole, and is not.
    """

    def __init__(self, file: Path, mode: str) -> None:
        super().__init__(file, mode)
        self._size_bytes = os.fstat(self.fileno()).st_size

    def write(self, piece: Any, /) -> int:
        try:
            return super().write(piece)
        except OSError as error:
            raise StorageUnavailable(str(self.name), cause=error.strerror or type(error).__name__) from error

    def readinto(self, buffer: Any, /) -> int:
        try:
            count = super().readinto(buffer)
        except OSError as error:
            raise StorageUnavailable(str(self.name), cause=error.strerror or type(error).__name__) from error
        if not count and len(buffer) and self.tell() < self._size_bytes:
            raise StorageUnavailable(str(self.name), cause="it became shorter while it was read")
        return count


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
