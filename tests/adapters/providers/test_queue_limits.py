"""What may wait at a vendor: its defaults, replaced word by word by what a connection says."""

from __future__ import annotations

from typing import Any

import pytest

from nightbatch.adapters import registry
from nightbatch.adapters.providers.queue_limits import WORDS
from nightbatch.core.queue import Kind, Limit
from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection, Provider


def opened(name: str, **extra: Any) -> Provider:
    return registry.open_provider(name, Connection("c", name, password="k", extra=extra), request_timeout_s=1)


def test_every_provider_has_the_defaults_of_its_documentation() -> None:
    found = {name: opened(name).queue for name in registry.PROVIDERS}

    assert {name: rules.limits for name, rules in found.items()} == {
        "openai": (Limit(Kind.CREATIONS, 2_000),),
        "anthropic": (Limit(Kind.ROWS, 200_000),),
    }
    assert {name: (rules.full_by, rules.full_by_model) for name, rules in found.items()} == {
        "openai": (Kind.TOKENS, True),
        "anthropic": (Kind.ROWS, False),
    }


def test_a_connection_replaces_a_default_by_its_word_and_leaves_the_others() -> None:
    queue = {"tokens": {"gpt-5-mini*": 2_000_000, "gpt-5": 90_000}, "batches": 100}

    assert opened("openai", queue=queue).queue.limits == (
        Limit(Kind.CREATIONS, 2_000),
        Limit(Kind.TOKENS, 2_000_000, "gpt-5-mini*"),
        Limit(Kind.TOKENS, 90_000, "gpt-5"),
        Limit(Kind.BATCHES, 100),
    )
    assert opened("anthropic", queue={"requests": 500_000}).queue.limits == (Limit(Kind.ROWS, 500_000),)
    assert opened("anthropic", queue={"requests": None}).queue.limits == ()


@pytest.mark.parametrize(
    ("queue", "problem"),
    [
        ({"token": 1}, "queue takes tokens, requests, batches, creations_per_hour"),
        ([1], "queue takes"),
        ({"tokens": {"gpt-5": "many"}}, "queue.tokens.gpt-5 is 'many', and no number above 0"),
        ({"batches": 0}, "queue.batches is 0"),
        ({"batches": True}, "queue.batches is True"),
    ],
)
def test_a_limit_that_cannot_be_read_is_told_and_not_passed_over(queue: Any, problem: str) -> None:
    with pytest.raises(ConnectionInvalid, match=problem) as error:
        opened("openai", queue=queue)

    assert "null is no limit" in str(error.value)


def test_every_kind_has_a_word() -> None:
    assert set(WORDS.values()) == set(Kind)
