"""
Log lines that say what they are about: the job, run, shard and batch stand at the end of every line of a run.

At the end, since people read the beginning: a page of Airflow shows the first hundred letters of a line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_ids: ContextVar[dict[str, str] | None] = ContextVar("nightbatch_log_ids", default=None)


@contextmanager
def about(**ids: str | None) -> Iterator[None]:
    """Put ids after every line that is logged inside the block, after those of the blocks around it."""
    token = _ids.set({**(_ids.get() or {}), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _ids.reset(token)


def ids_text() -> str:
    """Give what the current work is about: ` [job=reviews run=… shard=r0-s003 batch=batch_7]`, or nothing."""
    ids = _ids.get()
    return f" [{' '.join(f'{name}={value}' for name, value in ids.items())}]" if ids else ""


class _Log(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the ids into the line itself, so that they are there in Airflow's logs too."""
        # A vendor's id might hold a %, which would be read as the place of an argument.
        return f"{msg}{ids_text().replace('%', '')}", kwargs


def logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Give the logger of a module; its lines end with the ids of the work that they are about."""
    return _Log(logging.getLogger(name), {})


class _NoLineForEachCall(logging.Filter):
    """Leaves out what the SDKs' HTTP clients say of each call of ours, which buries our own lines; not with DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = _ids.get() is not None
        return (
            not is_ours or record.levelno > logging.INFO or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        )


for _client in ("httpx", "httpx2"):
    logging.getLogger(_client).addFilter(_NoLineForEachCall())
