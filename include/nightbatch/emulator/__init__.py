"""A server that plays OpenAI and Anthropic: batches, files and real-time calls, with faults on request.

It imports nothing of the rest of nightbatch. Names that need the web framework are loaded when first used, so that
settings and faults can be named without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nightbatch.emulator.faults import Faults, UnknownFault
from nightbatch.emulator.settings import DEFAULT_KEY, Account, EmulatorSettings, Limits

if TYPE_CHECKING:
    from nightbatch.emulator.app import create_app
    from nightbatch.emulator.server import running, serve

__all__ = [
    "DEFAULT_KEY",
    "Account",
    "EmulatorSettings",
    "Faults",
    "Limits",
    "UnknownFault",
    "create_app",
    "running",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Import the server only when somebody starts it."""
    if name == "create_app":
        from nightbatch.emulator.app import create_app

        return create_app
    if name in {"running", "serve"}:
        from nightbatch.emulator import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
