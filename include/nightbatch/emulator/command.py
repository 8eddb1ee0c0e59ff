"""`nightbatch emulator serve`: the emulator from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nightbatch.emulator.faults import Faults, UnknownFault, split
from nightbatch.emulator.settings import DEFAULT_KEY, Account, EmulatorSettings

app = typer.Typer(
    help="Play OpenAI and Anthropic on this machine, with faults on request.",
    no_args_is_help=True,
    add_completion=False,
)

DEFAULT_PORT = 8399


@app.callback()
def _group() -> None:
    """Keep `serve` a command of its own."""


@app.command()
def serve(  # noqa: PLR0913 (one argument for each option)
    host: Annotated[str, typer.Option(help="Address to bind. There is no encryption: keep to loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = DEFAULT_PORT,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for files; a temporary one, removed at the end, if not given.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="A key that is let in: KEY or KEY=ORGANISATION/WORKSPACE. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every fault and every invented value.")] = 0,
    executor: Annotated[str, typer.Option(help="auto, echo, sentiment, topics or upstream.")] = "auto",
    upstream_url: Annotated[str, typer.Option(help="OpenAI-compatible base URL, with its /v1.")] = "",
    upstream_key_env: Annotated[str, typer.Option(help="Environment variable with its key.")] = "UPSTREAM_API_KEY",
    batch_seconds: Annotated[float, typer.Option(help="How long a batch is in progress.")] = 5.0,
    validate_seconds: Annotated[float, typer.Option(help="How long an OpenAI batch is validating.")] = 0.0,
    cancel_seconds: Annotated[float, typer.Option(help="How long a batch is cancelling.")] = 0.0,
    speed: Annotated[float, typer.Option(help="Divides these durations and the 24-hour window.")] = 1.0,
    token_limit: Annotated[
        list[str] | None, typer.Option(help="Enqueued prompt tokens: TOKENS or MODEL=TOKENS. Repeatable.")
    ] = None,
    over_limit_at: Annotated[str, typer.Option(help="Where it shows: validation or create.")] = "validation",
    queued_request_limit: Annotated[int | None, typer.Option(help="Requests waiting in message batches.")] = None,
    faults: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, several with commas. docs/emulator.md lists them. Repeatable.")
    ] = None,
    exit_with_parent: Annotated[bool, typer.Option(help="Stop when the starting process is gone.")] = False,
) -> None:
    """Serve until interrupted; prints one line with the address and the data folder."""
    from nightbatch.emulator.server import serve as run

    try:
        model_limits, any_limit = _token_limits(token_limit or [])
        settings = EmulatorSettings(
            seed=seed,
            accounts=tuple(Account.parse(text) for text in key or [DEFAULT_KEY]),
            host=host,
            port=port,
            data_dir=data_dir,
            executor=executor,
            upstream_url=upstream_url,
            upstream_key_env=upstream_key_env,
            batch_seconds=batch_seconds,
            validate_seconds=validate_seconds,
            cancel_seconds=cancel_seconds,
            speed=speed,
            faults=Faults().but(split(",".join(faults or []))),
            enqueued_token_limit=any_limit,
            enqueued_token_limits=model_limits,
            over_limit_at=_where(over_limit_at),
            queued_request_limit=queued_request_limit,
        )
        run(settings, exit_with_parent=exit_with_parent)
    except (UnknownFault, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def _token_limits(texts: list[str]) -> tuple[dict[str, int], int | None]:
    """Read `MODEL=TOKENS` and `TOKENS`."""
    pairs = [text.rpartition("=") for text in texts]
    general = [int(tokens) for model, _, tokens in pairs if not model]
    return {model: int(tokens) for model, _, tokens in pairs if model}, general[-1] if general else None


def _where(text: str) -> Literal["validation", "create"]:
    if text == "validation":
        return "validation"
    if text == "create":
        return "create"
    raise ValueError(f"--over-limit-at {text}: choose validation or create")
