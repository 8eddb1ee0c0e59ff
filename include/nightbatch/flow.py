"""
The ten steps in order, one job end to end, no Airflow. START HERE.

    pull → render → pack            prepare: seals the plan of a run
    submit → wait → collect         advance: moves one shard on, as far as it will go now
    validate → load                 (the same)
    retry                           close_round: seals the next round
    settle                          finish: adds up, tells people, gives the run its colour

`orchestration/dag.py` does the same with Airflow's tasks, through the same five functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, NoReturn

from nightbatch.core.ids import ShardRef, run_id
from nightbatch.core.shard import ShardState
from nightbatch.core.window import Window
from nightbatch.errors import (
    AccountChanged,
    AccountTrouble,
    ProviderBusy,
    RunFailed,
    RunIncomplete,
    RunOverlaps,
    StaleAttempt,
    StorageUnavailable,
    Terminal,
)
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed
from nightbatch.logs import about, logger
from nightbatch.ports import Ports, RoundPlan, Run, Shard
from nightbatch.steps.account_outage import note_sending_works
from nightbatch.steps.ask_again import Ask, plan_retry, was_heard
from nightbatch.steps.canary import hold_back
from nightbatch.steps.cancel import stop_batches
from nightbatch.steps.chain import rounds_of
from nightbatch.steps.closed import closed_before
from nightbatch.steps.discard import discard
from nightbatch.steps.double import close_doubles
from nightbatch.steps.ending import tell_ending
from nightbatch.steps.estimate import Estimate
from nightbatch.steps.figures import due_of
from nightbatch.steps.give_up import give_up
from nightbatch.steps.lanes import OpenLane
from nightbatch.steps.late import late_shards
from nightbatch.steps.load import context_of, load
from nightbatch.steps.outcome import Finished, Moved, Outcome, Waiting
from nightbatch.steps.overdue import tell_overdue
from nightbatch.steps.parts import Crew, Errand, opened
from nightbatch.steps.parts_mend import do, mending, reading
from nightbatch.steps.parts_sort import sort
from nightbatch.steps.planning import Options, Reading, look_ahead, seal_plan, spread_out, with_model
from nightbatch.steps.progress import Progress, Watch
from nightbatch.steps.quality import hold_load, hold_send
from nightbatch.steps.release import QUALITY, decided, let_go, stands_still, stopped
from nightbatch.steps.release import discard as discard_held
from nightbatch.steps.resolve import resolve
from nightbatch.steps.resume import Past, past_of
from nightbatch.steps.retry import bury, retry
from nightbatch.steps.second_chance import seal_retry
from nightbatch.steps.settle import Books, books_of, settle
from nightbatch.steps.submit import submit
from nightbatch.steps.telemetry import doing, doing_run, tell_ages
from nightbatch.steps.tidy import check_staging
from nightbatch.steps.untold import tell_again
from nightbatch.steps.validate import validate
from nightbatch.steps.vendor_outage import note_answer, note_sent, waits_for_vendor
from nightbatch.steps.wait import wait
from nightbatch.steps.warn import tell_lateness, watch_deadline

log = logger(__name__)


def run(
    ports: Ports,
    job: Job,
    window: Window,
    options: Options | None = None,
    *,
    watch: Watch = lambda _: None,
    crew: Crew | None = None,
) -> Books:
    """
    Do one job for one window from beginning to end, and wait for it.

    Run again after a crash or an ending in RunIncomplete, it goes on where it stands. A job that is read in parts has
    them read by the crew. Raises what settle raises.
    """
    plan = _prepare_when_free(ports, job, window, options or Options(), watch, crew)
    sealed = sealed_job(ports, plan.run)
    for number in range(sealed.rounds + 1):
        if not _finish_shards(ports, sealed, plan, watch):
            # Settled as it stands: run again with the account mended, all of it goes on in this very run.
            return finish(ports, sealed, plan.run)
        plan = close_round(ports, sealed, plan.run, number)
        if not plan.shards:
            break
    for late in _late(ports, sealed, plan.run):
        if not _finish_shards(ports, sealed, late, watch):
            break
    return finish(ports, sealed, plan.run)


# --- prepare: steps 1 to 3 ------------------------------------------------------------------------------------


def prepare(
    ports: Ports,
    job: Job,
    window: Window,
    options: Options | None = None,
    *,
    watch: Watch = lambda _: None,
    spread: str = "",
    crew: Crew | None = None,
) -> RoundPlan:
    """
    Pull, render and pack a window's records, and seal the plan.

    A window that has a sealed plan gives that plan and reads no source. One that ended incomplete gets a new
    generation made of its pending rows alone. With `retry`, dead letters get a new generation of their own, once.
    `spread` is what `split` gave; without it the crew, where there is one, reads a source in parts that may be.
    Raises RunOverlaps where another run holds the window.
    """
    options = options or Options()
    job = with_model(job, options.model)
    if options.retry is not None and not was_heard(ports.ledger, job.name, window, options.retry):
        return _send_dead_again(ports, job, window, options.retry, options)
    past, run = _take_window(ports, job, window, options)
    with about(job=job.name, run=run.run):
        sealed = ports.ledger.sealed(run.run, 0)
        if sealed is not None and run.state == "open":
            ports.ledger.resume(run.run, now=ports.clock.now())
        if sealed is not None and run.state == "open":
            _mend_sink(ports, run)
        if sealed is None:
            ports.sink(job).prepare(context_of(run))
            with doing_run(ports, "prepare", run.run):
                read = _in_parts(ports, job, run, past, options, spread, crew)
                sealed = seal_plan(ports, job, run, past, options, watch, read=read)
            log.info("prepare: %s requests in %d shards", f"{sealed.facts['counts']['requests']:,}", len(sealed.shards))
        bury(ports, unsealed(sealed.facts, run=sealed.run), sealed)
    return sealed


def split(ports: Ports, job: Job, window: Window, options: Options | None = None) -> list[Errand]:
    """
    Before `prepare`, where it is done by several workers: cut the source into parts, and name what each is to do.

    Empty where there is nothing to share out: `prepare` does it all. Raises what `prepare` raises before it reads.
    """
    options = options or Options()
    job = with_model(job, options.model)
    if options.retry is not None:
        return []
    past, run = _take_window(ports, job, window, options)
    with about(job=job.name, run=run.run):
        if ports.ledger.sealed(run.run, 0) is not None:
            return []
        ports.sink(job).prepare(context_of(run))
        spread = spread_out(ports, job, run, past, options)
        return reading(spread) if spread else []


def read_part(
    ports: Ports, job: Job, errand: Errand, reopen: Callable[[Job], Ports], *, watch: Watch = lambda _: None
) -> None:
    """
    Do one of the errands that `split` or `sort_parts` named, or find that it was done.

    `ports` are those of `job`; where the source was split by another version of it, they are opened again for that.
    """
    spread = opened(ports.store, errand.spread)
    split_job = spread.read_job()
    with about(job=job.name, run=spread.run):
        do(ports if split_job == job else reopen(split_job), errand, watch)


def sort_parts(ports: Ports, job: Job, name: str, reopen: Callable[[Job], Ports]) -> list[Errand]:
    """
    Once all parts of `name` are read: decide about their records, and name what several workers can pack anew.

    Empty where there is nothing to share out.
    """
    spread = opened(ports.store, name)
    split_job = spread.read_job()
    with about(job=job.name, run=spread.run):
        found = mending(spread, sort(ports if split_job == job else reopen(split_job), spread))
    return found if len(found) > 1 else []


def _take_window(ports: Ports, job: Job, window: Window, options: Options) -> tuple[Past, Run]:
    """Open the run of a window, or find it. Raises RunOverlaps."""
    past = past_of(ports.ledger, job.name, window, limit=options.limit, asker=options.force)
    if options.release or options.discard:
        _decide(ports, past, options)
    away = past.forced_away
    if away and (give_up(ports, away) or _throw_away(ports, away)):
        _close(ports, away)
    overlap = job.source.apart
    run = ports.ledger.open_run(job.name, window, now=ports.clock.now(), force=past.wants_new_plan, overlap=overlap)
    past.check_enough(run)
    check_staging(run)
    return past, run


def _in_parts(
    ports: Ports, job: Job, run: Run, past: Past, options: Options, name: str, crew: Crew | None
) -> Reading | None:
    """Give the parts that a run's source was split into, or is split into now; None where one worker reads it all."""
    if name:
        spread = opened(ports.store, name)
        if spread.run == run.run:
            return Reading(spread, crew or _by_myself)
        log.warning("prepare: the parts are those of run %s, which was closed; all is read anew", spread.run)
        return None
    found = spread_out(ports, job, run, past, options) if crew else None
    return Reading(found, crew) if found and crew else None


