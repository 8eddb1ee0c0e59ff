"""Every kind of message has its words, and every word its kind."""

from __future__ import annotations

from tests import messages

from nightbatch.adapters.notifiers.wording import KINDS, URGENCY
from nightbatch.steps.tell import OCCASIONS


def test_every_kind_of_message_is_announced_and_belongs_to_an_occasion() -> None:
    assert set(KINDS) == set(OCCASIONS) | {"over", "untold"} == set(messages.KINDS)
    assert set(URGENCY) <= set(messages.KINDS)
