"""Still step 4: an intent stands and nobody knows its batch. Ask the vendor: adopt it, wait, or prove it absent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import row_of
from nightbatch.errors import StaleAttempt
from nightbatch.logs import about, logger
from nightbatch.ports import Attempt, Ports, Provider, Shard

from .account import check_account
from .batch_id import keep_id, late_words, noted_id
from .outcome import Moved, Outcome, Waiting
from .submit import label_of, withdraw

log = logger(__name__)

CLOCK_SKEW = timedelta(minutes=5)
"""How far the vendor's clock may be from ours when a creation time is compared."""
MOST_A_LOOK_S = 10.0
"""
The most that the time between two looks counts, or two polls where those are longer, and never over a quarter of what
is needed: by so much a clock that jumps can cheat.
"""


def resolve(ports: Ports, shard: Shard) -> Outcome:
    """
    Find out what became of an attempt whose process died, or whose create reply was lost.

    "Certainly not there" needs complete listings without it for as long as send deadline, request timeout and the
    vendor's listing lag are together. Until then the answer is "cannot know yet".
    """
    attempt = shard.current
    if attempt is None:
        return Moved()
    now = ports.clock.now()
    if attempt.state == "intent":
        return _withdraw_unsent(ports, shard, attempt, now)
    noted = noted_id(ports, attempt)
    provider = ports.provider(shard.plan.provider, shard.plan.connection)
    if noted:
        return _adopt(ports, shard, attempt, provider.poll(noted))
    # A listing of another account lacks the batch whether it was made or not.
    check_account(provider, shard, attempt)
    until = attempt.send_deadline_utc + timedelta(seconds=ports.settings.request_timeout_s) + CLOCK_SKEW
    found = provider.find(
        label_of(ports, attempt), rows=attempt.rows, since=attempt.intent_utc - CLOCK_SKEW, until=until
    )
    if provider.found_by == "label" and found:
        return _adopt(ports, shard, attempt, min(found, key=lambda state: (state.created_utc or now, state.batch_id)))
    ours, still_open = _prove(ports, attempt, provider, found)
    if ours is not None:
        return _adopt(ports, shard, attempt, ours)
    if still_open:
        reason = f"holds {still_open} candidate batches at {provider.name} until their results prove whose they are"
        return Waiting(now + timedelta(seconds=ports.settings.poll_from_s), reason)
    left = _left_to_look(ports, attempt, now)
    if left > timedelta(0):
        look_again = now + min(left, timedelta(seconds=ports.settings.poll_from_s))
        return Waiting(look_again, f"cannot know yet whether {provider.name} made the batch; asks again")
    return _declare_absent(ports, attempt, provider, now)


def _left_to_look(ports: Ports, attempt: Attempt, now: datetime) -> timedelta:
    """
    Say for how much longer a batch must be looked for before its absence is certain.

    As long as its create could take, from the first look on, look by look: what a clock says of the intent's own time
    is not believed, because it may have jumped since, or be another machine's.
    """
    needed = attempt.certain_utc - attempt.intent_utc
    one_look = min(timedelta(seconds=max(2 * ports.settings.poll_from_s, MOST_A_LOOK_S)), needed / 4)
    return needed - ports.ledger.note_absence(attempt.attempt_id, at_most=one_look, now=now)


def _withdraw_unsent(ports: Ports, shard: Shard, attempt: Attempt, now: datetime) -> Outcome:
    """
    Take over from a process that died, or still is, before its create call.

    It must mark "sending" before it sends, and after this it no longer can; so nothing was or will be sent. While
    its time to send runs it is left alone, since it may be uploading.
    """
    # An intent from the future was written by a clock that has been put back since; it would be waited for too long.
    is_from_the_future = attempt.intent_utc > now + CLOCK_SKEW
    if now < attempt.send_deadline_utc and not is_from_the_future:
        return Waiting(attempt.send_deadline_utc, "another process is sending this shard, or died while it was")
    try:
        ports.ledger.end_attempt(
            attempt.attempt_id, "absent", reason="its process ended before the create call", retry_at=None, now=now
        )
    except StaleAttempt:
        return Moved()
    if attempt.file_id:
        withdraw(ports.provider(shard.plan.provider, shard.plan.connection), attempt.file_id)
    return Moved()


def _adopt(ports: Ports, shard: Shard, attempt: Attempt, state: BatchState) -> Outcome:
    try:
        if keep_id(ports, shard, attempt, state):
            log.error("submit: %s", late_words(attempt))
    except StaleAttempt as stale:
        # Looked at again after a pause, not at once: what stays so must not ask the vendor in circles.
        return Waiting(ports.clock.now() + timedelta(seconds=ports.settings.poll_from_s), str(stale))
    with about(batch=state.batch_id):
        log.info("submit: the batch of a lost create was found and is taken over")
    return Moved()


def _prove(
    ports: Ports, attempt: Attempt, provider: Provider, found: Sequence[BatchState]
) -> tuple[BatchState | None, int]:
    """
    Look for the batch of an attempt among candidates that nobody owns.

    Only a custom_id in its results proves a batch to be ours, so an open candidate must be waited for. Gives ours,
    and how many candidates are still open. No candidate is ever cancelled or deleted.
    """
    owned = ports.ledger.owned(provider.name, [state.batch_id for state in found])
    prefix = label_of(ports, attempt).prefix
    still_open = 0
    for state in found:
        if state.batch_id in owned:
            continue
        if state.status is not BatchStatus.ENDED:
            still_open += 1
        elif row_of(first_custom_id(provider, state), prefix) is not None:
            return state, still_open
    return None, still_open


def first_custom_id(provider: Provider, state: BatchState) -> str:
    """Read the custom_id in the first line of a batch's results; empty where there is none."""
    for file in provider.results(state):
        head = b""
        for chunk in file.chunks:
            head += chunk
            if b"\n" in head:
                break
        if head.strip():
            return _custom_id_in(provider, head.split(b"\n", 1)[0])
    return ""


def _custom_id_in(provider: Provider, line: bytes) -> str:
    try:
        return provider.parse(line).custom_id
    except ValueError:
        # Our rows begin with our own custom_id, whatever became of them: this line is a stranger's.
        return ""


def _declare_absent(ports: Ports, attempt: Attempt, provider: Provider, now: datetime) -> Outcome:
    if attempt.file_id:
        # A predecessor frozen before its create call would otherwise still succeed with it when it wakes up.
        provider.withdraw(attempt.file_id)
    try:
        ports.ledger.end_attempt(
            attempt.attempt_id, "absent", reason="a complete listing does not hold it", retry_at=None, now=now
        )
    except StaleAttempt:
        return Moved()
    return Moved()