def _by_myself(errands: Sequence[Errand]) -> None:
    """Leave all errands to whoever needs what they make."""


def _mend_sink(ports: Ports, run: Run) -> None:
    """
    Make tables anew that went away since the plan was sealed, which may be why it is run again.

    A sink that cannot be written keeps nobody from collecting what is paid; the load will say it.
    """
    try:
        ports.sink(sealed_job(ports, run.run)).prepare(context_of(run))
    except (StorageUnavailable, Terminal) as error:
        log.warning("prepare: what comes back cannot be loaded yet: %s", error)


def _decide(ports: Ports, past: Past, options: Options) -> None:
    """Let go, or discard, what the window's last plan held back; asked for again, nothing is held back any more."""
    latest = past.generations[-1] if past.generations else None
    kinds = [gate.kind for gate in stopped(ports.ledger, latest.run)] if latest else []
    if latest is not None and options.discard and QUALITY in kinds:
        discard_held(ports.ledger, latest, by=options.discard, now=ports.clock.now())
    elif latest is not None and options.release and kinds:
        let_go(ports.ledger, latest, by=options.release, now=ports.clock.now())


def _throw_away(ports: Ports, run: Run) -> bool:
    """Take a run as far as it goes whose answers a person discarded; says whether nothing of it is under way then."""
    job = sealed_job(ports, run.run)
    if decided(ports.ledger, job, run.run) != "discarded":
        return False
    outcomes = [advance(ports, job, shard.plan.ref) for shard in ports.ledger.shards(run.run)]
    return not any(isinstance(outcome, Waiting) for outcome in outcomes)


