"""Chance that is the same every time: everything random here is a hash of the seed and of what it is about."""

from __future__ import annotations

from hashlib import blake2b

_TOP = 1 << 64


def digest(*parts: object, size: int = 8) -> bytes:
    """Hash some parts, in order, to `size` bytes."""
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=size).digest()


def roll(seed: int, about: str, key: bytes) -> float:
    """Return a number from 0 up to 1 that is always the same for the same arguments."""
    hashed = blake2b(key, digest_size=8, salt=seed.to_bytes(16, "big", signed=True), person=about.encode()[:16])
    return int.from_bytes(hashed.digest(), "big") / _TOP


class Ids:
    """Hands out ids that look like the vendors' own and never repeat within one instance."""

    def __init__(self, seed: int, instance: str) -> None:
        self._seed, self._instance, self._count = seed, instance, 0

    def next(self, prefix: str, length: int = 24) -> str:
        """Return a new id. Not for use by two threads at once."""
        self._count += 1
        return prefix + digest(self._seed, self._instance, prefix, self._count, size=32).hex()[:length]
