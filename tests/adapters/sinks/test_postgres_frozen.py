"""A process that is frozen inside a transaction loses it, and that is no fault of the table."""

from __future__ import annotations

import psycopg
import pytest

from nightbatch.adapters.postgres_connection import translated
from nightbatch.errors import BadSink, StorageUnavailable


def test_a_transaction_that_was_ended_for_its_silence_is_tried_again() -> None:
    with pytest.raises(StorageUnavailable), translated("a table", BadSink):
        raise psycopg.errors.IdleInTransactionSessionTimeout("terminating connection")
