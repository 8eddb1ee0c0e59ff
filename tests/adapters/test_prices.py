"""Prices are known, with their source, or they are said to be unknown; they are never guessed."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from nightbatch.adapters.prices import GenaiPrices
from nightbatch.core.money import Usage
from nightbatch.errors import JobInvalid

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

ROW = """
- {provider: openai, model: "%s", mode: %s, input: "%s", output: "4", valid_from: %s, source: the contract}
"""


def table(tmp_path, *rows: str):
    path = tmp_path / "overrides.yaml"
    path.write_text("".join(rows) or "[]")
    return GenaiPrices(bundled=path)


def test_a_batch_rate_and_its_real_time_rate_are_exact(tmp_path):
    price = table(tmp_path).price("openai", "gpt-5-mini", at=NOW)

    assert (price.batch.input_usd, price.batch.cached_usd) == (Decimal("0.125"), Decimal("0.0125"))
    assert price.realtime.output_usd == Decimal(2)
    assert price.batch.cost_usd(Usage(1_000_000, 0, 0, 1_000_000)) == Decimal("1.125")
    assert "genai-prices" in price.batch.source
    assert price.note == ""


def test_the_hour_long_cache_write_is_what_anthropic_bills(tmp_path):
    price = table(tmp_path).price("anthropic", "claude-sonnet-4-6", at=NOW)

    assert (price.batch.cache_write_usd, price.batch.cached_usd) == (Decimal(3), Decimal("0.15"))


@pytest.mark.parametrize(
    ("provider", "model", "at"),
    [
        ("openai", "text-embedding-3-small", NOW),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", NOW),
        ("openai", "gpt-5-mini", NOW - timedelta(days=60)),
    ],
)
def test_the_full_price_in_silence_is_found_out(tmp_path, provider, model, at):
    """Asked for a batch rate it lacks, genai-prices answers the real-time rate without a word."""
    price = table(tmp_path).price(provider, model, at=at)

    assert price.batch is None
    assert price.realtime is not None
    assert model in price.note
    assert "NIGHTBATCH_PRICES" in price.note


@pytest.mark.parametrize("provider", ["openai", "no-such-vendor"])
def test_an_unknown_model_has_no_price(tmp_path, provider):
    price = table(tmp_path).price(provider, "no-such-model", at=NOW)

    assert (price.batch, price.realtime) == (None, None)
    assert "no-such-model" in price.note


def test_an_override_gives_what_is_missing_and_the_rest_stays(tmp_path):
    prices = table(tmp_path, ROW % ("text-embedding-*", "batch", "0.01", "2026-01-01"))

    price = prices.price("openai", "text-embedding-3-small", at=NOW)

    assert (price.batch.input_usd, price.batch.cached_usd) == (Decimal("0.01"), Decimal("0.01"))
    assert price.batch.source == "the contract (override from 2026-01-01)"
    assert price.realtime.input_usd == Decimal("0.02")
    assert price.note == ""


def test_the_most_exact_then_the_latest_row_in_force_wins(tmp_path):
    prices = table(
        tmp_path,
        ROW % ("gpt-*", "batch", "1", "2026-11-01"),
        ROW % ("gpt-5-mini", "batch", "2", "2026-01-01"),
        ROW % ("gpt-5-mini", "batch", "3", "2026-06-01"),
        ROW % ("gpt-5-mini", "batch", "9", "2027-01-01"),
    )

    assert prices.price("openai", "gpt-5-mini", at=NOW).batch.input_usd == 3
    assert prices.price("openai", "gpt-5-nano", at=NOW).batch.input_usd == 1
    assert prices.price("anthropic", "gpt-5-mini", at=NOW).batch is None


def test_a_bad_table_is_told_whole(tmp_path):
    with pytest.raises(JobInvalid) as told:
        table(
            tmp_path,
            ROW % ("a", "batch", "cheap", "2026-01-01"),
            ROW % ("a", "nightly", "1", "2026-01-01"),
            "- {provider: openai, model: a, mode: batch, input: 0.1, output: '1', valid_from: 2026-01-01, source: x}\n",
            "- {provider: openai}\n",
            "- {provider: openai, modell: a}\n",
        )

    assert len(told.value.problems) == 5


def test_the_table_that_ships_is_good():
    price = GenaiPrices().price("openai", "text-embedding-3-small", at=NOW)

    assert price.batch.input_usd == Decimal("0.01")
    assert "50 %" in price.batch.source


def test_the_network_is_never_asked(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a price asked the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)

    assert table(tmp_path).price("openai", "gpt-5", at=NOW).batch is not None


def test_a_second_question_of_the_day_is_answered_from_memory(tmp_path):
    prices = table(tmp_path)

    first = prices.price("openai", "gpt-5", at=NOW)

    assert prices.price("openai", "gpt-5", at=NOW + timedelta(hours=3)) is first
