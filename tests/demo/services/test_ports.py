"""Ports are found without races between those who look for one."""

import socket
import sys

import pytest

from nightbatch.demo.services.ports import LOOPBACK, PortTaken, ReservedPort, start_on_free_ports


def listen(port: int, *, shared: bool) -> socket.socket:
    server = socket.socket()
    if shared:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


@pytest.mark.skipif(sys.platform != "linux", reason="ports can be reserved on Linux only")
def test_a_reserved_port_is_free_for_our_server_and_for_nobody_who_looks_for_one() -> None:
    port = ReservedPort()

    with pytest.raises(OSError, match="in use"):
        listen(port.number, shared=False)
    with listen(port.number, shared=True):
        port.release()


def test_a_released_port_can_be_used_by_anybody() -> None:
    port = ReservedPort()
    port.release()

    with listen(port.number, shared=False):
        pass


def test_a_taken_port_is_answered_with_another_one() -> None:
    tried: list[int] = []

    def start(ports: list[int]) -> str:
        tried.extend(ports)
        if len(tried) < 5:
            raise PortTaken("taken")
        return "started"

    assert start_on_free_ports(2, start) == "started"
    assert len(set(tried)) == 6


def test_giving_up_says_that_ports_were_taken() -> None:
    def start(ports: list[int]) -> str:
        raise PortTaken(f"{ports}")

    with pytest.raises(PortTaken):
        start_on_free_ports(1, start, attempts=2)
