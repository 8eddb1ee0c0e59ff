"""Any HTTP server that is started by a command line, such as the emulator."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from nightbatch.demo.services.ports import LOOPBACK, PortTaken, start_on_free_ports
from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess
from nightbatch.demo.services.waiting import wait_until

START_S = 60.0


class HttpCommand:
    """A running server; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, *, port: int) -> None:
        self.process, self.port = process, port
        self.address = f"http://{LOOPBACK}:{port}"

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        name: str,
        argv: Callable[[int], list[str]],
        ready_path: str = "/",
        env: Mapping[str, str] | None = None,
    ) -> "HttpCommand":
        """
        Run the command line that `argv` gives for a free port, and wait until the server answers.

        Any answer to GET `ready_path` will do, a refusal too: it is the server's own.

        Raises:
            ServiceFailed: When the command ends instead.
        """

        def start(ports: list[int]) -> "HttpCommand":
            command = Command(name=name, argv=argv(ports[0]), env=dict(os.environ if env is None else env))
            server = cls(ServiceProcess.start(command, folder / "run"), port=ports[0])
            try:
                wait_until(lambda: server.answers(ready_path), what=f"{name} to answer", timeout_s=START_S)
            except (ServiceFailed, TimeoutError) as error:
                server.stop()
                if "address already in use" in server.process.log_tail(lines=200).lower():
                    raise PortTaken(f"port {ports[0]}") from error
                raise
            return server

        return start_on_free_ports(1, start)

    def answers(self, path: str = "/") -> bool:
        """Tell whether the server gives any answer to GET `path`."""
        self.process.check()
        try:
            httpx.get(f"{self.address}{path}", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    def stop(self) -> None:
        """End the server."""
        self.process.stop()