def _send_dead_again(ports: Ports, job: Job, window: Window, ask: Ask, options: Options) -> RoundPlan:
    plan = plan_retry(ports, job, window, ask)
    with about(job=job.name, run=plan.run):
        sealed = seal_retry(ports, plan, deadline_utc=options.deadline_utc)
        bury(ports, unsealed(sealed.facts, run=sealed.run), sealed)
    return sealed


def _close(ports: Ports, run: Run) -> None:
    try:
        settle(ports, sealed_job(ports, run.run), run.run)
    except (RunIncomplete, RunFailed) as ending:
        log.info("%s", ending)


# --- advance: steps 4 to 8 ------------------------------------------------------------------------------------


def advance(ports: Ports, job: Job, ref: ShardRef, *, sends: bool = True) -> Waiting | Finished:
    """
    Move one shard on as far as it goes now: the state machine that every runner obeys.

    Safe to call at any time by anybody; what was done is read from the ledger and not done again. Without `sends` a
    shard that would have to be sent stays sealed: housekeeping pays for nothing.
    """
    before, repeats = None, 0
    while True:
        shard = ports.ledger.shard(ref)
        repeats = repeats + 1 if shard == before else 0
        if before is not None and before.state is not shard.state is ShardState.OPEN:
            note_sending_works(ports, job, shard)
            note_sent(ports, job, shard)
        if repeats > 2:
            # Somebody else has the shard in hand and we only get in each other's way.
            until = ports.clock.now() + timedelta(seconds=min(5.0, ports.settings.poll_from_s))
            return Waiting(until, "another process is moving this shard")
        before = shard
        if shard.state is ShardState.SEALED and not sends:
            return Finished(shard.state.value)
        batch_id = shard.current.batch_id if shard.current else None
        with about(job=job.name, run=ref.run, shard=ref.name, batch=batch_id):
            try:
                outcome = _look(ports, job, shard)
            except Terminal as error:
                # Whoever settles the run is another process in Airflow, and must be able to say why.
                ports.ledger.note_problem(ref, type(error).__name__, str(error))
                raise
        note_answer(ports, job, shard, outcome)
        if isinstance(outcome, Waiting) and outcome.overdue_since is not None:
            tell_overdue(ports, job, ports.ledger.run(ref.run), outcome.overdue_since, outcome.reason)
        if not isinstance(outcome, Moved):
            return outcome


