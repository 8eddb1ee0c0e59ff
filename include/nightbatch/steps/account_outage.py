"""Tell of an account that cannot be used: one message for all runs that meet it, and one when sending works again."""

from __future__ import annotations

from nightbatch.core.outage import Outage
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import NightbatchError, RunIncomplete
from nightbatch.job import Job
from nightbatch.ports import Message, Ports, Run, Shard

from .figures import moment, usd
from .outage import account_subject, close, counted, hit, outage_of, over_message
from .settle import Books
from .tell import tell, wants

_DONE = (ShardState.LOADED, ShardState.HELD)


def tell_account(ports: Ports, job: Job, run: Run, books: Books, problem: NightbatchError, *, link: str) -> bool:
    """Tell of a run that an account's trouble alone keeps from its end; False, and nothing, for any other ending."""
    if not isinstance(problem, RunIncomplete) or set(books.pending) - {Reason.ACCOUNT.value}:
        return False
    shards = ports.ledger.shards(run.run)
    lanes = {(shard.plan.provider, shard.plan.connection) for shard in shards}
    said = {lane: ports.ledger.account_trouble(run.run, *lane) for lane in sorted(lanes)}
    if not all(said[_lane(shard)] for shard in shards if shard.state not in _DONE) or not any(said.values()):
        return False
    provider, connection = next(lane for lane in said if said[lane])
    subject = account_subject(job, provider, connection)
    outage, is_told = hit(ports, run.run, subject, "account", rows=problem.pending)
    if is_told:
        message = account_message(
            ports,
            job,
            run,
            outage,
            provider=provider,
            connection=connection,
            said=said[provider, connection],
            link=link,
        )
        tell(ports, run.run, message, waits=True)
    return True


def _lane(shard: Shard) -> tuple[str, str]:
    return shard.plan.provider, shard.plan.connection


def account_message(
    ports: Ports, job: Job, run: Run, outage: Outage, *, provider: str, connection: str, said: str, link: str = ""
) -> Message:
    """Say what the vendor said, and that more runs may meet it without another message."""
    reserved, spent = ports.ledger.spent(run.run)
    return Message(
        event_id=f"{run.run}:account:{outage.number}",
        kind="account",
        title=f"{provider} takes nothing through the connection {connection}",
        happened=said,
        since=moment(job, outage.began_utc),
        rows=f"{outage.rows:,} rows of {counted(outage)} are pending so far",
        money=f"{usd(spent)} spent in this run, {usd(reserved)} still reserved; nothing more is sent",
        happens_next=(
            "Every run that meets this holds its rows back and ends incomplete. Such runs are counted, not told one by "
            "one: a message comes when sending works again, and a reminder after 20 hours."
        ),
        to_do=(
            "Mend the key, the credit or the rights of the account. See with one question whether it works. Then clear "
            "the run in Airflow (with downstream), or run the window again: it goes on where it stands."
        ),
        commands=(f"nightbatch try {run.job} -n 1", f"nightbatch status {run.job}"),
        if_nobody=(
            "The next run of each job tries again and takes the pending rows along. If the key stays dead for longer "
            "than the vendor keeps results (29 or 30 days), answers that are paid are lost."
        ),
        facts=(("Account", f"{provider}, connection {connection}"), *(("Run", name) for name in outage.runs[:20])),
        link=link or ports.settings.ui_base_url,
    )


def note_sending_works(ports: Ports, job: Job, shard: Shard) -> None:
    """Tell people that an outage is over, because the vendor has just taken a batch."""
    if wants(job, "account"):
        _end(ports, job, shard.plan.ref.run, _lane(shard), what="the vendor takes batches again")


def note_run_is_done(ports: Ports, job: Job, run: Run) -> None:
    """Tell people that an outage is over, because a run that it hit has come to its end after all."""
    if wants(job, "account"):
        for lane in sorted({_lane(shard) for shard in ports.ledger.shards(run.run)}):
            _end(ports, job, run.run, lane, what=f"run {run.run} is complete", only_if_hit=True)


def _end(ports: Ports, job: Job, run: str, lane: tuple[str, str], *, what: str, only_if_hit: bool = False) -> None:
    provider, connection = lane
    outage = outage_of(ports, account_subject(job, provider, connection))
    if not outage.is_open or (only_if_hit and run not in outage.runs):
        return
    title = f"{provider} can be used again through the connection {connection}"
    happened, thread = f"The trouble is over: {what}.", f"{outage.runs[0]}:account:{outage.number}"
    close(ports, run, outage, over_message(ports, job, outage, title=title, happened=happened, thread=thread))
