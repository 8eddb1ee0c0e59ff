"""
Imports Airflow once, and forks its parts from there: the fastest way to have one on a laptop.

`import airflow` takes about 4 CPU seconds, and five commands would each pay it. Here the api-server loads its
code on one core while the metadata database is migrated on the other; then come scheduler, dag-processor and
triggerer. `airflow standalone` is not used: it leaves its children behind when it is told to stop.

Runs as `python -m nightbatch.demo.services.airflow_supervisor FOLDER` with the environment that
`airflow_environment` gives. It tells its parts' process ids in FOLDER/components.json, and starts a part
again when asked by a file FOLDER/requests/NAME.
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from nightbatch.demo.services.privileges import adopt_orphans
from nightbatch.demo.services.waiting import monotonic_s, pause

COMPONENTS: dict[str, list[str]] = {
    "api-server": ["api-server"],
    # Logs are read from the disk, so nobody must serve them (and take fixed ports for it).
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
MIGRATE = ["db", "migrate"]
API_SERVER_CODE = ["airflow.api_fastapi.main"]
"""Importing it builds the whole app, which reads no database: most of the api-server's start."""
COMMON_CODE = ["airflow.__main__", "airflow.settings", "airflow.models", "airflow.jobs.job", "airflow.plugins_manager"]
PRELOAD = "NIGHTBATCH_DEMO_PRELOAD"
"""Names a variable: modules, joined by commas, that tasks would each import anew. The scheduler hands them on."""
LOOK_EVERY_S = 0.1
CLEAN_END_S = 2.5


class Supervisor:
    """The parts of one Airflow, as children of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / "requests"
        self.requests.mkdir(parents=True, exist_ok=True)
        self.pids: dict[str, int] = {}
        self.exit_codes: dict[str, int] = {}
        self.stopping = threading.Event()

    def run(self) -> int:
        """Start everything, restart what is asked for, and end everything when told to."""
        for request in (signal.SIGTERM, signal.SIGINT):
            signal.signal(request, lambda *_: self.stopping.set())
        adopt_orphans()
        for stale in self.requests.iterdir():
            stale.unlink()
        _load(COMMON_CODE)
        migrated, tell_migrated = os.pipe()
        self._fork("api-server", before=lambda: _load_and_wait(migrated, other_end=tell_migrated))
        self._fork("db-migrate", MIGRATE)
        _load([name for name in os.environ.get(PRELOAD, "").split(",") if name])  # while the other core migrates
        if self._wait_for("db-migrate") != 0:
            self._end_all()
            return 1
        os.close(tell_migrated)  # the api-server reads end of file, and goes on
        os.close(migrated)
        for name in COMPONENTS:
            if name not in self.pids:
                self._fork(name)
        while not self.stopping.wait(LOOK_EVERY_S):
            self._reap()
            self._obey()
        self._end_all()
        return 0

    def _fork(
        self, name: str, arguments: list[str] | None = None, *, before: Callable[[], None] = lambda: None
    ) -> None:
        log = self.folder / f"{name}.log"
        pid = os.fork()
        if pid == 0:
            _run_airflow(arguments or COMPONENTS[name], log=log, before=before)
        self.pids[name] = pid
        self.exit_codes.pop(name, None)
        self._tell()

    def _reap(self) -> None:
        """Collect what has ended: our parts, and orphans of parts that were killed."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name in [name for name, known in self.pids.items() if known == pid]:
                self.exit_codes[name] = os.waitstatus_to_exitcode(status)
                self._tell()

    def _wait_for(self, name: str) -> int | None:
        while name not in self.exit_codes and not self.stopping.wait(LOOK_EVERY_S):
            self._reap()
        return self.exit_codes.get(name)

    def _obey(self) -> None:
        for request in self.requests.iterdir():
            request.unlink()
            if request.name in COMPONENTS and request.name in self.exit_codes:
                _kill_session(self.pids[request.name])
                self._fork(request.name)

    def _tell(self) -> None:
        state = {name: {"pid": pid, "exit_code": self.exit_codes.get(name)} for name, pid in self.pids.items()}
        part = self.folder / "components.part"
        part.write_text(json.dumps(state))
        part.replace(self.folder / "components.json")

    def _end_all(self) -> None:
        """Ask the parts to end, and leave those that will not to the guard, which kills every descendant."""
        for name, pid in self.pids.items():
            if name not in self.exit_codes:
                os.kill(pid, signal.SIGTERM)
        deadline = monotonic_s() + CLEAN_END_S
        while len(self.exit_codes) < len(self.pids) and monotonic_s() < deadline:
            self._reap()
            pause(0.05)


def _load(modules: list[str]) -> None:
    """Import modules; without collecting garbage, of which imports make none."""
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # what is loaded stays: collecting would copy the pages that forks share
    gc.enable()


def _load_and_wait(migrated: int, *, other_end: int) -> None:
    os.close(other_end)  # or our own copy would keep the end of file from us
    _load(API_SERVER_CODE)
    os.read(migrated, 1)
    os.close(migrated)


def _run_airflow(arguments: list[str], *, log: Path, before: Callable[[], None]) -> None:
    """Become `airflow ARGUMENTS` in a forked child; never returns."""
    os.setsid()
    for default in (signal.SIGTERM, signal.SIGINT):
        signal.signal(default, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        _open_own_connections()
        before()
        code = _main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _open_own_connections() -> None:
    """Forget the parent's database connections: two processes on one would serve neither."""
    from airflow import settings

    settings.dispose_orm(do_log=False)
    settings.configure_orm()  # type: ignore[no-untyped-call]  # Airflow does not type it


def _main(arguments: list[str]) -> int:
    from airflow.__main__ import main

    sys.argv = ["airflow", *arguments]
    main()  # type: ignore[no-untyped-call]  # Airflow does not type it
    return 0


def _kill_session(leader: int) -> None:
    """Kill what a killed part left behind, known by the session that the part had made."""
    for process in psutil.Process().children(recursive=True):
        try:
            if os.getsid(process.pid) == leader:
                process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


if __name__ == "__main__":
    sys.exit(Supervisor(Path(sys.argv[1])).run())
