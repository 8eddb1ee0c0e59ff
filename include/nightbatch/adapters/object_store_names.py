"""Names and addresses of files: what a name may look like, and how a base URI is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

MAX_NAME_BYTES = 1024
"""Longest key, bytes of UTF-8. Source: Amazon S3 user guide, "Creating object key names", read 2026-11."""

_SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "file": "file",
    "memory": "memory",
}


@dataclass(frozen=True)
class Location:
    """A base URI, taken apart. `prefix` has no slash at either end; of a local one it is the absolute path."""

    scheme: str
    """s3, gs, az, file or memory."""
    bucket: str
    prefix: str
    account: str = ""
    """Azure: the storage account, where the URI names it."""

    @property
    def uri(self) -> str:
        """Write the address in one form, whatever spelling it was given in."""
        if self.scheme == "file":
            return f"file://{self.prefix}"
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def check_name(name: str) -> str:
    """
    Give a name back that is a safe relative path.

    Raises ValueError for an absolute name, one that leaves the base (`..`), has empty parts, a backslash or control
    characters, or is too long for a bucket.
    """
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") for part in parts):
        raise ValueError(f"{name!r} is no file name: it must be a relative path without empty, `.` or `..` parts")
    if "\\" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ValueError(f"{name!r} is no file name: it holds a backslash or a control character")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:40]!r}… is no file name: it is longer than {MAX_NAME_BYTES:,} bytes")
    return name


def parse_uri(uri: str) -> Location:
    """
    Take a URI or a local path apart.

    Raises ValueError for an unknown scheme, a missing bucket, or a URI that carries credentials.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return _local(uri)
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{scheme}:// is not supported; use s3://, gs://, az://, abfs://, file://, memory:// or a path"
        )
    if scheme == "file":
        if not rest.startswith("/"):
            raise ValueError(f"{uri} names a host; a local file is written file:///path")
        return _local(unquote(rest))
    bucket, _, prefix = rest.partition("/")
    account = ""
    if scheme in ("abfs", "abfss") and "@" in bucket:
        bucket, _, host = bucket.partition("@")
        account = host.partition(".")[0]
    if not bucket or "@" in bucket or ":" in bucket:
        raise ValueError(f"a {scheme}:// address starts with a bucket's name, and never carries credentials")
    return Location(_SCHEMES[scheme], bucket, prefix.strip("/"), account)


def _local(path: str) -> Location:
    if not path:
        raise ValueError("an empty path names no folder")
    absolute = Path(path).expanduser().absolute()
    return Location("file", "", absolute.as_posix())