def _look(ports: Ports, job: Job, shard: Shard) -> Outcome:
    try:
        match shard.state:
            case ShardState.SEALED:
                return hold_back(ports, job, shard) or hold_send(ports, job, shard) or submit(ports, job, shard)
            case ShardState.SUBMITTING:
                return resolve(ports, shard)
            case ShardState.OPEN:
                return wait(ports, shard)
            case ShardState.STORED:
                with doing(ports, "validate", shard):
                    return validate(ports, job, shard)
            case ShardState.COLLECTED:
                return hold_load(ports, job, shard) or _load(ports, job, shard)
            case ShardState.LOADED:
                discard(ports, job, shard)
        return close_doubles(ports, job, shard) or Finished(shard.state.value)
    except StaleAttempt:
        # Another attempt moved the shard on while this one was at work: look where it is now.
        return Moved()
    except ProviderBusy as busy:
        return waits_for_vendor(ports, shard, busy)


def _load(ports: Ports, job: Job, shard: Shard) -> Outcome:
    with doing(ports, "load", shard):
        return load(ports, job, shard)


# --- close_round and finish: steps 9 and 10 -------------------------------------------------------------------


def close_round(ports: Ports, job: Job, run: str, number: int, *, last: int | None = None) -> RoundPlan:
    """
    Seal the round after round `number`: what is sent again, and the fate of the other bad rows.

    `last` is the last round that whoever runs this can still send, where that is not the sealed job's: the Dag of
    an edited job file may have fewer rounds, and rows sealed for one that never comes would wait for ever.
    """
    check_staging(ports.ledger.run(run))
    if stands_still(ports.ledger, job, run):
        # Nothing is sorted or sent until a person decides; then the round is closed as if for the first time.
        return RoundPlan(run, number + 1, (), {"sent_again": {}, "dead": {}, "pending": {}})
    rounds = job.rounds if last is None else min(job.rounds, last)
    # Of the last round only rows are sent again that came late, and settle sees them through.
    has_rounds, is_extra = number < rounds or rounds == job.rounds, number >= job.rounds
    with about(job=job.name, run=run), doing_run(ports, "retry", run):
        return retry(ports, job, run, seals=number + 1, has_rounds=has_rounds, is_extra=is_extra)


def advance_late(ports: Ports, job: Job, run: str) -> Waiting | None:
    """
    Move on what came back too late for the rounds that there were; to be called until it gives None, before `finish`.

    Gives what the first of these shards waits for. One that fails is logged and left: settle counts its rows.
    """
    for late in _late(ports, job, run):
        waits = []
        for shard in late.shards:
            with about(job=job.name, run=run, shard=shard.ref.name):
                try:
                    outcome = advance(ports, job, shard.ref)
                except Terminal as error:
                    log.error("%s", error)
                else:
                    waits += [outcome] if isinstance(outcome, Waiting) else []
        if waits:
            return min(waits, key=lambda wait: wait.until)
    return None


def _late(ports: Ports, job: Job, run: str) -> Iterator[RoundPlan]:
    """Give the shards of extra rounds, each once."""
    tried: set[ShardRef] = set()
    while late := [shard for shard in late_shards(ports, job, run) if shard.ref not in tried]:
        yield RoundPlan(run, late[-1].ref.round, tuple(late), {})
        tried.update(shard.ref for shard in late)


def finish(ports: Ports, job: Job, run: str, *, link: str = "") -> Books:
    """
    Settle a run and tell people how it ended.

    A Transient error is no ending: it is raised untold, and the caller tries again.
    """
    check_staging(ports.ledger.run(run))
    with about(job=job.name, run=run):
        problem: Terminal | None = None
        books: Books | None = None
        try:
            with doing_run(ports, "settle", run):
                books = settle(ports, job, run)
        except Terminal as error:
            problem = error
        state = ports.ledger.run(run)
        tell_ending(ports, job, state, books or books_of(state), problem, link=link)
        tell_again(ports, job)
    if problem is not None:
        raise problem
    if books is None:
        raise RunFailed(run, problem="it was settled without books", remedy="Run the window again.")
    return books


