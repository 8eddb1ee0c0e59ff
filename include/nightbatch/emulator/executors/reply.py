"""What an executor says to a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's text; from a real model also its tokens, or its whole body, or why there is none.

    Attributes:
        status: HTTP status of the model's reply; above 299 `body` holds its error.
        body: The model's reply as it came, to be passed on as it is.
    """

    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    status: int = 200
    body: dict[str, Any] | None = None
