"""How a task fails: what happened, where people look for it, in lines that they can read there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap

from airflow.sdk.exceptions import AirflowFailException

from nightbatch.errors import NightbatchError, Terminal
from nightbatch.logs import logger

log = logger(__name__)

LOG_WIDTH = 100
"""Characters of a line that Airflow's page of logs shows beside the grid, on a screen of 1,440 pixels."""


@contextmanager
def airflow_failures() -> Iterator[None]:
    """
    Say what went wrong where people look for it, and end what no retry can mend at once.

    Airflow's page does not break long lines and shows the stack below the message, so we break ours, and leave out
    the stack of what was raised on purpose: it tells of our code, where the reader wants to know of the run.
    """
    try:
        yield
    except NightbatchError as error:
        log.error("%s", "\n".join(_lines(str(error))))
        if isinstance(error, Terminal):
            raise AirflowFailException(str(error)) from None
        raise


def _lines(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from wrap(paragraph, LOG_WIDTH, break_long_words=False, break_on_hyphens=False, drop_whitespace=True) or [
            ""
        ]
