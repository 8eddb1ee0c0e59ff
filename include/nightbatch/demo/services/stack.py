"""
The services of one demo or test session, in one data folder, with one owner.

Whatever way the owner ends, nothing is left running: `stop()` ends everything in order; after a crash or a
`kill -9` each service's guard ends it within 8 s. The next stack on the folder ends what the guards did not.

Runs on Linux; on macOS (untested) a process that lost its parent *and* left its session could escape.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import psutil

from nightbatch.demo.services.airflow import AirflowServer, AirflowSettings
from nightbatch.demo.services.celery import CeleryWorker
from nightbatch.demo.services.family import runs
from nightbatch.demo.services.http_command import HttpCommand
from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.postgres import PostgresServer
from nightbatch.demo.services.process import ServiceProcess, end_leftover
from nightbatch.demo.services.redis import RedisServer
from nightbatch.demo.services.s3 import S3Server
from nightbatch.demo.services.slack import SlackSink
from nightbatch.demo.services.waiting import pause

METADATA_DATABASE = "airflow"
LOOK_AT_ANCESTORS_EVERY_S = 0.3
ANCESTOR_GONE = 75
"""Exit code of an owner whose `end_with` process is gone."""


class Service(Protocol):
    """What a stack knows of each of its services."""

    def stop(self) -> None:
        """End the service; its data stay."""


Started = TypeVar("Started", bound=Service)
Progress = Callable[[str], None]


class FolderInUse(RuntimeError):
    """Another living process owns a stack in the same data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"the data folder {folder} is in use by another process. End that one, or use another folder.")


