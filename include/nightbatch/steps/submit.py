"""Step 4, submit: get a sealed shard to the vendor exactly once, whatever died on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from nightbatch.core.batch import BatchState
from nightbatch.core.ids import Label, run_code
from nightbatch.core.queue import Ask
from nightbatch.core.verdict import Reason
from nightbatch.errors import (
    AccountTrouble,
    BudgetExceeded,
    BudgetTaken,
    CreateUnclear,
    MustWait,
    NightbatchError,
    PlanChanged,
    ProviderBusy,
    QueueFull,
    QueueTooSmall,
    RequestRefused,
    StaleAttempt,
)
from nightbatch.job import Job
from nightbatch.logs import about, logger
from nightbatch.ports import Attempt, Intent, Ports, Provider, Shard, Store

from .batch_id import keep_id, late_words
from .budgets import budgets_of, day_of, worst_case
from .outcome import Moved, Outcome, Waiting
from .telemetry import doing, tell_queued

log = logger(__name__)

PIECE_BYTES = 1 << 20
SLOWEST_BYTES_A_S = 100_000
"""The slowest line that shards get through; a successor waits so much longer for a process that died sending."""


def submit(ports: Ports, job: Job, shard: Shard) -> Outcome:
    """Begin an attempt at a sealed shard: intent, upload, create, id."""
    plan, now = shard.plan, ports.clock.now()
    if shard.not_before_utc and now < shard.not_before_utc:
        return Waiting(shard.not_before_utc, f"waits for its turn at {plan.provider}")
    trouble = ports.ledger.account_trouble(plan.ref.run, plan.provider, plan.connection)
    if trouble:
        return _hold(ports, shard, Reason.ACCOUNT, trouble)
    provider = ports.provider(plan.provider, plan.connection)
    try:
        attempt = ports.ledger.begin(_intent(ports, job, shard, provider, now), now=now)
    except AccountTrouble as error:
        return _hold(ports, shard, Reason.ACCOUNT, str(error))
    except BudgetExceeded as error:
        return _hold(ports, shard, Reason.BUDGET, str(error))
    except BudgetTaken as wait:
        ports.ledger.note_waiting(plan.ref, wait.reason, now=now)
        return Waiting(min(wait.until, now + timedelta(seconds=ports.settings.poll_to_s)), wait.reason)
    except QueueTooSmall as error:
        return _hold(ports, shard, Reason.QUEUE, str(error))
    except MustWait as wait:
        return Waiting(wait.until, wait.reason)
    except StaleAttempt:
        return Moved()
    tell_queued(ports, shard, attempt)
    with doing(ports, "submit", shard):
        return _Sending(ports, job, shard, attempt, provider).go()


def _intent(ports: Ports, job: Job, shard: Shard, provider: Provider, now: datetime) -> Intent:
    settings = ports.settings
    upload_s = min(shard.plan.size_bytes / SLOWEST_BYTES_A_S, settings.request_timeout_s)
    return Intent(
        ref=shard.plan.ref,
        expected_attempts=shard.attempts,
        provider=shard.plan.provider,
        account=provider.account(),
        reserve_usd=worst_case(ports, job, shard.plan),
        day=day_of(job, now),
        # What must be uploaded first gets the time that its bytes need; else a slow line would send it for ever.
        send_for=timedelta(seconds=settings.send_deadline_s + upload_s),
        certain_after=timedelta(seconds=settings.request_timeout_s + settings.listing_lag_s),
        distinct_rows=provider.found_by == "count",
        budgets=budgets_of(job, ports.ledger.run(shard.plan.ref.run), provider),
        ask=Ask(
            rules=provider.queue,
            priority=job.priority,
            look_from=timedelta(seconds=settings.poll_from_s),
            look_to=timedelta(seconds=max(settings.poll_from_s, settings.poll_to_s)),
        ),
    )


def label_of(ports: Ports, attempt: Attempt) -> Label:
    """Give what the attempt's batch says of itself at the vendor."""
    ref = attempt.ref
    return Label(
        ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard, attempt.number, attempt.content_sha256
    )


class _TooLate(Exception):
    """The send deadline has passed, and nothing was made."""


