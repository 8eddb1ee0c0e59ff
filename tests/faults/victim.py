"""
Makes a process die, or freeze, at a named point: `lay("create reply in flight")`, and then let it run.

A spec is `[freeze ]POINT[ in round N][ #K]`: at the Kth time (the first) that the point is reached in round N (0), the
process kills itself with SIGKILL, or stops itself with SIGSTOP until somebody wakes it. The points wrap the real
adapters and steps from outside; the library knows nothing of this.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import psycopg
import sqlalchemy as sa

from nightbatch import flow
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.notifiers.mail import MailNotifier
from nightbatch.adapters.notifiers.slack import SlackNotifier
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.providers import anthropic, openai
from nightbatch.adapters.sinks.postgres import PostgresSink
from nightbatch.steps import fill, planning, retry, validate, wait

SPEC = re.compile(r"(?P<freeze>freeze )?(?P<point>.+?)(?: in round (?P<round>\d+))?(?: #(?P<nth>\d+))?")


@dataclass
class Fuse:
    """Burns once, at the nth time that its point is reached after its round was sealed."""

    act: Callable[[], None]
    nth: int = 1
    is_armed: bool = True

    def reached(self) -> None:
        """Say that the process is at the point now."""
        if not self.is_armed:
            return
        self.nth -= 1
        if self.nth == 0:
            self.act()


def die() -> None:
    """Be gone at once, as by the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """Stop, as a machine does that is suspended; SIGCONT wakes it."""
    os.kill(os.getpid(), signal.SIGSTOP)


# --- steps ----------------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    "pull": (planning, "pull"),
    "render": (planning, "render"),
    "pack": (planning, "pack"),
    "submit": (flow, "submit"),
    "wait": (flow, "wait"),
    "collect": (wait, "collect"),
    "validate": (flow, "validate"),
    "load": (flow, "load"),
    "discard": (flow, "discard"),
    "retry": (flow, "retry"),
    "settle": (flow, "settle"),
    "tell": (flow, "tell_ending"),
}
"""The ten steps in order, and the telling of the end: where each is called from."""


def around(owner: Any, name: str, *, before: Fuse | None = None, after: Fuse | None = None) -> None:
    """Reach a point when a function is called, or when it has returned."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            before.reached()
        given = real(*args, **kwargs)
        if after:
            after.reached()
        return given

    setattr(owner, name, wrapped)


# --- ledger ---------------------------------------------------------------------------------------------------


def before_commit(method: str, fuse: Fuse) -> None:
    """Reach a point when all statements of a ledger's method are through, and its commit is not."""
    real, inside = getattr(SqlLedger, method), list[str]()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        inside.append(method)
        try:
            return real(*args, **kwargs)
        finally:
            inside.pop()

    setattr(SqlLedger, method, wrapped)
    sa.event.listen(sa.Engine, "commit", lambda _: fuse.reached() if inside else None)


# --- the vendor, over HTTP ------------------------------------------------------------------------------------

CALLS = {
    "upload": ("POST", r"/v1/files"),
    "create": ("POST", r"/v1/(messages/)?batches"),
    "poll": ("GET", r"/v1/(messages/)?batches/[^/]+"),
    "download": ("GET", r"/v1/(files/[^/]+/content|messages/batches/[^/]+/results)"),
}


class Halves(httpx2.SyncByteStream):
    """A body that reaches a point when half of its first piece is through."""

    def __init__(self, stream: Any, fuse: Fuse) -> None:
        self._stream, self._fuse = stream, fuse

    def __iter__(self) -> Iterator[bytes]:
        for number, piece in enumerate(self._stream):
            if number:
                yield piece
                continue
            half = len(piece) // 2
            yield piece[:half]
            self._fuse.reached()
            yield piece[half:]

    def close(self) -> None:
        self._stream.close()


def at_call(call: str, moment: str, fuse: Fuse) -> None:
    """Reach a point at a call to the vendor: before it, half way through a body, or with the reply in flight."""
    method, path = CALLS[call]
    real = httpx2.HTTPTransport.handle_request

    def handle_request(self: Any, request: Any) -> Any:
        if request.method != method or not re.fullmatch(path, request.url.path):
            return real(self, request)
        if moment == "before":
            fuse.reached()
        if moment == "half sent":
            request.stream = Halves(request.stream, fuse)
        reply = real(self, request)
        if moment == "reply":
            # The vendor has done it, and its answer is on this machine; nobody has read it.
            fuse.reached()
        if moment == "half read":
            reply.stream = Halves(reply.stream, fuse)
        return reply

    httpx2.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]


# --- store and sink -------------------------------------------------------------------------------------------


def half_parquet(module: Any, named: str, fuse: Fuse) -> None:
    """Reach a point when a Parquet file has a row and no end."""
    real = module.row_writer

    @contextmanager
    def row_writer(store: Any, name: str, schema: Any, **more: Any) -> Iterator[Any]:
        with real(store, name, schema, **more) as rows:
            if name.rpartition("/")[2].startswith(named):
                half = Fuse(lambda: (rows.flush(), fuse.reached()))  # type: ignore[arg-type]
                around(rows, "add", after=half)
                around(rows, "extend", after=half)
                around(rows, "write", after=half)
            yield rows

    module.row_writer = row_writer


