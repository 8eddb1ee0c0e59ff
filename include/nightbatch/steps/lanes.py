"""What the steps need to know of a lane: its provider, its encoder, its limits and its prices."""

from __future__ import annotations

import logging
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime

from nightbatch.core.escape import json_string
from nightbatch.core.experience import Experience
from nightbatch.core.money import ZERO, Price, Rate
from nightbatch.core.queue import Kind
from nightbatch.core.request import Endpoint, Messages, RequestSpec
from nightbatch.core.shard import Limits
from nightbatch.errors import ConnectionInvalid, JobInvalid, Problem
from nightbatch.job import Job
from nightbatch.ports import Encoder, Ports, Prices, Provider

log = logging.getLogger(__name__)

FREE = Rate(ZERO, ZERO, ZERO, ZERO, "unknown price, counted as nothing")


@dataclass(frozen=True)
class OpenLane:
    """One model of a job, ready to encode for."""

    choice: int
    name: str
    connection: str
    provider: Provider
    spec: RequestSpec
    encoder: Encoder
    limits: Limits
    rate: Rate
    realtime: Rate
    price_note: str
    experience: Experience = Experience()
    """What bills taught, for what is expected of a shard."""
    prompt_version: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """Give what is asked of the model."""
        return self.spec.endpoint


def body_of(encoder: Encoder, messages: Messages) -> bytes:
    """Encode one request's body. Raises ValueError for a text that has no UTF-8 form."""
    return encoder.frame(messages.system).body(json_string(messages.user))


def open_lane(ports: Ports, job: Job, choice: int, *, max_output_tokens: int | None = None) -> OpenLane:
    """Open the lane of the job's model number `choice`; `max_output_tokens` replaces the job's own cap."""
    model = job.models[choice]
    provider = ports.provider(model.provider, model.connection)
    spec = job.request_spec(choice, max_output_tokens=max_output_tokens)
    price = known_price(ports.prices, job, choice, at=ports.clock.now())
    return OpenLane(
        choice=choice,
        name=model.provider,
        connection=model.connection,
        provider=provider,
        spec=spec,
        encoder=provider.encoder(spec),
        limits=_limits(provider, job, model.model),
        rate=price.batch or FREE,
        realtime=price.realtime or FREE,
        price_note=price.note,
        prompt_version=job.prompt_version,
    )


def packing_lane(ports: Ports, job: Job, choice: int, *, max_output_tokens: int | None = None) -> OpenLane:
    """
    Open a lane with what bills have taught, to pack shards for.

    Raises JobInvalid where the account's budget could not be kept: told before anything is sent, also of the models
    that later rounds may ask. What was sent is collected all the same.
    """
    for other in range(len(job.models)) if choice == 0 else (choice,):
        with suppress(ConnectionInvalid) if other != choice else nullcontext():
            account_price(ports, job, other)
    lane = open_lane(ports, job, choice, max_output_tokens=max_output_tokens)
    if lane.rate is FREE:
        log.warning("%s: what %s costs will be booked as 0 USD: %s", job.name, lane.spec.model, lane.price_note)
    return replace(lane, experience=ports.ledger.experience(job.name, lane.name, lane.spec.model))


def account_price(ports: Ports, job: Job, choice: int) -> Price:
    """Give the price of a model. Raises JobInvalid where its account has a budget, and price or cap are not known."""
    model = job.models[choice]
    has_budget = ports.provider(model.provider, model.connection).budget_month_usd is not None
    spec = job.request_spec(choice)
    if has_budget and spec.max_output_tokens is None and spec.endpoint is not Endpoint.EMBEDDINGS:
        problem = "the account has a budget, and it cannot be kept without a cap on output tokens"
        remedy = "Set max_output_tokens, like 300."
        raise JobInvalid(job.name, [Problem(f"models.{choice}.max_output_tokens", problem, remedy)])
    return known_price(ports.prices, job, choice, at=ports.clock.now(), has_budget=has_budget)


def _limits(provider: Provider, job: Job, model: str) -> Limits:
    """Give the vendor's limits, narrowed so that a shard leaves room for others in the queue, and by the job's own."""
    queue = provider.queue
    limits = provider.limits.within_queue(rows=queue.most(Kind.ROWS, model), tokens=queue.most(Kind.TOKENS, model))
    return limits.narrowed(max_rows=job.shard.max_rows, max_bytes=job.shard.max_bytes)


def known_price(prices: Prices, job: Job, choice: int, *, at: datetime, has_budget: bool = False) -> Price:
    """
    Give the price of a model; where a budget is to be kept it must be known, since a wall of unknown height is none.

    `has_budget` says whether the account has one, beside those of the job.
    """
    model = job.models[choice]
    price = prices.price(model.provider, model.model, at=at)
    if price.batch is None and (job.budget_keys or has_budget):
        key = job.budget_keys[0] if job.budget_keys else "the account's budget_month_usd"
        problem = Problem(
            f"models.{choice}.model",
            f"the batch price of {model.provider} {model.model} is not known ({price.note or 'no entry'}), "
            f"so {key} cannot be kept",
            "Add the price to the file that NIGHTBATCH_PRICES names (docs/providers.md), or remove the budget.",
        )
        raise JobInvalid(job.name, [problem])
    return price
