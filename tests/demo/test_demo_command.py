"""What `make demo` says where it cannot do what was typed: a line or two, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nightbatch.demo import __main__ as demo
from nightbatch.demo.services.ports import PortTaken
from nightbatch.demo.services.process import ServiceFailed
from nightbatch.demo.services.redis import RedisMissing
from nightbatch.demo.services.stack import Stack
from nightbatch.demo.services.waiting import WaitedTooLong


def _typed(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nightbatch.demo", "--folder", str(folder), *words]
    return subprocess.run(argv, cwd=folder.parent, capture_output=True, text=True, check=False, timeout=60)


def test_a_demo_beside_another_one_says_whose_folder_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with Stack(folder):
        done = _typed("--exit", folder=folder)
    assert done.returncode == 1
    assert f"✗ The demo cannot go on: the data folder {folder} is in use by another process. End" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "error",
    [
        PortTaken("port 20000"),
        RedisMissing(),
        ServiceFailed("airflow", what="ended", log=Path("[red]log"), tail="[/] no space left"),
        WaitedTooLong("Airflow to know the Dag", 60),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_service_that_does_not_come_up_is_told_with_the_folder_of_its_logs(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(demo, "install", fails)
    monkeypatch.setattr(sys, "argv", ["demo", "--folder", str(tmp_path / "demo"), "--exit"])
    monkeypatch.setattr(demo.os, "getppid", demo.os.getpid)  # nobody's end is ours
    monkeypatch.setattr(demo, "_read_dotenv", lambda _: None)
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)
    assert demo.main() == 1
    said = capsys.readouterr().out
    assert f"✗ The demo cannot go on: {error}" in said
    assert "logs are below" in said


@pytest.mark.parametrize("number", ["0", "-1", "ten", "1.5", "²"])
def test_a_limit_that_is_no_number_of_records_is_refused_and_not_taken_for_none(number: str, tmp_path: Path) -> None:
    done = _typed("--limit", number, "--exit", folder=tmp_path / "demo")
    assert done.returncode == 2
    assert "write 1 or more, or leave it out for all" in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("number", ["-1", "two"])
def test_workers_that_cannot_be_counted_are_refused(number: str, tmp_path: Path) -> None:
    done = _typed("--workers", number, "--exit", folder=tmp_path / "demo")
    assert done.returncode == 2
    assert f"{number!r} is no number of workers" in done.stderr


def test_vendors_of_another_name_are_refused_also_where_the_shell_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for the stand-in, `VENDORS=Real` would look as if it had been paid for."""
    monkeypatch.setenv("VENDORS", "Real")
    done = _typed("--exit", folder=tmp_path / "demo")
    assert done.returncode == 2
    assert "'Real' is neither 'emulator' nor 'real'" in done.stderr
