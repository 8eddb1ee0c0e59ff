"""A guard ends its service, and whatever that started, in every way an owner can go."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess, end_leftover, read_pids
from nightbatch.demo.services.waiting import wait_until

GONE_WITHIN_S = 10.0

# Stands for any service that is hard to end: it ignores SIGTERM, and so does a grandchild that has hidden
# itself in a session of its own and whose parent is dead.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1] + ".part", "w") as file:
            file.write(str(os.getpid()))
        os.rename(sys.argv[1] + ".part", sys.argv[1])
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""

OWNER = """
import sys, time
from pathlib import Path
from nightbatch.demo.services.process import Command, ServiceProcess
folder = Path(sys.argv[1])
argv = [sys.executable, "-c", sys.argv[2], str(folder / "hidden")]
process = ServiceProcess.start(Command("stubborn", argv, grace_s=1), folder)
print(*process.pids, flush=True)
time.sleep(600)
"""


SLOW_CHILD = """
import os, sys, time
from nightbatch.demo.services import guard, privileges
ask, own = privileges.die_with_parent, os.getpid()
def ask_late(with_signal):
    while os.getppid() == own:
        time.sleep(0.01)
    ask(with_signal)
privileges.die_with_parent = ask_late
sys.exit(guard.main())
"""
"""A guard whose child asks to die with it only when it is dead."""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a stubborn service in `tmp_path`."""
    argv = [sys.executable, "-c", OWNER, str(tmp_path), STUBBORN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def pids_of(owner: subprocess.Popen[str], folder: Path) -> list[int]:
    """The guard's, the service's and its hidden grandchild's process id."""
    assert owner.stdout is not None
    told = [int(pid) for pid in owner.stdout.readline().split()]
    wait_until((folder / "hidden").exists, what="the grandchild to hide", timeout_s=10)
    return [*told, int((folder / "hidden").read_text())]


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what=f"{pids} to end", timeout_s=GONE_WITHIN_S)


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_the_owner_is_gone(
    owner: subprocess.Popen[str], tmp_path: Path, with_signal: signal.Signals
) -> None:
    """Neither the service, which ignores SIGTERM, nor its grandchild in another session."""
    pids = pids_of(owner, tmp_path)

    owner.send_signal(with_signal)

    wait_until_gone(pids)


def test_nothing_is_left_of_a_stopped_service(tmp_path: Path) -> None:
    command = Command("stubborn", [sys.executable, "-c", STUBBORN, str(tmp_path / "hidden")], grace_s=0.5)
    process = ServiceProcess.start(command, tmp_path / "run")
    wait_until((tmp_path / "hidden").exists, what="the grandchild to hide", timeout_s=10)

    pids = [*process.pids, int((tmp_path / "hidden").read_text())]

    process.stop()

    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_guard_takes_its_service_along(tmp_path: Path) -> None:
    command = Command("sleep", [sys.executable, "-c", "import time; time.sleep(600)"])
    process = ServiceProcess.start(command, tmp_path)

    os.kill(process.pids[0], signal.SIGKILL)
    process.stop()

    wait_until_gone(process.pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_guard_that_is_killed_at_once_leaves_no_service(tmp_path: Path) -> None:
    pid_file, marker = tmp_path / "pids", tmp_path / "ran"
    service = [sys.executable, "-c", f"import time; open({str(marker)!r}, 'w').close(); time.sleep(600)"]
    files = ["--log", str(tmp_path / "log"), "--pid-file", str(pid_file)]
    argv = [sys.executable, "-c", SLOW_CHILD, "--owner", str(os.getpid()), *files, "--", *service]
    with subprocess.Popen(argv) as guard:
        try:
            wait_until(pid_file.exists, what="the guard to start its child", timeout_s=10)
            pids = [told["pid"] for told in read_pids(pid_file).values()]
        finally:
            guard.kill()

    wait_until_gone(pids)

    assert not marker.exists()


def test_what_an_earlier_owner_left_is_ended_at_the_next_start(tmp_path: Path) -> None:
    """The guard and the owner were both killed, and the service would not go."""
    command = Command("stubborn", [sys.executable, "-c", STUBBORN, str(tmp_path / "hidden")], grace_s=0.5)
    first = ServiceProcess.start(command, tmp_path / "run")
    wait_until((tmp_path / "hidden").exists, what="the grandchild to hide", timeout_s=10)
    os.kill(first.pids[0], signal.SIGKILL)

    second = ServiceProcess.start(Command("other", [sys.executable, "-c", "print('hello')"]), tmp_path / "run")

    first.stop()
    wait_until_gone(first.pids)
    second.stop()
    with suppress(ProcessLookupError):  # only its dead guard knew of it, if that was quite dead already
        os.kill(int((tmp_path / "hidden").read_text()), signal.SIGKILL)


def test_a_process_that_only_has_an_old_number_is_left_alone(tmp_path: Path) -> None:
    pid_file = tmp_path / "process.json"
    pid_file.write_text(f'{{"guard": {{"pid": {os.getpid()}, "created_s": 12345.0}}}}')

    end_leftover(pid_file)

    assert not pid_file.exists()


def test_a_service_that_ends_by_itself_says_why(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print('no such table'); sys.exit(3)"]
    process = ServiceProcess.start(Command("short", argv), tmp_path)
    wait_until(lambda: not process.is_running, what="the end", timeout_s=10)

    with pytest.raises(ServiceFailed, match=r"(?s)short ended with exit code 3.*no such table"):
        process.check()


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    process = ServiceProcess.start(Command("absent", ["/no/such/program"]), tmp_path)
    wait_until(lambda: not process.is_running, what="the end", timeout_s=10)

    with pytest.raises(ServiceFailed, match="/no/such/program"):
        process.check()
