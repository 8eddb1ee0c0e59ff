"""What a task's log says of an error that was raised on purpose: on Airflow's page, nothing runs off the screen."""

from __future__ import annotations

import logging

import pytest
from airflow.sdk.exceptions import AirflowFailException

from nightbatch.errors import JobInvalid, Problem, ProviderBusy
from nightbatch.orchestration.failures import LOG_WIDTH, airflow_failures


def test_a_terminal_error_is_told_in_short_lines_and_ends_the_task_without_our_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = JobInvalid("night.yaml", [Problem("models", "word " * 60, "Mend it."), Problem("sink", "bad", "Mend it.")])
    with caplog.at_level(logging.ERROR), pytest.raises(AirflowFailException) as failed, airflow_failures():
        raise error

    [told] = caplog.messages
    assert told.split() == str(error).split()
    assert max(len(line) for line in told.splitlines()) <= LOG_WIDTH
    assert str(failed.value) == str(error)
    assert failed.value.__suppress_context__


def test_a_transient_error_is_told_and_left_to_airflows_retries(caplog: pytest.LogCaptureFixture) -> None:
    error = ProviderBusy("openai", "polling", cause="503")
    with caplog.at_level(logging.ERROR), pytest.raises(ProviderBusy) as raised, airflow_failures():
        raise error

    assert raised.value is error
    assert caplog.messages == [str(error)]
