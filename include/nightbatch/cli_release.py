"""`nightbatch release`: a person lets the rows go that a canary held back."""

from __future__ import annotations

from nightbatch import cli_show as show
from nightbatch.cli_frame import Json, RunName, errors_told, ledger_of_environment, run_named


def release(run: RunName, as_json: Json = False) -> None:
    """Let the rows of a run go that its canary held back; they are sent when the window is run again."""
    with errors_told(as_json=as_json):
        from nightbatch.adapters.clock import SystemClock
        from nightbatch.steps.canary import let_go

        ledger = ledger_of_environment()
        found = run_named(ledger, run)
        gate = let_go(ledger, found, by="command line", now=SystemClock().now())
        start, end = found.window.start.isoformat(), found.window.end.isoformat()
        again = f"nightbatch run {found.job} --from {start} --to {end}"
        if as_json:
            show.print_json({"run": found.run, "gate": gate.kind, "state": gate.state, "next": again})
        else:
            show.note(f"{found.run} is released. Clear the run in Airflow (with downstream), or type: {again}")