class Stack:
    """
    Services that start one by one and stop together; use it in a `with` block.

    Args:
        folder: Where all data go, a subfolder a service.
        on_progress: Gets a line about every long step.
        end_with: Process ids (of `make`, say) whose end is ours too: this process then exits at once, without
            any clean-up of its own, and the guards end the services.
    """

    def __init__(
        self, folder: Path, *, on_progress: Progress = lambda text: None, end_with: Sequence[int] = ()
    ) -> None:
        self.folder = folder.resolve()
        self._progress = on_progress
        self._services: dict[str, Service] = {}
        self._lock = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own_folder()
        for pid_file in self.folder.glob("*/run/process.json"):
            end_leftover(pid_file)
        if end_with:
            _end_with([psutil.Process(pid) for pid in end_with])

    def __enter__(self) -> "Stack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start_stores_and_sinks(self) -> tuple[PostgresServer, S3Server, MailSink, SlackSink]:
        """Start the four services that need no other, side by side; about 4 s."""
        with ThreadPoolExecutor() as pool:
            postgres, s3 = pool.submit(self.start_postgres), pool.submit(self.start_s3)
            mail, slack = pool.submit(self.start_mail), pool.submit(self.start_slack)
        return postgres.result(), s3.result(), mail.result(), slack.result()

    def start_postgres(self) -> PostgresServer:
        """Start the PostgreSQL server."""
        return self._start("postgres", lambda folder, tell: PostgresServer.start(folder, on_progress=tell))

    def start_s3(self) -> S3Server:
        """Start the S3 server."""
        return self._start("s3", lambda folder, tell: S3Server.start(folder, on_progress=tell))

    def start_mail(self) -> MailSink:
        """Start the mail sink."""
        return self._start("mail", lambda folder, tell: MailSink.start(folder))

    def start_slack(self) -> SlackSink:
        """Start the Slack sink."""
        return self._start("slack", lambda folder, tell: SlackSink.start(folder))

    def start_redis(self) -> RedisServer:
        """Start the Redis server. Raises RedisMissing where none is installed."""
        return self._start("redis", lambda folder, tell: RedisServer.start(folder))

    def start_workers(self, airflow: AirflowServer, count: int, *, slots: int = 4) -> list[CeleryWorker]:
        """Start Celery workers `worker-0`, `worker-1`, … and wait until all take tasks; about 10 s."""

        def start(folder: Path, tell: Progress) -> CeleryWorker:
            return CeleryWorker.start(folder, environment=airflow.environment, slots=slots)

        workers = [self._start(f"worker-{number}", start) for number in range(count)]
        for worker in workers:
            worker.wait_until_ready()
        return workers

    def start_http_command(
        self,
        name: str,
        argv: Callable[[int], list[str]],
        *,
        ready_path: str = "/",
        env: Mapping[str, str] | None = None,
    ) -> HttpCommand:
        """Start a server by the command line that `argv` gives for a port."""
        return self._start(
            name,
            lambda folder, tell: HttpCommand.start(folder, name=name, argv=argv, ready_path=ready_path, env=env),
        )

    def start_airflow(
        self,
        postgres: PostgresServer,
        *,
        dags_folder: Path,
        plugins_folder: Path | None = None,
        connections: Mapping[str, str] | None = None,
        settings: Callable[[AirflowSettings], AirflowSettings] = lambda settings: settings,
    ) -> AirflowServer:
        """
        Start Airflow with its metadata in `postgres`, and wait until it is healthy.

        `settings` may change what we chose; `dataclasses.replace` is made for it.
        """
        chosen = AirflowSettings(
            folder=self.folder / "airflow",
            database_url=postgres.create_database(METADATA_DATABASE),
            dags_folder=dags_folder.resolve(),
            plugins_folder=plugins_folder and plugins_folder.resolve(),
            connections=dict(connections or {}),
        )

        def start(folder: Path, tell: Progress) -> AirflowServer:
            return AirflowServer.start(replace(settings(chosen), folder=folder))

        airflow = self._start("airflow", start)
        airflow.wait_until_healthy(on_progress=lambda text: self._progress(f"airflow: {text}"))
        return airflow

    def pids(self) -> list[int]:
        """List every process that the stack has started, descendants too, the owner not."""
        return [child.pid for child in psutil.Process().children(recursive=True) if self._is_ours(child)]

    def stop(self) -> None:
        """End all services, the last first; each is tried, and the first failure raised at the end."""
        failures: list[Exception] = []
        while self._services:
            name, service = self._services.popitem()
            self._progress(f"{name}: stopping")
            try:
                service.stop()
            except Exception as error:  # noqa: BLE001 - the others must still be stopped
                failures.append(error)
        self._record()
        self._owned.close()
        if failures:
            raise failures[0]

    def _start(self, name: str, start: Callable[[Path, Progress], Started]) -> Started:
        self._progress(f"{name}: starting")
        service = start(self.folder / name, lambda text: self._progress(f"{name}: {text}"))
        with self._lock:  # services may start side by side
            self._services[name] = service
            self._record()
        return service

    def _own_folder(self) -> None:
        # The system drops the lock with the process, however that ends: no stale lock is possible.
        self._owned = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self._owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._owned.close()
            raise FolderInUse(self.folder) from error

    def _record(self) -> None:
        """Write down which processes run, for people; each service's own file is what we go by."""
        services = {name: _process(service) for name, service in self._services.items()}
        pids = {name: process.pids for name, process in services.items() if process is not None}
        (self.folder / "stack.json").write_text(json.dumps({"owner": os.getpid(), "services": pids}, indent=2))

    def _is_ours(self, process: psutil.Process) -> bool:
        guards = {found.pids[0] for service in self._services.values() if (found := _process(service))}
        try:
            return process.pid in guards or any(parent.pid in guards for parent in process.parents())
        except psutil.NoSuchProcess:
            return False


def _process(service: Service) -> ServiceProcess | None:
    """Give the process of a service, None for one that runs in our own threads."""
    process = getattr(service, "process", None)
    return process if isinstance(process, ServiceProcess) else None


def _end_with(others: list[psutil.Process]) -> None:
    """End this process as soon as one of the others is gone, from a thread of its own."""

    def watch() -> None:
        while all(map(runs, others)):
            pause(LOOK_AT_ANCESTORS_EVERY_S)
        os._exit(ANCESTOR_GONE)

    threading.Thread(target=watch, name="end with", daemon=True).start()
