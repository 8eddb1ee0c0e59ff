"""What the benches of OpenAI and Anthropic share: an emulator, and short ways to run a shard on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import count
from typing import Any, ClassVar

import httpx

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import Label, run_code
from nightbatch.core.request import Messages, RequestSpec
from nightbatch.core.result import Result
from nightbatch.emulator import Account, EmulatorSettings, running
from nightbatch.ports import Connection, Provider
from nightbatch.steps.lanes import body_of

KEY, NEXT_KEY = "sk-bench-one", "sk-bench-two"
ACCOUNTS = (Account(KEY, "org-bench", "night"), Account(NEXT_KEY, "org-bench", "night"))


@dataclass(frozen=True)
class Shard:
    """Lines that are sent together, and what they say of themselves."""

    label: Label
    lines: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all lines."""
        return sum(map(len, self.lines))

    @property
    def custom_ids(self) -> set[str]:
        """What every row is called."""
        return {f"{self.label.prefix}{row}" for row in range(len(self.lines))}


class EmulatedBench:
    """A provider plus a stub of its vendor. Close it with `close`."""

    name: ClassVar[str]
    spec: ClassVar[RequestSpec]
    version_path: ClassVar[str] = ""
    """What the vendor's SDK wants behind the address."""
    unknown_status: ClassVar[dict[str, Any]]
    """A batch in a state that nobody has ever seen."""
    just_now: ClassVar[dict[str, Any]]
    """The same, newer than anything that is looked for."""

    def __init__(self, **settings: Any) -> None:
        self._open = ExitStack()
        self.numbers = count()
        self.url = self._open.enter_context(running(EmulatorSettings(accounts=ACCOUNTS, **settings)))

    def close(self) -> None:
        """Stop the stub."""
        self._open.close()

    def connection(self, *, key: str = KEY, faults: str = "", url: str = "", **extra: Any) -> Connection:
        """Describe the way to the stub; faults go with every request over it."""
        headers = {"X-Emulator-Faults": faults} if faults else {}
        host = (url or self.url) + self.version_path
        return Connection("bench", self.name, host=host, password=key, extra={"default_headers": headers, **extra})

    def provider(self, *, request_timeout_s: float = 10.0, **connection: Any) -> Provider:
        """Open the provider."""
        return self.opened(self.connection(**connection), request_timeout_s)

    def opened(self, connection: Connection, request_timeout_s: float = 10.0) -> Provider:
        """Open the provider over another connection."""
        raise NotImplementedError

    def on(self, transport: Any, *, request_timeout_s: float = 10.0) -> Provider:
        """Open the provider over a transport that plays the vendor inside this process."""
        import httpx2

        provider = self.provider(request_timeout_s=request_timeout_s)
        client_module = import_module(f"nightbatch.adapters.providers.{self.name}_client")
        calls = client_module.open_calls(
            self.connection(),
            base_url=self.url + self.version_path,
            key=KEY,
            request_timeout_s=request_timeout_s,
            http_client=httpx2.Client(transport=transport),
        )
        provider.__dict__["_calls"] = calls
        return provider

    def shard(self, rows: int = 3, *, run: str = "job/window/g1", attempt: int = 1, words: str = "hello") -> Shard:
        """Make a shard; the same arguments give the same bytes."""
        label = Label("0" * 32, run_code(run), 0, 0, attempt, "f" * 64)
        encoder = self.provider().encoder(self.spec)
        lines = [
            encoder.envelope.line(f"{label.prefix}{row}", body_of(encoder, Messages("", f"{words} {row}")))
            for row in range(rows)
        ]
        return Shard(label, tuple(lines))

    def create(self, provider: Provider, shard: Shard) -> BatchState:
        """Upload where there are files, then create."""
        file_id = provider.upload(iter(shard.lines), size_bytes=shard.size_bytes, name="r0-s000.jsonl")
        return self.create_from(provider, shard, file_id)

    def create_from(self, provider: Provider, shard: Shard, file_id: str | None) -> BatchState:
        """Create from what was uploaded."""
        return provider.create(file_id=file_id, lines=iter(shard.lines), endpoint=self.spec.endpoint, label=shard.label)

    def found(self, provider: Provider, shard: Shard, **changed: Any) -> list[str]:
        """Name the batches that may be this shard's, created about now."""
        label, now = replace(shard.label, **changed), datetime.now(UTC)
        span = timedelta(minutes=1)
        states = provider.find(label, rows=len(shard.lines), since=now - span, until=now + span)
        return [state.batch_id for state in states]

    def ended(self, provider: Provider, batch_id: str, *, within_s: float = 20.0) -> BatchState:
        """Look until the batch has ended; fails loudly when it does not."""
        gives_up = time.monotonic() + within_s
        while (state := provider.poll(batch_id)).status is not BatchStatus.ENDED:
            if time.monotonic() > gives_up:
                raise TimeoutError(f"{batch_id} is still {state.vendor_status}")
            time.sleep(0.02)
        return state

    def rows(self, provider: Provider, state: BatchState) -> Iterator[tuple[str, Result]]:
        """Read every result, with the name of the file it stood in."""
        for file in provider.results(state):
            for line in b"".join(file.chunks).split(b"\n"):
                if line.strip():
                    yield file.name, provider.parse(line)

    def creations(self) -> int:
        """Ask the stub how many batches it was told to make, and made."""
        reply = httpx.get(f"{self.url}/emulator/state", headers={"Authorization": f"Bearer {KEY}"}, timeout=10)
        batches: list[Mapping[str, Any]] = reply.raise_for_status().json()["batches"]
        return sum(batch["vendor"] == self.name for batch in batches)
