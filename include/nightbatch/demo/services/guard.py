"""
Runs one command as its child, and ends it with all its descendants when the owner is gone.

Every service has a guard, started by the owner as `python guard.py --owner PID ... -- command`. The guard
looks several times a second whether its parent is still the owner: so a `kill -9` of the owner, a crash
and a closed terminal all end the same way. On Linux the guard adopts descendants whose parent died, so that
none can hide behind a session of its own (each PostgreSQL backend has one); elsewhere it knows those that
hang below it when the end comes.
"""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

import psutil

from nightbatch.demo.services import privileges
from nightbatch.demo.services.family import descendants, kill, runs
from nightbatch.demo.services.waiting import monotonic_s, pause

LOOK_EVERY_S = 0.2
KILL_WITHIN_S = 3.0


def main() -> int:
    """Run the command to its end, or to the owner's, and return its exit code."""
    options = _options()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, which then stops us in order
    asked_to_stop = threading.Event()
    for request in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(request, lambda *_: asked_to_stop.set())
    privileges.adopt_orphans()
    child = _start(options)
    _write_pids(options.pid_file, child)
    code: int | None = None
    while code is None and not asked_to_stop.wait(LOOK_EVERY_S) and os.getppid() == options.owner:
        code = _reap(child)
    family = descendants(psutil.Process())  # before they lose the parent they are known by
    if code is None:
        code = _stop(child, signal.Signals[options.stop_signal], grace_s=options.grace_s)
    _kill_descendants(family)
    for litter in options.remove:
        litter.unlink(missing_ok=True)
    options.pid_file.unlink(missing_ok=True)
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--owner", type=int, required=True, help="process id whose end ends everything")
    parser.add_argument("--log", type=Path, required=True, help="file that gets the command's output")
    parser.add_argument("--pid-file", type=Path, required=True, help="file for guard's and child's pid")
    parser.add_argument("--stop-signal", default="SIGTERM", help="the command's own signal for a clean end")
    parser.add_argument("--grace-s", type=float, default=4.0, help="seconds for a clean end before SIGKILL")
    parser.add_argument("--account", help="run the command as this account (only root can)")
    parser.add_argument("--reach", type=Path, action="append", default=[], help="a path the account needs")
    parser.add_argument("--remove", type=Path, action="append", default=[], help="a file to remove at the end")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _start(options: argparse.Namespace) -> int:
    own, child = os.getpid(), os.fork()
    if child:
        return child
    try:
        _become_command(options, guard=own)
    except BaseException as error:  # noqa: BLE001 - nothing may return into the guard's own code in the child
        os.write(2, f"{options.command[0]}: {error}\n".encode())
    os._exit(127)


def _become_command(options: argparse.Namespace, *, guard: int) -> None:
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setsid()
    for default in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(default, signal.SIG_DFL)
    if options.account:
        privileges.become(options.account, must_reach=options.reach)
    # Also when somebody kills the guard itself. After the change of user, which would undo it.
    privileges.die_with_parent(signal.Signals[options.stop_signal])
    if os.getppid() != guard:
        return  # killed before it was asked for, so that no signal comes
    os.execvp(options.command[0], options.command)  # noqa: S606 - the owner's own command line


def _write_pids(pid_file: Path, child: int) -> None:
    pids = [{"pid": pid, "created_s": psutil.Process(pid).create_time()} for pid in (os.getpid(), child)]
    part = pid_file.with_suffix(".part")
    part.write_text(json.dumps({"guard": pids[0], "child": pids[1]}))
    part.replace(pid_file)


def _reap(child: int) -> int | None:
    """Collect whatever has ended, adopted orphans too; return the child's exit code once it has."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1  # the child was reaped before, which cannot happen, and must not loop for ever
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF
        if pid == 0:
            return None


def _stop(child: int, stop_signal: signal.Signals, *, grace_s: float) -> int:
    os.kill(child, stop_signal)
    deadline = monotonic_s() + grace_s
    while (code := _reap(child)) is None and monotonic_s() < deadline:
        pause(0.05)
    return 128 + signal.SIGKILL if code is None else code


def _kill_descendants(known: list[psutil.Process]) -> None:
    """Kill until nothing is left, not even a zombie: a process may fork between our look and our signal."""
    deadline = monotonic_s() + KILL_WITHIN_S
    while monotonic_s() < deadline:
        left = {process for process in known if runs(process)} | set(descendants(psutil.Process()))
        if not left:
            return
        for process in left:
            kill(process)
        _reap(-1)
        pause(0.02)


if __name__ == "__main__":
    sys.exit(main())
