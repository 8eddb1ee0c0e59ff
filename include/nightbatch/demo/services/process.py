"""Starts a service's command under a guard, and stops it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from nightbatch.demo.services.family import descendants, kill, runs
from nightbatch.demo.services.waiting import WaitedTooLong, wait_until

GUARD_START_S = 20.0
KILL_MARGIN_S = 5.0


class ServiceFailed(RuntimeError):
    """A service did not start, or ended by itself."""

    def __init__(self, name: str, *, what: str, log: Path, tail: str) -> None:
        self.name, self.what, self.log = name, what, log
        super().__init__(f"{name} {what}. Its log is {log}; the end of it:\n{tail}")


@dataclass(frozen=True)
class Command:
    """What to run, and how it wants to be stopped."""

    name: str
    argv: list[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 4.0
    """Seconds between the stop signal and SIGKILL."""
    account: str | None = None
    """Run as this account; only for root."""
    reach: list[Path] = field(default_factory=list)
    """Paths the account must be able to reach."""
    leaves_behind: list[Path] = field(default_factory=list)
    """Files outside its folder that it forgets to remove."""
    cwd: Path | None = None
    """Its working folder; ours where it is not said."""


class ServiceProcess:
    """A running command, its guard, its log and its pid file, all in one folder."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.log = folder / "service.log"
        self._pid_file = folder / "process.json"
        self._guard: subprocess.Popen[bytes] | None = None
        self._pids: dict[str, Any] = {}

    @classmethod
    def start(cls, command: Command, folder: Path) -> "ServiceProcess":
        """
        Start `command` in the folder, first ending what an earlier owner may have left there.

        Returns as soon as the command runs; whether it serves is for the caller to ask.
        """
        folder.mkdir(parents=True, exist_ok=True)
        process = cls(command, folder)
        end_leftover(process._pid_file)
        process.log.unlink(missing_ok=True)
        process._guard = subprocess.Popen(  # noqa: S603 - our own command line
            process._guard_argv(),
            env=dict(command.env),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=process.log.open("ab"),
            start_new_session=True,
        )
        wait_until(
            lambda: process._pid_file.exists() or not process.is_running,
            what=f"the guard of {command.name} to start",
            timeout_s=GUARD_START_S,
            every_s=0.02,
        )
        process._pids = read_pids(process._pid_file)
        return process

    @property
    def pid(self) -> int:
        """The command's process id."""
        return int(self._pids["child"]["pid"])

    @property
    def pids(self) -> list[int]:
        """The guard's and the command's process ids, for the stack's record."""
        return [int(entry["pid"]) for entry in self._pids.values()]

    @property
    def is_running(self) -> bool:
        """Whether the command (and so its guard) runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The command's exit code, None while it runs."""
        return None if self._guard is None else self._guard.poll()

    def check(self) -> None:
        """Raise ServiceFailed if the command has ended."""
        if not self.is_running:
            what = f"ended with exit code {self.exit_code}"
            raise ServiceFailed(self.command.name, what=what, log=self.log, tail=self.log_tail())

    def stop(self) -> None:
        """End the command cleanly, or by force after its grace; returns when nothing of it is left."""
        if self._guard is None:
            return
        if self._guard.poll() is None:
            self._guard.terminate()
        try:
            self._guard.wait(self.command.grace_s + KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            end_leftover(self._pid_file)
            self._guard.wait(KILL_MARGIN_S)

    def log_tail(self, lines: int = 15) -> str:
        """Read the last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _guard_argv(self) -> list[str]:
        command = self.command
        argv = [sys.executable, "-m", "nightbatch.demo.services.guard"]
        argv += ["--owner", str(os.getpid()), "--log", str(self.log), "--pid-file", str(self._pid_file)]
        argv += ["--stop-signal", command.stop_signal.name, "--grace-s", str(command.grace_s)]
        argv += ["--account", command.account] if command.account else []
        for path in command.reach:
            argv += ["--reach", str(path)]
        for path in command.leaves_behind:
            argv += ["--remove", str(path)]
        return [*argv, "--", *command.argv]


def read_pids(pid_file: Path) -> dict[str, Any]:
    """Read a guard's pid file; empty when it has ended."""
    try:
        pids: dict[str, Any] = json.loads(pid_file.read_text())
    except FileNotFoundError:
        return {}
    return pids


def end_leftover(pid_file: Path) -> None:
    """
    End what a pid file of an earlier owner names, if it still runs, and remove the file.

    A guard needs a few seconds after its owner's death, so it is given them before it is killed. A process
    that only has the same number by chance started at another time, and is left alone.
    """
    processes = [found for entry in read_pids(pid_file).values() if (found := _same_process(entry))]
    family = [child for process in processes for child in descendants(process)]
    try:
        wait_until(
            lambda: not any(runs(process) for process in processes),
            what="an earlier guard to end",
            timeout_s=KILL_MARGIN_S,
        )
    except WaitedTooLong:
        for process in [*processes, *family]:
            kill(process)
    psutil.wait_procs([*processes, *family], timeout=KILL_MARGIN_S)
    pid_file.unlink(missing_ok=True)


def _same_process(entry: Mapping[str, Any]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(entry["pid"]))
        same = abs(process.create_time() - float(entry["created_s"])) < 1
    except psutil.NoSuchProcess:
        return None
    return process if same else None