@dataclass(frozen=True)
class _Sending:
    """One attempt on its way out. Whatever the vendor certainly did not make ends the attempt at once."""

    ports: Ports
    job: Job
    shard: Shard
    attempt: Attempt
    provider: Provider

    def go(self) -> Outcome:
        file_id: str | None = None
        try:
            # Not before the shard has its place: one that waits for hours must not read its file at every look.
            _check_content(self.ports.store, self.shard)
            file_id = self._upload()
            if file_id:
                self.ports.ledger.note_file(self.attempt.attempt_id, file_id)
            self.ports.ledger.note_sending(self.attempt.attempt_id)
            self._check_time()
            state = self._create(file_id)
        except _TooLate:
            wait_s = self.ports.settings.poll_from_s
            return self._end("absent", "slept past its send deadline", file_id, wait_s=wait_s)
        except StaleAttempt:
            withdraw(self.provider, file_id)
            return Moved()
        except PlanChanged as changed:
            self._end("absent", str(changed), file_id)
            raise
        except CreateUnclear as unclear:
            until = self.ports.clock.now() + timedelta(seconds=min(5.0, self.ports.settings.poll_from_s))
            reason = f"asks {self.provider.name} whether a lost create succeeded ({unclear.cause})"
            return Waiting(until, reason, away=str(unclear))
        except QueueFull as full:
            return self._end_full(full, file_id)
        except ProviderBusy as busy:
            wait_s = busy.retry_after_s or self._pause_s()
            self._end("refused", str(busy), file_id, wait_s=wait_s)
            return Moved(away=str(busy))
        except AccountTrouble as trouble:
            return self._end("refused", str(trouble), file_id, hold=Reason.ACCOUNT)
        except RequestRefused as refused:
            return self._end("refused", str(refused), file_id, hold=Reason.REQUEST_REFUSED)
        return self._keep(state)

    def _keep(self, state: BatchState) -> Outcome:
        with about(batch=state.batch_id):
            try:
                if keep_id(self.ports, self.shard, self.attempt, state):
                    log.error("submit: %s", late_words(self.attempt))
            except StaleAttempt as stale:
                self._note_double(state, stale)
                return Moved()
            log.info("submit: %s rows sent, attempt %d", f"{self.attempt.rows:,}", self.attempt.number)
        return Moved()

    def _note_double(self, state: BatchState, stale: StaleAttempt) -> None:
        """Write down that a batch was made too late; `steps/double.py` cancels, tells and books it."""
        log.error("submit: this batch was made too late, and may be billed beside another one: %s", stale)
        try:
            self.ports.ledger.note_double(self.attempt.attempt_id, state, now=self.ports.clock.now())
        except StaleAttempt as owner:
            log.info("submit: the batch is not made twice: %s", owner)

    def _upload(self) -> str | None:
        plan = self.shard.plan
        name = f"{run_code(plan.ref.run)}-{plan.ref.name}-a{self.attempt.number}.jsonl"
        pieces = _pieces(self.ports.store, plan.requests_name)
        return self.provider.upload(pieces, size_bytes=plan.size_bytes, name=name)

    def _create(self, file_id: str | None) -> BatchState:
        plan = self.shard.plan
        return self.provider.create(
            file_id=file_id,
            lines=self._in_time(_pieces(self.ports.store, plan.requests_name)),
            endpoint=self.job.request_spec(plan.choice).endpoint,
            label=label_of(self.ports, self.attempt),
        )

    def _pause_s(self) -> float:
        """Leave a vendor that is away for hours alone for longer at each try: a try may cost the start of a worker."""
        settings = self.ports.settings
        return min(
            settings.poll_from_s * 2.0 ** min(self.shard.attempts, 10), max(settings.poll_from_s, settings.poll_to_s)
        )

    def _check_time(self) -> None:
        """Raise _TooLate past the send deadline: a successor may have asked the vendor already, and found nothing."""
        if self.ports.clock.now() >= self.attempt.send_deadline_utc:
            raise _TooLate

    def _in_time(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Break a create call off that outlives its deadline on the way; a body that never ended is no request."""
        for piece in pieces:
            self._check_time()
            yield piece
        self._check_time()

    def _end(
        self,
        outcome: Literal["absent", "refused"],
        reason: str,
        file_id: str | None,
        *,
        wait_s: float = 0,
        hold: Reason | None = None,
    ) -> Outcome:
        now = self.ports.clock.now()
        retry_at = now + timedelta(seconds=wait_s) if wait_s else None
        log.info("submit: not sent, %s: %s", outcome, reason)
        if hold is not None:
            _warn_held(self.shard, hold)
        self.ports.ledger.end_attempt(
            self.attempt.attempt_id,
            outcome,
            reason=reason[:500],
            retry_at=retry_at,
            # In the same commit: a shard that is sealed for a moment is sent again by whoever comes then.
            hold=hold.value if hold is not None else "",
            now=now,
        )
        withdraw(self.provider, file_id)
        return Moved()

    def _end_full(self, full: QueueFull, file_id: str | None) -> Outcome:
        log.info("submit: not sent: %s", full)
        wait = timedelta(seconds=self.ports.settings.queue_wait_s)
        self.ports.ledger.end_full(
            self.attempt.attempt_id,
            self.provider.queue,
            reason=str(full)[:500],
            wait=wait,
            now=self.ports.clock.now(),
        )
        withdraw(self.provider, file_id)
        return Moved()


def withdraw(provider: Provider, file_id: str | None) -> None:
    """Delete a request file that no batch was made of: a shard that waits its turn would pile them up."""
    if file_id:
        try:
            provider.withdraw(file_id)
        except NightbatchError as error:
            log.warning("submit: file %s stays at %s: %s", file_id, provider.name, error)


def _hold(ports: Ports, shard: Shard, reason: Reason, problem: str) -> Outcome:
    _warn_held(shard, reason)
    ports.ledger.hold(shard.plan.ref, reason.value, problem=problem, now=ports.clock.now())
    return Moved()


def _warn_held(shard: Shard, reason: Reason) -> None:
    log.warning("submit: %s rows are not sent and stay pending: %s", f"{shard.plan.rows:,}", reason)


def _pieces(store: Store, name: str) -> Iterator[bytes]:
    with store.reader(name) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _check_content(store: Store, shard: Shard) -> None:
    """Refuse to send anything but what was sealed."""
    sha = hashlib.sha256()
    try:
        for piece in _pieces(store, shard.plan.requests_name):
            sha.update(piece)
    except FileNotFoundError as error:
        name = store.uri(shard.plan.requests_name)
        raise PlanChanged(name, sealed=shard.plan.content_sha256, found="(no file)") from error
    if sha.hexdigest() != shard.plan.content_sha256:
        name = store.uri(shard.plan.requests_name)
        raise PlanChanged(name, sealed=shard.plan.content_sha256, found=sha.hexdigest())
