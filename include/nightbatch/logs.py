"""Log lines that say what they are about: the job, run, shard and batch stand at the head of every line of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_ids: ContextVar[dict[str, str] | None] = ContextVar("nightbatch_log_ids", default=None)


@contextmanager
def about(**ids: str | None) -> Iterator[None]:
    """Put ids before every line that is logged inside the block, after those of the blocks around it."""
    token = _ids.set({**(_ids.get() or {}), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _ids.reset(token)


def ids_text() -> str:
    """Give what the current work is about: `[job=reviews run=… shard=r0-s003 batch=batch_7] `, or nothing."""
    ids = _ids.get()
    return f"[{' '.join(f'{name}={value}' for name, value in ids.items())}] " if ids else ""


class _Log(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the ids into the line itself, so that they are there in Airflow's logs too."""
        # A vendor's id might hold a %, which would be read as the place of an argument.
        return f"{ids_text().replace('%', '')}{msg}", kwargs


def logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Give the logger of a module; its lines begin with the ids of the work that they are about."""
    return _Log(logging.getLogger(name), {})