def fail_unplanned(ports: Ports, job: Job, window: Window, *, link: str = "") -> NoReturn:
    """
    Say that prepare did not succeed, so that nothing followed it; raises RunFailed.

    A window without a plan is let go, so that the next try, or another run, may take it.
    """
    run = find_run(ports, job, window)
    if run is not None:
        check_staging(run)
    name = run.run if run else f"{job.name}/{window.key}"
    is_planned = run is not None and ports.ledger.sealed(run.run, 0) is not None
    problem = RunFailed(
        name,
        problem=(
            "prepare did not succeed; the plan that was sealed before stands, and what was sent goes on at the vendor"
            if is_planned
            else "it has no plan, since prepare did not succeed; nothing was sent and nothing was spent"
        ),
        remedy=f"Read the log of {_first_tasks(job)}, mend what it names, and run the window again.",
    )
    if run is not None and run.state == "open" and not is_planned:
        ports.ledger.settle(run.run, state="failed", books={}, now=ports.clock.now())
    told = run or Run(name, job.name, window, 1, "failed", ports.clock.now())
    tell_ending(ports, job, told, None, problem, link=link)
    raise problem


def _first_tasks(job: Job) -> str:
    return "`prepare`" if job.source.parts == 1 else "the red one of `parts`, `read`, `sort`, `mend` and `prepare`"


def cancel(ports: Ports, run: str, *, drops: bool, watch: Watch = lambda _: None) -> Books:
    """
    Cancel an open run at the vendor, wait for what is done, load it, and settle.

    Called again after a crash, it goes on. With `drops` rows without an answer are dead letters, else pending.
    Raises what settle raises: RunCancelled, or RunIncomplete.
    """
    ports.ledger.cancel(run, drops=drops, now=ports.clock.now())
    job, asked, rounds = sealed_job(ports, run), set[str](), 0
    while rounds < len(found := rounds_of(ports, run)):
        rounds = len(found)
        shards = tuple(shard.plan for shard in ports.ledger.shards(run))
        whole = RoundPlan(run, rounds - 1, shards, {})
        if not _finish_shards(ports, job, whole, watch, each=lambda: stop_batches(ports, run, asked)):
            break
    return finish(ports, job, run)


def find_run(ports: Ports, job: Job, window: Window) -> Run | None:
    """Give the latest generation of a window, where there is one."""
    same = ports.ledger.runs(job=job.name, window=window)
    return max(same, key=lambda run: run.generation, default=None)


def tell_deadline(
    ports: Ports, job: Job, window: Window, *, kind: Literal["at_risk", "late"], due: datetime, link: str = ""
) -> None:
    """Tell people that a window is at risk or late, also where its run has not begun; not if it has ended well."""
    run = find_run(ports, job, window)
    if run is not None and run.state in ("complete", "failed"):
        return
    run = run or Run(run_id(job.name, window, 1), job.name, window, 1, "open", due)
    tell_lateness(ports, job, run, kind=kind, due=due, link=link)


def sealed_job(ports: Ports, run: str) -> Job:
    """Give the job as it was sealed with the run: an edit mid-run changes nothing in flight. Raises PlanUnreadable."""
    plan = ports.ledger.sealed(run, 0)
    if plan is None:
        raise RunFailed(run, problem="it has no plan", remedy="Run the window again.")
    return unsealed(plan.facts, run=run)


def due_utc(ports: Ports, job: Job, run: Run) -> datetime | None:
    """Give a run's deadline: its own, else the job's for its window; None without either."""
    return due_of(job, run)


# --- waiting in one process -----------------------------------------------------------------------------------


