"""A template: how a record becomes the messages of a request, many records in one compiled loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser

from .request import Messages
from .sandbox import PromptSandbox

MAX_CHARS = 8_000_000
"""Longest text that one record may render to, in characters."""

_ROWS, _END, _SKIPPED = "nb__rows", "nb__end", "nb__skipped_"
_OWN_NAME = re.compile(r"nb__")
_FOREIGN = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
# What one record sets, defines or counts must not be seen by the next one, so these are rendered row by row.
_ROW_BY_ROW = (nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.CallBlock, nodes.Block)
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


class BadTemplateError(ValueError):
    """A template or expression cannot be used. `line` counts from 1 within the template."""

    def __init__(self, problem: str, *, line: int | None = None) -> None:
        self.problem, self.line = problem, line
        super().__init__(problem if line is None else f"template line {line}: {problem}")


@dataclass(frozen=True, slots=True)
class RenderError:
    """Why one record could not be rendered; short, and without anything of the record's content."""

    reason: str


class PromptTemplate:
    """
    System and user template of a job, compiled once.

    Raises BadTemplateError. Rendering is pure and touches no file; a record that fails does not hurt the others.
    A system template without variables is rendered once.
    """

    def __init__(self, system: str, user: str, *, max_chars: int = MAX_CHARS) -> None:
        self._system = _Loop.of_template(system, "system template", max_chars)
        self._user = _Loop.of_template(user, "user template", max_chars)
        self.columns: frozenset[str] = self._system.columns | self._user.columns
        """What the templates take from a record."""
        self._fixed_system = self._system.fixed()

    def render(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[Messages | RenderError]:
        """
        Render records whose values stand in the order of `columns`; gives one item a record, in order.

        The user's text may hold half a surrogate pair, which is found where it is encoded (`core/escape.py`).
        """
        users = [_sendable(user) for user in self._user.render(columns, rows)]
        if self._fixed_system is not None:
            system = self._fixed_system
            return [Messages(system, user) if isinstance(user, str) else user for user in users]
        pairs = zip(self._system.render(columns, rows), users, strict=True)
        return [_joined(_encodable(system, "system template"), user) for system, user in pairs]


def check_template(text: str, *, as_system: bool = False) -> None:
    """Raise BadTemplateError where PromptTemplate would, for one template alone."""
    loop = _Loop.of_template(text, "system template" if as_system else "user template", MAX_CHARS)
    if as_system:
        loop.fixed()


class Deferrable:
    """An expression over a record that says whether it can wait. Raises BadTemplateError."""

    def __init__(self, expression: str) -> None:
        self._loop = _Loop.of_expression(expression, "`deferrable`")
        self.columns: frozenset[str] = self._loop.columns
        """What the expression takes from a record."""

    def keep(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[bool | RenderError]:
        """Say for each record whether it can wait; what is undefined is an error, never a "no"."""
        answers = self._loop.render(columns, rows)
        return [answer == _YES if isinstance(answer, str) else answer for answer in answers]


_YES, _NO = "1", "0"


def _sendable(text: str | RenderError) -> str | RenderError:
    if isinstance(text, str) and (not text or text.isspace()):
        return RenderError("user template: gives no text")
    return text


def _encodable(text: str | RenderError, name: str) -> str | RenderError:
    if isinstance(text, RenderError) or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return RenderError(f"{name}: gives half a surrogate pair, which is no text")
    return text


def _joined(system: str | RenderError, user: str | RenderError) -> Messages | RenderError:
    if isinstance(system, RenderError):
        return system
    return Messages(system, user) if isinstance(user, str) else user


class _Loop:
    """
    One template, wrapped once into a loop over records and iterated as the compiled generator: 2 µs a record.

    One record at a time through Jinja2 costs 16 µs (measured 2026-11). Wrapping happens in the syntax tree, so no
    text of a template can break out of the loop.
    """

    def __init__(self, parse: Callable[[PromptSandbox], nodes.Template], name: str, max_chars: int) -> None:
        self._env = PromptSandbox(max_chars=max_chars)
        self._name, self._max_chars = name, max_chars
        # An object of its own: a record whose text has the same value is still not the end of a record.
        self._end = "".join((_END, "/"))
        self._parse = parse
        with _as_bad_template():
            tree = parse(self._env)
            self._refuse_what_cannot_work(tree)
            found = meta.find_undeclared_variables(tree)
            self._single = self._compile(tree)
        self.columns = frozenset(found - set(self._env.globals))
        self._row_by_row = "loop" in found or next(_found(tree, _ROW_BY_ROW), None) is not None
        self._looped: dict[tuple[str, ...], Template] = {}

    @classmethod
    def of_template(cls, source: str, name: str, max_chars: int) -> _Loop:
        return cls(lambda env: env.parse(source), name, max_chars)

    @classmethod
    def of_expression(cls, source: str, name: str) -> _Loop:
        return cls(lambda env: _choice(env, source), name, MAX_CHARS)

    def fixed(self) -> str | None:
        """Render a template that takes nothing from a record; None for any other."""
        if self.columns:
            return None
        [text] = self._each((), [()])
        if isinstance(text, RenderError):
            raise BadTemplateError(text.reason)
        return text

    def render(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[str | RenderError]:
        """Render every record; one that fails becomes a RenderError, and the loop goes on behind it."""
        template = self._loop_over(tuple(columns))
        if template is None:
            return self._each(columns, rows)
        texts: list[str | RenderError] = []
        while len(texts) < len(rows):
            # A generator that raised is spent, so the rest goes into a new one.
            rest = rows[len(texts) :] if texts else rows
            context = template.new_context({_ROWS: rest, _END: self._end})
            texts += self._texts(template, template.root_render_func(context))
        return texts

    def _each(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[str | RenderError]:
        texts: list[str | RenderError] = []
        for row in rows:
            context = self._single.new_context(dict(zip(columns, row, strict=True)))
            pieces = _with_end(self._single.root_render_func(context), self._end)
            texts += self._texts(self._single, pieces)
        return texts

    def _texts(self, template: Template, pieces: Iterator[str]) -> list[str | RenderError]:
        """Join the pieces of each record, up to and with the first one that fails."""
        texts: list[str | RenderError] = []
        parts: list[str] = []
        size, end, limit = 0, self._end, self._max_chars
        try:
            for piece in pieces:
                if piece is end:
                    texts.append("".join(parts))
                    parts.clear()
                    size = 0
                    continue
                parts.append(piece)
                size += len(piece)
                if size > limit:
                    texts.append(RenderError(f"{self._name}: gives more than {limit:,} characters"))
                    return texts
        except Exception as error:  # noqa: BLE001 - templates run filters on any data: what they raise is this record's
            texts.append(RenderError(f"{self._name}{_line(template, error)}: {_reason(error)}"))
        return texts

    def _loop_over(self, columns: tuple[str, ...]) -> Template | None:
        """Wrap the template for rows of these columns; None where it must be rendered row by row."""
        if not self._row_by_row and columns not in self._looped:
            tree = self._parse(self._env)
            # Names that no template can say (or that it does not use) still take their place in the row.
            names = [name if name in self.columns else f"{_SKIPPED}{at}" for at, name in enumerate(columns)]
            target = nodes.Tuple([nodes.Name(name, "store", lineno=1) for name in names], "store", lineno=1)
            end = nodes.Output([nodes.Name(_END, "load", lineno=1)], lineno=1)
            rows = nodes.Name(_ROWS, "load", lineno=1)
            loop = nodes.For(target, rows, [*tree.body, end], [], None, False, lineno=1)
            try:
                self._looped[columns] = self._compile(_template(self._env, loop))
            except (SyntaxError, RecursionError):
                self._row_by_row = True  # the template alone is nested as deep as Python takes
        return None if self._row_by_row else self._looped[columns]

    def _compile(self, tree: nodes.Template) -> Template:
        code = self._env.compile(tree, filename=_FILENAME)
        return Template.from_code(self._env, code, self._env.make_globals(None))

    def _refuse_what_cannot_work(self, tree: nodes.Template) -> None:
        foreign = next(_found(tree, _FOREIGN), None)
        if foreign is not None:
            raise BadTemplateError("a template cannot include, import or extend another file", line=foreign.lineno)
        for use in tree.find_all((nodes.Filter, nodes.Test)):
            known = self._env.filters if isinstance(use, nodes.Filter) else self._env.tests
            if use.name not in known:
                raise BadTemplateError(f"there is no {type(use).__name__.lower()} named {use.name!r}", line=use.lineno)
        for named in tree.find_all(nodes.Name):
            if _OWN_NAME.match(named.name):
                raise BadTemplateError("names that begin with `nb__` are nightbatch's own", line=named.lineno)


@contextmanager
def _as_bad_template() -> Iterator[None]:
    try:
        yield
    except TemplateSyntaxError as error:
        raise BadTemplateError(_sentence(error.message), line=error.lineno) from error
    except (RecursionError, SyntaxError) as error:
        # Python itself refuses more than 20 loops in one another.
        raise BadTemplateError("it is nested too deep") from error


_FILENAME = "<prompt>"


def _choice(env: PromptSandbox, source: str) -> nodes.Template:
    """Parse an expression into a template that prints whether it holds."""
    parser = Parser(env, source, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError("it goes on after the expression ends", parser.stream.current.lineno)
    yes, no = (nodes.Output([nodes.TemplateData(word, lineno=1)], lineno=1) for word in (_YES, _NO))
    return _template(env, nodes.If(expression, [yes], [], [no], lineno=1))


def _template(env: PromptSandbox, node: nodes.Node) -> nodes.Template:
    tree = nodes.Template([node], lineno=1)
    tree.set_environment(env)
    return tree


def _found(tree: nodes.Template, kinds: tuple[type[nodes.Node], ...]) -> Iterator[nodes.Node]:
    return (node for kind in kinds for node in tree.find_all(kind))


def _with_end(pieces: Iterator[str], end: str) -> Iterator[str]:
    yield from pieces
    yield end


def _line(template: Template, error: BaseException) -> str:
    """Say in which line of the template an error arose, if that can be known."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILENAME:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return "" if line is None else f", line {line}"


def _reason(error: Exception) -> str:
    """Word an error without its message, which may quote the record."""
    if isinstance(error, UndefinedError):
        match = _UNDEFINED.fullmatch(error.message or "")
        return f"`{match[1]}` is not there" if match else "it uses a part of a value that is not there"
    if isinstance(error, SecurityError):
        return "it does what a template must not do"
    if isinstance(error, MemoryError | RecursionError):
        return "it needs too much memory"
    return f"{type(error).__name__}"


def _sentence(message: str | None) -> str:
    text = (message or "it cannot be read").rstrip(".")
    return text[:1].lower() + text[1:] if text[:2] != text[:2].upper() else text
