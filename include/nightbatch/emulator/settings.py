"""What an emulator can be told before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightbatch.emulator.clock import DAY_S
from nightbatch.emulator.faults import Faults

Vendor = Literal["openai", "anthropic"]

DEFAULT_KEY = "sk-emulator"
"""The key that works when nobody has configured another one."""


@dataclass(frozen=True, slots=True)
class Account:
    """One API key, and whose batches and files it may see."""

    key: str
    organization: str = "org-emulator"
    workspace: str = "default"

    @property
    def scope(self) -> str:
        """Name what this key shares with all other keys of its workspace."""
        return f"{self.organization}/{self.workspace}"

    @classmethod
    def parse(cls, text: str) -> Account:
        """Read `KEY`, `KEY=ORGANISATION` or `KEY=ORGANISATION/WORKSPACE`."""
        key, _, owner = text.partition("=")
        organization, _, workspace = owner.partition("/")
        return cls(key, organization or cls("").organization, workspace or cls("").workspace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The vendors' own limits; tests may lower them.

    Sources: the types and texts of openai 3.54.0 (rows, file bytes, embedding inputs, metadata) and
    platform.claude.com/docs/en/build-with-claude/batch-processing (copy of 2026-09-20).
    """

    openai_rows: int = 50_000
    openai_batch_file_bytes: int = 200_000_000
    openai_upload_bytes: int = 512_000_000
    openai_embedding_inputs: int = 50_000
    anthropic_rows: int = 100_000
    anthropic_body_bytes: int = 256_000_000
    real_time_body_bytes: int = 32_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """Everything an emulator can be told; the defaults answer at once and without any fault.

    Attributes:
        seed: Decides every fault and every invented value.
        accounts: The keys that are let in. Keys of one organisation and workspace share their batches.
        host: Address to bind. Loopback by default: the emulator has no encryption.
        port: TCP port; 0 takes a free one.
        data_dir: Where request and result files go. Without one, a temporary folder that is removed at the end.
        executor: Who answers a row: `auto`, `echo`, `sentiment`, `topics` or `upstream`.
        upstream_url: Base URL (with `/v1`) of an OpenAI-compatible endpoint, for `executor="upstream"`.
        upstream_key_env: Name of the environment variable that holds the key for `upstream_url`.
        upstream_concurrency: Rows under way at the same time at `upstream_url`.
        batch_seconds: How long a batch is in progress.
        validate_seconds: How long an OpenAI batch is validating.
        cancel_seconds: How long a batch is cancelling.
        window_seconds: The vendors' completion window; a batch that needs longer expires.
        speed: Divides the four durations above and `late_seconds`; timestamps stay those of the wall clock.
        faults: What goes wrong from the start.
        enqueued_token_limit: Prompt tokens one model may have waiting in one workspace (OpenAI); None is no limit.
        enqueued_token_limits: The same by model name; wins over `enqueued_token_limit`.
        over_limit_at: Whether too many enqueued tokens fail the batch after `validation` or its `create` call.
        queued_request_limit: Requests one workspace may have waiting in batches (Anthropic); None is no limit.
        cached_tokens_share: Share of the input tokens that is reported as read from the cache.
        models: The names that `/v1/models` lists. Other names are answered too, except those that begin
            with `no-such-`.
        limits: Sizes and counts that are refused.
        workers: Threads that validate and execute batches.
        instance: Goes into every id. Random by default, so that ids of a restarted emulator do not repeat.
    """

    seed: int = 0
    accounts: tuple[Account, ...] = (Account(DEFAULT_KEY),)
    host: str = "127.0.0.1"
    port: int = 0
    data_dir: Path | None = None
    executor: str = "auto"
    upstream_url: str = ""
    upstream_key_env: str = "UPSTREAM_API_KEY"
    upstream_concurrency: int = 8
    batch_seconds: float = 0.0
    validate_seconds: float = 0.0
    cancel_seconds: float = 0.0
    window_seconds: float = DAY_S
    speed: float = 1.0
    faults: Faults = field(default_factory=Faults)
    enqueued_token_limit: int | None = None
    enqueued_token_limits: Mapping[str, int] = field(default_factory=dict)
    over_limit_at: Literal["validation", "create"] = "validation"
    queued_request_limit: int | None = None
    cached_tokens_share: float = 0.0
    models: tuple[str, ...] = ("gpt-5-mini", "text-embedding-3-small", "claude-sonnet-4-6")
    limits: Limits = field(default_factory=Limits)
    workers: int = 2
    instance: str = ""

    def real_seconds(self, emulated_seconds: float) -> float:
        """Say how long something takes on the wall clock."""
        return emulated_seconds / self.speed

    def token_limit(self, model: str) -> int | None:
        """Say how many prompt tokens may wait for a model, or None for any number."""
        return self.enqueued_token_limits.get(model, self.enqueued_token_limit)