def _prepare_when_free(
    ports: Ports, job: Job, window: Window, options: Options, watch: Watch, crew: Crew | None
) -> RoundPlan:
    while True:
        try:
            return prepare(ports, job, window, options, watch=watch, crew=crew)
        except RunOverlaps as overlap:
            other = ports.ledger.run(overlap.other_run)
            if other.window == window and options.retry is None:
                # A first look at this very window, which nobody else may be finishing.
                run(ports, job, window, Options(limit=int((other.plan or {})["limit"])), watch=watch)
                continue
            watch(Progress("waits", 0, note=str(overlap)))
            ports.clock.sleep(ports.settings.poll_from_s)


def _not_due(held_up: Mapping[ShardRef, Waiting], *, looked: datetime, now: datetime) -> dict[ShardRef, Waiting]:
    """Give what need not be looked at yet. After a clock was put back that is nothing: it could be a wait of days."""
    return {ref: waiting for ref, waiting in held_up.items() if looked <= now < waiting.until}


def _vouch(ports: Ports, refs: Sequence[ShardRef], *, since: datetime) -> datetime:
    """Keep the places in line of the shards that this process looks after, while it is busy with another one."""
    now = ports.clock.now()
    if not refs or timedelta(0) <= now - since < timedelta(seconds=30):
        return since
    ports.ledger.stay_in_line(refs, now=now)
    return now


def _finish_shards(
    ports: Ports, job: Job, plan: RoundPlan, watch: Watch, *, each: Callable[[], None] = lambda: None
) -> bool:
    """
    Advance all shards of a round in turn until each is finished; sleeps while all of them wait.

    `each` opens every turn. Says False where some could not be looked after, because the account could not be used.
    """
    waiting: Sequence[ShardRef] = [shard.ref for shard in plan.shards]
    held_up: dict[ShardRef, Waiting] = {}
    vouched = looked = ports.clock.now()
    failures, said, aged = 0, set[str](), set[str]()
    is_usable = True
    while waiting:
        each()
        # What is not due is left alone: neither the vendor nor the line at its queue is asked more than needed.
        outcomes: dict[ShardRef, Waiting | Finished] = {**_not_due(held_up, looked=looked, now=ports.clock.now())}
        looked = ports.clock.now()
        for ref in waiting:
            if ref in outcomes:
                continue
            try:
                vouched = _vouch(ports, [*held_up, *outcomes], since=vouched)
                outcomes[ref] = advance(ports, job, ref)
                failures = 0
            except StorageUnavailable as error:
                failures += 1
                if failures > 20:
                    raise
                outcomes[ref] = Waiting(ports.clock.now() + timedelta(seconds=min(2.0**failures, 60)), str(error))
            except Terminal as error:
                # The others go on; settle counts this shard's rows as pending and the run ends failed.
                is_usable = is_usable and not isinstance(error, AccountTrouble | AccountChanged)
                if str(error) not in said:
                    with about(job=job.name, run=ref.run, shard=ref.name):
                        log.error("%s", error)
                said.add(str(error))
        held_up = {ref: outcome for ref, outcome in outcomes.items() if isinstance(outcome, Waiting)}
        waits, waiting = list(held_up.values()), list(held_up)
        aged = tell_ages(ports, plan.shards, held_up, aged)
        total = len(plan.shards)
        watch(Progress(f"round {plan.round}", total - len(waiting), total, waits[0].reason if waits else ""))
        if waits:
            _watch_deadline(ports, job, plan.run)
            pause = (min(wait.until for wait in waits) - ports.clock.now()).total_seconds()
            ports.clock.sleep(min(max(pause, 0.05), 30.0))
    return is_usable


def _watch_deadline(ports: Ports, job: Job, run: str) -> None:
    state = ports.ledger.run(run)
    due = due_utc(ports, job, state)
    if due is not None:
        watch_deadline(ports, job, state, due)


__all__ = [
    "Ask",
    "Crew",
    "Errand",
    "Estimate",
    "OpenLane",
    "Options",
    "Progress",
    "Watch",
    "advance",
    "advance_late",
    "books_of",
    "cancel",
    "close_round",
    "closed_before",
    "due_utc",
    "fail_unplanned",
    "find_run",
    "finish",
    "look_ahead",
    "prepare",
    "read_part",
    "run",
    "sealed_job",
    "sort_parts",
    "split",
    "tell_deadline",
    "with_model",
]
