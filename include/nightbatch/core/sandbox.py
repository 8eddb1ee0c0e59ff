"""A sandbox: where prompt templates run, so that neither a template nor a record can reach or flood the process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from jinja2 import StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_NUMBER = 100_000
"""Largest whole number a template may hand to what repeats, pads or fills: a width, an indent, a count."""

MAX_POWER = 10_000
"""Largest number of bits of a power; `9 ** 9 ** 9` would never end."""

_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\d{5,}|\*)")
_PADDING_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})
_PADDING_FILTERS = ("batch", "center", "indent", "slice", "urlize", "wordwrap")
# `random` and `lipsum` would give a record another fingerprint at every attempt; the others help no prompt.
_NO_FILTERS = ("random", "pprint", "xmlattr", "forceescape")
_NO_GLOBALS = ("lipsum", "cycler", "joiner")


class PromptSandbox(ImmutableSandboxedEnvironment):
    """
    Jinja2 without files, without escaping, strict about what is undefined, and bounded in what it builds.

    The bounds stop honest mistakes and cheap attacks (`"x" * 10**10`). They do not bound processor time: whoever may
    write a job file may make it slow.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, *, max_chars: int) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, cache_size=0)
        self.max_chars = max_chars
        for name in _NO_FILTERS:
            del self.filters[name]
        for name in _NO_GLOBALS:
            del self.globals[name]
        for name in _PADDING_FILTERS:
            self.filters[name] = _bounded(self.filters[name])
        self.filters["format"] = self._format
        self.filters["replace"] = self._replace
        self.filters["tojson"] = _tojson

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do `*`, `**` and `%` unless the outcome would be huge."""
        if operator == "*":
            self._refuse_long_repeat(left, right)
        elif operator == "%" and isinstance(left, str):
            _refuse_wide(left)
        elif operator == "**" and _power_bits(left, right) > MAX_POWER:
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)

    # The two leading underscores keep a template's own keyword arguments apart from these, as in Jinja2 itself.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - see above
        """Call what a template calls, unless it is a text method that would build a huge text."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            name = getattr(__obj, "__name__", "")
            if name in _PADDING_METHODS:
                _refuse_large(args)
            elif name == "replace" and len(args) > 1:
                __self._refuse_long_replace(owner, args[0], args[1])
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse `str.format`: its widths can come from anywhere, and a template needs none of it."""
        return None if super().wrap_str_format(value) is None else _no_str_format

    def _refuse_long_repeat(self, left: Any, right: Any) -> None:
        for text, times in ((left, right), (right, left)):
            repeats = isinstance(text, str | bytes | list | tuple) and isinstance(times, int)
            if repeats and len(text) * times > self.max_chars:
                raise SecurityError("a repeated text is too long")

    def _refuse_long_replace(self, text: str, old: Any, new: Any) -> None:
        if text.count(str(old)) * len(str(new)) > self.max_chars:
            raise SecurityError("a replaced text is too long")

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        self._refuse_long_replace(str(text), old, new)
        return str(text).replace(str(old), str(new), -1 if count is None else count)

    def _format(self, text: Any, *args: Any, **kwargs: Any) -> str:
        _refuse_wide(str(text))
        return str(text) % (kwargs or args)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Quote a value as JSON. Jinja2's own writes `<` as an escape for HTML, which a model has no use for."""
    _refuse_large((indent,))
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, default=str)


def _bounded(filter_: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _refuse_large((*args, *kwargs.values()))
        return filter_(*args, **kwargs)

    # Jinja2 reads from such marks which of them want its context handed to them first.
    bounded.__dict__.update(filter_.__dict__)
    return bounded


def _power_bits(base: Any, power: Any) -> int:
    """Bound the size of a power of whole numbers; any other power is a float, which has one size."""
    return power * base.bit_length() if isinstance(base, int) and isinstance(power, int) else 0


def _refuse_large(values: tuple[Any, ...]) -> None:
    if any(isinstance(value, int) and value > MAX_NUMBER for value in values):
        raise SecurityError("a width or count is too large")


def _refuse_wide(text: str) -> None:
    if _WIDE_FORMAT.search(text):
        raise SecurityError("a format is too wide")


def _no_str_format(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise SecurityError("str.format is not for templates")
