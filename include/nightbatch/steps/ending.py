"""Tell people how a run ended: well, with rows pending, stopped by a gate, cancelled, or failed."""

from __future__ import annotations

from dataclasses import replace

from nightbatch.errors import NightbatchError, RunCancelled, RunFailed, RunIncomplete, RunUnloaded
from nightbatch.job import Job
from nightbatch.ports import Gate, Message, Ports, Run

from .account_outage import note_run_is_done, tell_account
from .figures import book_facts, moment, rows_of, usd
from .release import QUALITY, stopped, why
from .report import report
from .settle import Books
from .tell import tell, wants
from .warn import end_lateness


def had_work(books: Books) -> bool:
    """Say whether a run had any record: of one without nothing is reported, and `min_rows` is for those who mind."""
    return bool(books.pulled or books.from_pending or books.from_dead)


def tell_ending(
    ports: Ports, job: Job, run: Run, books: Books | None, problem: NightbatchError | None, *, link: str = ""
) -> None:
    """Send the report of a run that is complete, or say that it failed or is incomplete."""
    end_lateness(ports, job, run, is_well=problem is None, link=link)
    if problem is None:
        note_run_is_done(ports, job, run)
        if books is not None and had_work(books) and wants(job, "report"):
            tell(ports, run.run, report(ports, job, run, books, link=link), waits=True)
        return
    if books is not None and wants(job, "account") and tell_account(ports, job, run, books, problem, link=link):
        return
    message = _bad_ending(ports, job, run, books, problem, link=link)
    if wants(job, message.kind):
        tell(ports, run.run, message, waits=True)


def _bad_ending(
    ports: Ports, job: Job, run: Run, books: Books | None, problem: NightbatchError, *, link: str
) -> Message:
    now = ports.clock.now()
    reserved, spent = ports.ledger.spent(run.run)
    message = Message(
        # A run may fail, be cleared, and fail again: each ending is an event of its own.
        event_id=f"{run.run}:failed:{books.state if books else 'no-plan'}:{now:%Y%m%dT%H%M%S}",
        kind="failed",
        title=f"{run.job}, window {run.window}",
        happened=_sentence(problem.problem) if isinstance(problem, RunFailed) else str(problem),
        since=moment(job, now),
        rows=rows_of(books) if books else "none: nothing was sent",
        money=f"{usd(spent)} spent; {usd(reserved)} still reserved" if reserved else f"{usd(spent)} spent, no more",
        happens_next="Nothing more for this window. Loaded answers stay. The job's next run goes ahead on its own.",
        to_do=problem.remedy if isinstance(problem, RunFailed) else _MEND,
        commands=(f"nightbatch status {run.job}", _mending(run, books)),
        if_nobody="The window stays as it is: what has no answer now gets none.",
        facts=(("Window", str(run.window)), ("Run", run.run), *(book_facts(books) if books else ())),
        link=link or ports.settings.ui_base_url,
    )
    if isinstance(problem, RunCancelled):
        return _cancelled(job, run, message, problem)
    gates = stopped(ports.ledger, run.run)
    if gates:
        return (_at_gate if gates[0].kind == QUALITY else _held_back)(run, message, gates[0])
    if isinstance(problem, RunUnloaded):
        return _unloaded(run, message, problem)
    return _incomplete(run, message, problem) if isinstance(problem, RunIncomplete) else message


_MEND = "Mend what is named above. Then clear the run in Airflow (with downstream), or run the window again."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _mending(run: Run, books: Books | None) -> str:
    """Give the command that does something about a failed run: one with a plan stays failed without another plan."""
    if books is not None and books.letters:
        return f"nightbatch retry {run.run}"
    return again(run) if books is None else f"{again(run)} --force"


def again(run: Run) -> str:
    """Give the command that runs a run's window again, which goes on where it stands and pays for nothing twice."""
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (run.window.start, run.window.end))
    return f"nightbatch run {run.job} --from {start} --to {end}"


def _cancelled(job: Job, run: Run, message: Message, problem: RunCancelled) -> Message:
    return replace(
        message,
        # Whoever settles it then, the command or the Dag, tells of one cancel once.
        event_id=f"{run.run}:cancelled",
        kind="cancelled",
        since=moment(job, problem.since),
        to_do="Nothing, if that is as it should be. The command sends what was dropped after all, and asks first.",
        commands=(f"nightbatch retry {run.run} --reason cancelled",),
        if_nobody="The rows that were dropped stay dead letters: nothing sends them again on its own.",
    )


def _held_back(run: Run, message: Message, gate: Gate) -> Message:
    return replace(
        message,
        kind="canary",
        happened=_sentence(why(gate)),
        happens_next="The other rows are not sent and stay pending; nothing more is spent on this window.",
        to_do=(
            "Look at the canary's answers. If they are good, release them, then clear the run in Airflow (with "
            "downstream). If not, mend prompt, schema or model, and run the window with force, which plans it anew."
        ),
        commands=(f"nightbatch status {run.job}", f"nightbatch release {run.run}", f"{again(run)} --force"),
        if_nobody="The job's next run sends a canary of its own, and takes these rows if that one comes home well.",
    )


def _at_gate(run: Run, message: Message, gate: Gate) -> Message:
    return replace(
        message,
        kind="held_back",
        happened=_sentence(why(gate)),
        happens_next=(
            "Nothing more of this run is sent, sorted or loaded until a person decides; its files stay, and nothing is "
            "paid again. The job's next run goes ahead on its own."
        ),
        to_do=(
            "See what is different, with up to 20 answers (first command). If they are as they should be, release "
            "them; if not, discard them: they become dead letters. Then clear the run in Airflow (with downstream), or "
            "run the window again; with force it is planned anew, after prompt, schema or model are mended."
        ),
        commands=(
            f"nightbatch release {run.run} --look",
            f"nightbatch release {run.run}",
            f"nightbatch release {run.run} --discard",
            again(run),
        ),
        if_nobody="The run stays open: its answers stay out of the sink, and its files in the staging folder.",
    )


def _unloaded(run: Run, message: Message, problem: RunUnloaded) -> Message:
    return replace(
        message,
        kind="incomplete",
        title=f"{run.job}: {problem.pending:,} rows are not loaded",
        happened=" ".join([f"{problem.pending:,} rows came back and did not reach the sink.", *problem.why]),
        happens_next="Nothing more for this window; the job's next run goes ahead. What came back is paid and kept.",
        to_do=(
            "Mend the cause above. Then clear the run in Airflow (with downstream), or run the window again: it loads "
            "what came back, and nothing is paid twice."
        ),
        commands=(f"nightbatch status {run.job}", again(run)),
        if_nobody="The run stays open: its answers stay out of the sink, and its files in the staging folder.",
    )


def _incomplete(run: Run, message: Message, problem: RunIncomplete) -> Message:
    return replace(
        message,
        kind="incomplete",
        title=f"{run.job}: {problem.pending:,} rows are pending",
        commands=(f"nightbatch status {run.job}", again(run)),
        happened=" ".join([f"{problem.pending:,} rows are pending: {problem.reasons}.", *problem.why]),
        happens_next="The job's next run takes the pending rows first. Loaded answers stay; nothing is paid twice.",
        to_do=(
            "Mend the cause above. Then clear the run in Airflow (with downstream), or run the window again: it goes "
            "on where it stands."
        ),
        if_nobody=(
            "The next run tries these rows again, and meets the same cause if it is still there. A batch that is still "
            "at the vendor is not looked at until then; its results are lost after some 29 days."
        ),
    )
