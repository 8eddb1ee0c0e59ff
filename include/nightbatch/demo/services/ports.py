"""Finds free TCP ports on loopback, and starts servers on them."""

import random
import socket
import sys
from collections.abc import Callable
from typing import TypeVar

Server = TypeVar("Server")

LOOPBACK = "127.0.0.1"

# Below the ports that Linux (from 32768) and macOS (from 49152) hand to outgoing connections: a port
# found free here can be lost to another server, but not to any client that happens to connect.
LOWEST, HIGHEST = 20_000, 32_000


class PortTaken(RuntimeError):
    """Another process took the port between the moment it was found free and the server's start."""


class ReservedPort:
    """
    A free port, kept from others until `release()`, while a server of ours may listen on it.

    On Linux a socket that is bound but does not listen shuts out whoever looks for a free port, and lets in
    a server that sets SO_REUSEADDR, as all do. On macOS it would shut out ours too, so nothing is held there.
    """

    def __init__(self, number: int | None = None) -> None:
        self._socket = _bind_somewhere() if number is None else _bind_again(number)
        self.number = int(self._socket.getsockname()[1])
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after bind: bind was exclusive
        if sys.platform != "linux":
            self.release()

    def release(self) -> None:
        """Let anybody have it, once our server listens, or does not want it any more."""
        self._socket.close()


def start_on_free_ports(count: int, start: Callable[[list[int]], Server], *, attempts: int = 5) -> Server:
    """
    Call `start` with `count` free ports, and with others when it says they were taken meanwhile.

    Raises:
        PortTaken: When `start` raised it at every attempt.
    """
    for attempt in range(1, attempts + 1):
        ports = [ReservedPort() for _ in range(count)]
        try:
            return start([port.number for port in ports])
        except PortTaken:
            if attempt == attempts:
                raise
        finally:
            for port in ports:
                port.release()
    raise ValueError("attempts must be at least 1")


def _bind_again(number: int) -> socket.socket:
    """Keep a port for a server of ours that has ended: its last connections must not keep us out."""
    kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((LOOPBACK, number))
    return kept


def _bind_somewhere() -> socket.socket:
    # Random, so that two processes that start together seldom want the same port.
    dice = random.SystemRandom()
    for _ in range(1_000):
        candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            candidate.bind((LOOPBACK, dice.randrange(LOWEST, HIGHEST)))
        except OSError:
            candidate.close()
        else:
            return candidate
    raise PortTaken(f"no free port between {LOWEST} and {HIGHEST} on {LOOPBACK} in 1,000 tries")
