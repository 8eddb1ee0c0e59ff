"""A Redis server (of the system's packages) with a password, on loopback: what Celery's workers take tasks from."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from nightbatch.demo.services.ports import LOOPBACK, PortTaken, start_on_free_ports
from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess
from nightbatch.demo.services.waiting import WaitedTooLong, wait_until

START_S = 20.0


class RedisMissing(RuntimeError):
    """This machine has no Redis server."""

    def __init__(self) -> None:
        super().__init__(
            "redis-server is not on PATH. Install it, by `apt-get install redis-server` say, and try again."
        )


class RedisServer:
    """A running Redis server that keeps nothing on the disk; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, *, port: int, password: str) -> None:
        self.process, self.port = process, port
        self.url = f"redis://:{password}@{LOOPBACK}:{port}/0"

    @classmethod
    def start(cls, folder: Path) -> RedisServer:
        """
        Start a server; takes less than a second.

        Raises:
            RedisMissing: When no Redis is installed.
            ServiceFailed: When the server ends instead of coming up.
        """
        binary = shutil.which("redis-server")
        if binary is None:
            raise RedisMissing
        folder.mkdir(parents=True, exist_ok=True)
        return start_on_free_ports(1, lambda ports: cls._start(binary, folder, ports[0]))

    @classmethod
    def _start(cls, binary: str, folder: Path, port: int) -> RedisServer:
        password = secrets.token_hex(16)
        settings = folder / "redis.conf"
        settings.unlink(missing_ok=True)
        # In a file, since whoever lists processes sees their arguments.
        with os.fdopen(os.open(settings, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f'bind {LOOPBACK}\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {folder}\n')
        process = ServiceProcess.start(Command(name="redis", argv=[binary, str(settings)]), folder / "run")
        server = cls(process, port=port, password=password)
        try:
            wait_until(server.answers, what="Redis to answer", timeout_s=START_S, every_s=0.05)
        except (ServiceFailed, WaitedTooLong) as error:
            server.stop()
            if "address already in use" in process.log_tail().lower():
                raise PortTaken(f"port {port}") from error
            raise
        return server

    def answers(self) -> bool:
        """Tell whether the server knows our password, which no other server on this port would."""
        from redis import Redis, RedisError

        self.process.check()
        try:
            with Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def stop(self) -> None:
        """End the server."""
        self.process.stop()
