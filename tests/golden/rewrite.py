"""
Makes the golden files of what nightbatch sends: `python -m tests.golden.rewrite` rewrites them.

What vendors send back (`results.jsonl`) is written by hand from their documentation and never rewritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nightbatch.adapters.providers.anthropic_encoder import AnthropicEncoder
from nightbatch.adapters.providers.openai_encoder import OpenAIEncoder
from nightbatch.core.request import Endpoint, Messages, RequestSpec
from nightbatch.steps.lanes import body_of

FOLDER = Path(__file__).parent
SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": ["positive", "negative"]}, "confidence": {"type": "number"}},
    "required": ["sentiment", "confidence"],
    "additionalProperties": False,
}
MESSAGES = (
    Messages("You judge reviews.", "Great battery, dull screen."),
    Messages("", 'No system message, "quotes", a \\ and a\nnew line.'),
    Messages("Ünïcode \U0001f319", "line\u2028separator, next\u0085line, nul\x00, 电池很好"),
)
TEXTS = tuple(Messages("", messages.user) for messages in MESSAGES)


def specs() -> dict[str, tuple[RequestSpec, tuple[Messages, ...]]]:
    """Give every kind of request there is a golden file for."""
    shared: dict[str, Any] = {"max_output_tokens": 200, "temperature": 0.2}
    return {
        "openai/chat": (RequestSpec(Endpoint.CHAT, "gpt-5-mini", **shared), MESSAGES),
        "openai/chat-schema": (
            RequestSpec(
                Endpoint.CHAT,
                "gpt-5-mini",
                max_output_tokens=200,
                params={"seed": 7, "reasoning_effort": "low"},
                schema=SCHEMA,
                schema_name="review",
            ),
            MESSAGES,
        ),
        "openai/responses": (RequestSpec(Endpoint.RESPONSES, "gpt-5-mini", **shared), MESSAGES),
        "openai/responses-schema": (
            RequestSpec(
                Endpoint.RESPONSES,
                "gpt-5-mini",
                max_output_tokens=200,
                params={"text": {"verbosity": "low"}, "store": False},
                schema=SCHEMA,
            ),
            MESSAGES,
        ),
        "openai/embeddings": (
            RequestSpec(Endpoint.EMBEDDINGS, "text-embedding-3-small", params={"dimensions": 256}),
            TEXTS,
        ),
        "anthropic/messages": (RequestSpec(Endpoint.MESSAGES, "claude-sonnet-4-6", **shared), MESSAGES),
        "anthropic/messages-schema-cached": (
            RequestSpec(
                Endpoint.MESSAGES,
                "claude-sonnet-4-6",
                max_output_tokens=200,
                params={"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
                schema=SCHEMA,
                cache_prefix=True,
            ),
            MESSAGES,
        ),
    }


def encoder(spec: RequestSpec) -> OpenAIEncoder | AnthropicEncoder:
    """Give the encoder of a kind of request."""
    return AnthropicEncoder(spec) if spec.endpoint is Endpoint.MESSAGES else OpenAIEncoder(spec)


def rendered(name: str) -> bytes:
    """Make the content of a golden file."""
    spec, messages = specs()[name]
    encodes = encoder(spec)
    return b"".join(
        encodes.envelope.line(f"nb_0_0_0_0_{row}", body_of(encodes, each)) for row, each in enumerate(messages)
    )


def path(name: str) -> Path:
    """Give where a golden file is."""
    return FOLDER / f"{name}.jsonl"


def main() -> None:
    """Rewrite every golden file of what is sent; git shows what changed."""
    for name in specs():
        path(name).parent.mkdir(exist_ok=True)
        path(name).write_bytes(rendered(name))
        print(f"wrote {path(name).relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
