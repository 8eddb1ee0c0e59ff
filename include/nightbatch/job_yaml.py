"""YAML with lines: plain values only, and for each value the line where it stands."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from .errors import Problem

MAX_CHARS = 1_000_000
"""Longest job file that is read, in characters."""

MAX_VALUES = 50_000
"""Most values in a job file, counting an alias each time it is used; ten nested aliases can make billions."""

_MAX_DEPTH = 60
_PLAIN_TAGS = {f"tag:yaml.org,2002:{word}" for word in ("null", "bool", "int", "float", "str", "timestamp", "value")}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
# A number has no leading zeros here: `007` is a name.
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | dict.fromkeys(
    ("true", "True", "TRUE"), True
)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)

Loc = tuple[str | int, ...]


@dataclass
class Document:
    """What a file says, where each value stands (lines from 1), and what is wrong with its form."""

    value: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, loc: Loc) -> int | None:
        """Give the line of a value, or of the nearest value around it that is there."""
        return next((self.lines[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.lines), None)


def path_of(loc: Loc) -> str:
    """Write a place as a path: `models.0.provider`."""
    return ".".join(map(str, loc)) or "file"


def read_yaml(text: str) -> Document:
    """
    Read one YAML document without running anything in it.

    Words mean what YAML 1.2 says: only `true` and `false` are booleans (so a key `on` is text), `07:00` is text, and a
    date is text. Tags, repeated keys and floods of aliases are problems, all told at once.
    """
    document = Document()
    if len(text) > MAX_CHARS:
        document.problems.append(
            Problem("file", f"it is longer than {MAX_CHARS:,} characters", "Put long prompts into files of their own.")
        )
        return document
    try:
        _refuse_depth(text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        document.problems.append(_no_yaml(error))
    except yaml.YAMLError as error:
        document.problems.append(
            Problem("file", f"it holds what YAML does not allow ({error})", "Save it as UTF-8 text.")
        )
    except _TooMuchError as error:
        document.problems.append(Problem("file", str(error), "Write it flat."))
    else:
        if node is not None:
            _Reader(document).read(node)
    return document


# The parser in C is ten times faster, and Dag files are parsed every minute; compose makes nodes and runs nothing.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refuse_depth(text: str) -> None:
    """Look at the nesting first: the parser in C makes its nodes recursively, and would take the process with it."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _TooMuchError(f"it is nested deeper than {_MAX_DEPTH}")


def _no_yaml(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = " ".join(word for word in (error.context, error.problem) if word) or "it cannot be read"
    remedy = "Check indentation, colons and quotes; a text with a colon, #, { or * in it goes into quotes."
    return Problem("file", f"it is not YAML: {said}", remedy, mark.line + 1 if mark else None)


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document, self._values = document, 0

    def read(self, node: yaml.Node) -> None:
        try:
            self._document.value = self._value(node, ())
        except _TooMuchError as error:
            problem = Problem("file", str(error), "Write the values out, without aliases.", node.start_mark.line + 1)
            self._document.problems.append(problem)

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuchError(f"it holds more than {MAX_VALUES:,} values")
        if len(loc) > _MAX_DEPTH:
            raise _TooMuchError(f"it is nested deeper than {_MAX_DEPTH}")
        self._document.lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._value(item, (*loc, at)) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS:
            return _scalar(node)
        self._tell(loc, node, f"the tag {_short(node.tag)} is not allowed", "Write a plain value; nothing is run.")
        return None

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._tell(loc, key_node, "a key is not a plain word", "Put texts with { or [ into quotes.")
                continue
            key: str = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._tell(loc, key_node, "`<<` is not allowed", "Write the keys out.")
                continue
            if key in mapping:
                first = self._document.lines[(*loc, key)]
                self._tell((*loc, key), key_node, f"the key stands here and in line {first}", "Keep one of them.")
                continue
            self._document.lines[(*loc, key)] = key_node.start_mark.line + 1
            mapping[key] = self._value(value_node, (*loc, key))
        return mapping

    def _tell(self, loc: Loc, node: yaml.Node, problem: str, remedy: str) -> None:
        self._document.problems.append(Problem(path_of(loc), problem, remedy, node.start_mark.line + 1))


class _TooMuchError(ValueError):
    pass


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style:  # quoted or a block; plain text has None or an empty style, after the parser
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 100:
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text) and math.isfinite(float(text.replace("_", ""))):
        return float(text.replace("_", ""))
    return text


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")[:60]
