"""Requests are canonical, come back as they went in, and are encoded fast."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden import rewrite

from nightbatch.core.request import Endpoint, Messages, RequestSpec
from nightbatch.steps.lanes import body_of

TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
KINDS = sorted(rewrite.specs())


@pytest.mark.parametrize("name", KINDS)
def test_what_is_sent_is_what_the_golden_file_says(name):
    """Rewrite with `python -m tests.golden.rewrite`, and read the diff: every fingerprint rests on these bytes."""
    assert rewrite.rendered(name) == rewrite.path(name).read_bytes()


@pytest.mark.parametrize("name", KINDS)
@given(system=TEXTS, user=TEXTS)
def test_messages_come_back_as_they_went_in(name, system, user):
    spec, _ = rewrite.specs()[name]
    encoder = rewrite.encoder(spec)
    messages = Messages("" if spec.endpoint is Endpoint.EMBEDDINGS else system, user)

    line = encoder.envelope.line("nb_0_0_0_0_1", body_of(encoder, messages))

    assert encoder.decode(line) == messages
    assert line.endswith(b"\n")
    # No reader, however it splits lines, sees more than one here.
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["custom_id"] == "nb_0_0_0_0_1"


@pytest.mark.parametrize("name", KINDS)
@given(system=TEXTS, user=TEXTS)
def test_no_request_has_fewer_bytes_than_its_texts(name, system, user):
    """The bound on input tokens is a token a byte of the request: no text may be shorter there than it is."""
    spec, _ = rewrite.specs()[name]
    system = "" if spec.endpoint is Endpoint.EMBEDDINGS else system

    body = body_of(rewrite.encoder(spec), Messages(system, user))

    assert len(body) >= len(system.encode()) + len(user.encode())


def test_equal_parameters_in_another_order_make_equal_bytes():
    one, other = (
        rewrite.encoder(RequestSpec(Endpoint.CHAT, "m", max_output_tokens=1, params=params))
        for params in ({"seed": 1, "top_p": 0.5}, {"top_p": 0.5, "seed": 1})
    )

    assert one.frame("s") == other.frame("s")


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES])
@pytest.mark.parametrize("name", ["model", "max_tokens", "stream"])
def test_parameters_cannot_overrule_model_cap_or_delivery(endpoint, name):
    with pytest.raises(ValueError, match=name):
        rewrite.encoder(RequestSpec(endpoint, "m", max_output_tokens=1, params={name: 1}))


def test_half_a_surrogate_pair_is_refused():
    encoder = rewrite.encoder(RequestSpec(Endpoint.CHAT, "m", max_output_tokens=1))

    with pytest.raises(ValueError, match="surrogate"):
        body_of(encoder, Messages("", "\ud800"))


def test_anthropic_needs_a_cap():
    with pytest.raises(ValueError, match="max_output_tokens"):
        rewrite.encoder(RequestSpec(Endpoint.MESSAGES, "m"))


@pytest.mark.parametrize("name", KINDS)
def test_short_rows_are_encoded_fast(name):
    """200,000 rows a second on a quiet core; a tenth of that is asked for, so that a busy machine does not fail it."""
    spec, messages = rewrite.specs()[name]
    encoder, row = rewrite.encoder(spec), messages[0]
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2_000):
            encoder.envelope.line("nb_0_0_0_0_1", body_of(encoder, row))
        best = max(best, 2_000 / (time.perf_counter() - start))

    assert best > 20_000
