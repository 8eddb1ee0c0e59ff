"""Finds free TCP ports on loopback, and starts servers on them."""

import random
import socket
from collections.abc import Callable
from typing import TypeVar

Server = TypeVar("Server")

LOOPBACK = "127.0.0.1"

# Below the ports that Linux (from 32768) and macOS (from 49152) hand to outgoing connections: a port
# found free here can be lost to another server, but not to any client that happens to connect.
LOWEST, HIGHEST = 20_000, 32_000

_given: set[int] = set()


class PortTaken(RuntimeError):
    """Another process took the port between the moment it was found free and the server's start."""


def free_port() -> int:
    """Find a port nobody listens on; never the same twice in one process."""
    # Seeded by the system, so that two processes that start together try different ports.
    dice = random.SystemRandom()
    for _ in range(1_000):
        port = dice.randrange(LOWEST, HIGHEST)
        if port not in _given and _can_bind(port):
            _given.add(port)
            return port
    raise PortTaken(f"no free port between {LOWEST} and {HIGHEST} on {LOOPBACK} in 1,000 tries")


def start_on_free_ports(count: int, start: Callable[[list[int]], Server], *, attempts: int = 5) -> Server:
    """
    Call `start` with `count` free ports, and with others when it says they were taken meanwhile.

    Raises:
        PortTaken: When `start` raised it at every attempt.
    """
    for _ in range(attempts - 1):
        try:
            return start([free_port() for _ in range(count)])
        except PortTaken:
            continue
    return start([free_port() for _ in range(count)])


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
