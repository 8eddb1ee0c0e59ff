"""Runs the emulator: in the foreground, or beside a test."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from nightbatch.emulator.app import create_app
from nightbatch.emulator.settings import EmulatorSettings
from nightbatch.emulator.world import World

BACKLOG = 2048
SHUTDOWN_S = 1
PARENT_CHECK_S = 1.0


class _Server(uvicorn.Server):
    """Tells when it accepts requests, and can watch the process that started it."""

    def __init__(self, config: uvicorn.Config, parent_pid: int | None = None) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._parent_pid = parent_pid

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=sockets)
        if self._parent_pid is not None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._parent_pid))
        self.ready.set()

    async def _watch(self, parent_pid: int) -> None:
        """Stop soon after the parent has died."""
        while os.getppid() == parent_pid:
            await asyncio.sleep(PARENT_CHECK_S)
        self.should_exit = True


def bind(settings: EmulatorSettings) -> socket.socket:
    """Take the address that the settings name. Raises ValueError where it is taken or not this machine's."""
    taken = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((settings.host, settings.port))
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        why = (error.strerror or str(error)).lower()
        raise ValueError(f"{settings.host}:{settings.port} cannot be used: {why}; choose another --port") from None
    return taken


def url_of(taken: socket.socket) -> str:
    """Return the base URL, without a slash at its end, of a bound socket."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(settings: EmulatorSettings, *, parent_pid: int | None = None) -> tuple[_Server, World]:
    app = create_app(settings)
    config = uvicorn.Config(
        app, loop="asyncio", log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S, ws="none"
    )
    return _Server(config, parent_pid), app.state.world


def serve(settings: EmulatorSettings, *, exit_with_parent: bool = False) -> None:
    """Run until a signal comes.

    Args:
        exit_with_parent: Also stop when the process that started this one is gone.
    """
    taken = bind(settings)
    server, world = _server(settings, parent_pid=os.getppid() if exit_with_parent else None)
    url = url_of(taken)
    print(f"emulator: {url} (OpenAI: {url}/v1, Anthropic: {url}), data in {world.store.folder}", flush=True)  # noqa: T201 - the answer
    with suppress(KeyboardInterrupt):
        server.run(sockets=[taken])


@contextmanager
def running(settings: EmulatorSettings | None = None) -> Iterator[str]:
    """Run an emulator in a thread, on a free port of the loopback, and yield its base URL.

    OpenAI clients take the URL with `/v1` added, Anthropic clients take it as it is.
    """
    settings = settings or EmulatorSettings()
    taken = bind(settings)
    server, _ = _server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, name="emulator", daemon=True)
    thread.start()
    while not server.ready.wait(0.1):
        if not thread.is_alive():
            raise RuntimeError("the emulator did not start; its log says why")
    try:
        yield url_of(taken)
    finally:
        server.should_exit = True
        thread.join()
        taken.close()