def half_copy(fuse: Fuse) -> None:
    """Reach a point when rows have gone to COPY, and COPY has not ended."""
    around(psycopg.Copy, "write", after=fuse)


def before_sink_commit(method: str, fuse: Fuse) -> None:
    """Reach a point when a merge's statements are through, and its commit is not."""
    transaction, real, inside = PostgresSink._transaction, getattr(PostgresSink, method), list[str]()

    @contextmanager
    def watched(self: Any, **kwargs: Any) -> Iterator[Any]:
        with transaction(self, **kwargs) as database:
            yield database
            if inside:
                fuse.reached()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        inside.append(method)
        try:
            return real(*args, **kwargs)
        finally:
            inside.pop()

    PostgresSink._transaction = watched  # type: ignore[method-assign]
    setattr(PostgresSink, method, wrapped)


def at_note(fuse: Fuse, *, is_written: bool) -> None:
    """Reach a point when the vendor's id is known and in no place, or in the store and not in the ledger."""
    real = ObjectStore.write

    def write(self: Any, name: str, content: bytes, **kwargs: Any) -> bool:
        is_note = name.endswith(".batch")
        if is_note and not is_written:
            fuse.reached()
        given = real(self, name, content, **kwargs)
        if is_note and is_written:
            fuse.reached()
        return given

    ObjectStore.write = write  # type: ignore[method-assign]


# --- all points -----------------------------------------------------------------------------------------------

COMMITS = (
    "open_run", "seal", "begin", "note_file", "note_sending", "note_open", "note_seen", "note_stored",
    "note_collected", "note_loaded", "note_files_deleted", "settle", "record_event", "may_deliver", "note_delivered",
)  # fmt: skip
"""The ledger's commits of an undisturbed run, in the order in which they first happen."""

POINTS: dict[str, Callable[[Fuse], None]] = {
    **{f"before {step}": lambda fuse, at=at: around(*at, before=fuse) for step, at in STEPS.items()},
    "after the last step": lambda fuse: around(flow, "finish", after=fuse),
    **{f"before the commit of {name}": lambda fuse, name=name: before_commit(name, fuse) for name in COMMITS},
    **{f"after the commit of {name}": lambda fuse, name=name: around(SqlLedger, name, after=fuse) for name in COMMITS},
    "mid-upload": lambda fuse: at_call("upload", "half sent", fuse),
    "upload reply in flight": lambda fuse: at_call("upload", "reply", fuse),
    "before the create call": lambda fuse: at_call("create", "before", fuse),
    "mid-create": lambda fuse: at_call("create", "half sent", fuse),
    "create reply in flight": lambda fuse: at_call("create", "reply", fuse),
    "id known, not noted": lambda fuse: at_note(fuse, is_written=False),
    "id in the store, not in the ledger": lambda fuse: at_note(fuse, is_written=True),
    "poll reply in flight": lambda fuse: at_call("poll", "reply", fuse),
    "mid-download": lambda fuse: at_call("download", "half read", fuse),
    "mid-Parquet of a plan": lambda fuse: half_parquet(fill, "index", fuse),
    "mid-Parquet of verdicts": lambda fuse: half_parquet(validate, "verdicts", fuse),
    "mid-Parquet of dead letters": lambda fuse: half_parquet(retry, "dead_letters", fuse),
    "mid-COPY": half_copy,
    "between merge and commit": lambda fuse: before_sink_commit("merge", fuse),
    "between burying and commit": lambda fuse: before_sink_commit("bury", fuse),
    "mail sent, not noted": lambda fuse: around(MailNotifier, "send", after=fuse),
    "Slack told, not noted": lambda fuse: around(SlackNotifier, "send", after=fuse),
}


HABITS: dict[str, Callable[[], None]] = {
    "reads listings in pages of 2": lambda: (setattr(anthropic, "PAGE_ROWS", 2), setattr(openai, "PAGE_ROWS", 2)),  # type: ignore[dict-item, return-value]
}
"""What a process does otherwise than others, without dying of it."""


def lay(spec: str) -> None:
    """Lay a fuse where a spec says, or take a habit on."""
    if spec in HABITS:
        HABITS[spec]()
        return
    found = SPEC.fullmatch(spec)
    if found is None or found["point"] not in POINTS:
        raise ValueError(f"no such point: {spec}")
    fuse, round_ = Fuse(freeze if found["freeze"] else die, int(found["nth"] or 1)), int(found["round"] or 0)
    if round_:
        fuse.is_armed = False
        _arm_when_sealed(fuse, round_)
    POINTS[found["point"]](fuse)


def _arm_when_sealed(fuse: Fuse, round_: int) -> None:
    real = SqlLedger.sealed

    def arm(plan: Any) -> Any:
        fuse.is_armed = fuse.is_armed or (plan is not None and plan.round == round_ and bool(plan.shards))
        return plan

    seal = SqlLedger.seal
    SqlLedger.sealed = lambda *args, **kwargs: arm(real(*args, **kwargs))  # type: ignore[method-assign]
    SqlLedger.seal = lambda *args, **kwargs: arm(seal(*args, **kwargs))  # type: ignore[method-assign]
