"""`make demo`: a real Airflow runs two real nightly jobs, on this machine alone."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from nightbatch.demo import report, watch
from nightbatch.demo.installation import Installation, install
from nightbatch.demo.reviews import WINDOW
from nightbatch.demo.services.ports import PortTaken
from nightbatch.demo.services.process import ServiceFailed
from nightbatch.demo.services.redis import RedisMissing
from nightbatch.demo.services.stack import FolderInUse, Stack
from nightbatch.demo.services.waiting import WaitedTooLong
from nightbatch.ports import Ledger, Run

JOBS = ["review_sentiment", "review_topics"]
DEADLINE_S = 45
"""The OpenAI job's deadline in the demo, from its start: its late batch takes longer."""
GIVE_UP_S = 240


def main() -> int:
    """Run the demo; 0 if all that it promises happened."""
    _read_dotenv(Path(".env"))
    options = _options()
    for end in (signal.SIGINT, signal.SIGTERM):  # a shell that starts us in the background has SIGINT ignored
        signal.signal(end, _interrupt)
    console, began = Console(), time.monotonic()
    try:
        with Stack(
            options.folder, on_progress=lambda text: _tell(console, began, text), end_with=[os.getppid()]
        ) as stack:
            installation = install(
                stack,
                is_real=options.vendors == "real",
                workers=options.workers,
                tell=lambda text: _tell(console, began, text),
            )
            airflow = installation.airflow
            login = f"user {airflow.login.user}, password {airflow.login.password}"
            _tell(console, began, f"Airflow can be opened: {airflow.address}   {login}")
            broken = _two_jobs(console, installation, options)
            _say_where(console, stack.folder, installation, time.monotonic() - began)
            if not options.exit:
                console.print("It keeps serving until Ctrl-C.")
                signal.pause()
            return _verdict(console, broken)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        return 0 if not options.exit else 130
    except (FolderInUse, PortTaken, RedisMissing, ServiceFailed, WaitedTooLong) as error:
        # Each says what happened and what to do; where it was raised is for whoever works on the demo.
        console.print(f"[red]✗[/] The demo cannot go on: {escape(str(error))}", soft_wrap=True, highlight=False)
        if not isinstance(error, FolderInUse):
            said = f"Nothing is left running; the services' logs are below {options.folder}."
            console.print(said, markup=False, highlight=False, soft_wrap=True)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".nightbatch/demo"), help="where all data go")
    parser.add_argument("--exit", action="store_true", help="stop when both jobs have ended")
    parser.add_argument("--json", type=Path, help="write the figures into this file too, for machines")
    # A type and no choices: those are not held against a default, which a shell says here.
    parser.add_argument("--vendors", type=_vendors, default=os.environ.get("VENDORS") or "emulator")
    parser.add_argument("--workers", type=_workers, default=0, help="Celery workers; 0 runs tasks beside the scheduler")
    parser.add_argument(
        "--limit", type=_records, default=None, help="records a job; for a first look with real vendors"
    )
    return parser.parse_args()


def _vendors(text: str) -> str:
    if text not in ("emulator", "real"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'emulator' nor 'real'")
    return text


def _records(text: str) -> int:
    """Read a number of records; 0 is refused, since who writes it does not want to pay for all."""
    if (number := _whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of records; write 1 or more, or leave it out for all")
    return number


def _workers(text: str) -> int:
    if (number := _whole(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; write 0 or more")
    return number


def _whole(text: str) -> int:
    """Read digits; -1 for whatever else."""
    return int(text) if text.isascii() and text.isdigit() else -1


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _read_dotenv(file: Path) -> None:
    """Read KEY=VALUE lines; what the environment says already wins."""
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            os.environ.setdefault(name.strip(), value.strip().strip("\"'"))


def _tell(console: Console, began: float, text: str) -> None:
    # Not folded: addresses and logins must stay whole to be copied.
    console.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  {text}", highlight=False, soft_wrap=True)


def _two_jobs(console: Console, installation: Installation, options: argparse.Namespace) -> list[str]:
    api = installation.airflow.api
    for job in JOBS:
        api.wait_for_dag(job)
        api.unpause(job)
    runs = {job: api.trigger(job, conf=_conf(job, options))["dag_run_id"] for job in JOBS}
    endings = _watch(console, installation, runs, give_up_s=None if options.vendors == "real" else GIVE_UP_S)
    found = report.show(console, installation, endings)
    broken = report.broken_promises(installation, endings)
    if options.json:
        options.json.write_text(json.dumps({"jobs": [asdict(each) for each in found], "broken": broken}, indent=2))
    return broken


def _conf(job: str, options: argparse.Namespace) -> dict[str, Any]:
    conf: dict[str, Any] = {"window_start": WINDOW.start.isoformat(), "window_end": WINDOW.end.isoformat()}
    if options.limit is not None:
        conf["limit"] = options.limit
    if job == "review_sentiment" and options.vendors != "real":
        conf["deadline"] = (datetime.now(UTC) + timedelta(seconds=DEADLINE_S)).isoformat()
    return conf


def _watch(
    console: Console, installation: Installation, runs: dict[str, str], *, give_up_s: float | None
) -> list[report.Ending]:
    api, ledger, began = installation.airflow.api, installation.ledger(), time.monotonic()
    ended: dict[str, float] = {}
    states: dict[str, str] = {}
    with watch.watching(console) as show:
        while len(ended) < len(runs):
            seconds = time.monotonic() - began
            for job, run_id in runs.items():
                states[job] = api.dag_run(job, run_id)["state"]
                if states[job] in ("success", "failed"):
                    ended.setdefault(job, seconds)
            show(watch.table(ledger, JOBS, states, seconds), watch.line(ledger, JOBS, states))
            if give_up_s is not None and seconds > give_up_s:
                console.print(f"[red]gave up after {seconds:,.0f} s[/]")
                break
            time.sleep(1)
    return [
        report.Ending(
            job=job,
            run=_latest(ledger, job),
            airflow_state=states[job],
            seconds=ended.get(job, time.monotonic() - began),
            url=f"{installation.airflow.address}/dags/{job}/runs/{run_id}",
        )
        for job, run_id in runs.items()
    ]


def _latest(ledger: Ledger, job: str) -> Run:
    """Give the run of the demo's window; unpausing a Dag also starts the one of last night, which has no records."""
    runs = ledger.runs(job=job, window=WINDOW)
    if not runs:
        raise SystemExit(f"{job} never began; look into the logs in the folder `airflow` of the demo's data")
    return runs[0]


def _say_where(console: Console, folder: Path, installation: Installation, seconds: float) -> None:
    login = installation.airflow.login
    mails, slacks = len(installation.mail.mails()), len(installation.slack.messages())
    for line in (
        f"Airflow   {installation.airflow.address}   user {login.user}, password {login.password}",
        f"Alerts    {mails} mails below {folder / 'mail'}, {slacks} Slack messages below {folder / 'slack'}",
        f"Warehouse {installation.warehouse_url}",
        f"Ledger    {installation.environment['NIGHTBATCH_LEDGER_URL']}",
        f"All of it took {seconds:,.0f} s.",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)  # addresses must stay whole to be copied


def _verdict(console: Console, broken: list[str]) -> int:
    for promise in broken:
        console.print(f"[red]✗[/] {promise}")
    if not broken:
        console.print("[green]✓[/] everything that the demo promises happened")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
