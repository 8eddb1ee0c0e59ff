"""The shape of the code: sizes, names and habits that the style guide asks for, held by reading the syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "include" / "nightbatch"
MODULES = sorted(str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py"))

LONG_MODULES = {
    "adapters/ledger_sql.py": "every method of the ledger's port, each one transaction, in the port's order",
    "errors.py": "every error and its sentence stands on one page, drawn as a tree",
    "flow.py": "the ten steps in order are read on one page, and Airflow calls the same functions",
    "ports/ledger.py": "one protocol, which no adapter has in part",
}
"""Modules over 300 lines, and why."""

READS_TIME = {
    "adapters/clock.py": "it is the clock",
    "adapters/providers/calls.py": "bounds one HTTP call, and reads an HTTP date relative to now",
    "adapters/object_store_connect.py": "says until when the keys that it hands on are good",
    "cli.py": "a command begins now: windows, prices and ages are told from here",
    "demo": "shows a person how long things take",
    "emulator/clock.py": "the emulator stands alone, and this is its clock",
    "orchestration/deadlines.py": "Airflow asks it from outside, without a clock of ours",
    "orchestration/trigger.py": "runs in Airflow's triggerer, which hands it nothing",
}
"""Modules and folders that may ask what time it is, or sleep; all others are handed `now` or a Clock."""

TIME_CALLS = {"datetime.now", "datetime.utcnow", "datetime.today", "time.time", "time.monotonic", "time.sleep"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "data", "info", "common", "misc"}
NOTE = re.compile(r"#\s*(noqa|type: ignore)(?P<codes>[:\[][^#(]*?)?(?P<reason>\s(?:--?|–|\(|#)\s*\S.*|\s{2,}\S.*)?$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(module: str) -> ast.Module:
    """Parse a module once."""
    return ast.parse((LIBRARY / module).read_text(encoding="utf-8"))


def lines_of(module: str) -> list[str]:
    """Give a module's lines."""
    return (LIBRARY / module).read_text(encoding="utf-8").splitlines()


def functions_of(module: str) -> Iterator[tuple[str, int]]:
    """Give every function of a module, and how many lines it has without its decorators."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, Function):
            yield f"{module}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def public_parts(module: str) -> Iterator[tuple[str, ast.AST]]:
    """Give the module and its public classes, functions and methods. What repeats a base class's name is left out."""
    tree = tree_of(module)
    yield module, tree
    for node in tree.body:
        if not isinstance(node, (*Function.__args__, ast.ClassDef)) or node.name.startswith("_"):
            continue
        yield f"{module}:{node.lineno} {node.name}", node
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, Function) and not part.name.startswith("_"):
                    yield f"{module}:{part.lineno} {node.name}.{part.name}", part


def calls_of(module: str) -> Iterator[tuple[int, str]]:
    """Give every `name.attribute(...)` of a module with its line."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def test_no_function_is_longer_than_a_screen_and_nine_in_ten_are_short() -> None:
    sizes = {name: lines for module in MODULES for name, lines in functions_of(module)}

    assert {name: lines for name, lines in sizes.items() if lines > 60} == {}
    assert sum(lines <= 35 for lines in sizes.values()) >= 0.9 * len(sizes)


def test_modules_are_short_but_for_those_that_are_named_here() -> None:
    long = {module for module in MODULES if len(lines_of(module)) > 300}

    assert long == set(LONG_MODULES)


def test_no_module_has_a_name_that_says_nothing() -> None:
    words = {module: set(re.split(r"[/_.]", module)) - {"py"} for module in MODULES}

    assert {module: names & VAGUE_NAMES for module, names in words.items() if names & VAGUE_NAMES} == {}


@pytest.mark.parametrize("module", MODULES)
def test_the_library_asserts_nothing(module: str) -> None:
    """`python -O` removes asserts, so none may guard anything."""
    assert [node.lineno for node in ast.walk(tree_of(module)) if isinstance(node, ast.Assert)] == []


def test_everything_public_says_what_it_is_for() -> None:
    parts = [part for module in MODULES if lines_of(module) for part in public_parts(module)]
    silent = {name for name, node in parts if not ast.get_docstring(node)}  # type: ignore[arg-type]  # all can have one

    assert silent == set()


def test_only_named_modules_read_the_time() -> None:
    found = {
        module: [f"line {line}: {call}" for line, call in calls_of(module) if call in TIME_CALLS] for module in MODULES
    }
    allowed = tuple(READS_TIME)
    strangers = {module: calls for module, calls in found.items() if calls and not module.startswith(allowed)}

    assert strangers == {}
    assert [place for place in READS_TIME if not any(found[one] for one in MODULES if one.startswith(place))] == []


def test_every_note_that_silences_a_checker_gives_its_reason() -> None:
    bare = [
        f"{module}:{number} {line.strip()[-60:]}"
        for module in MODULES
        for number, (above, line) in enumerate(pairwise(["", *lines_of(module)]), 1)
        if is_bare_note(line) and not above.strip().startswith("#")
    ]

    assert bare == []


def is_bare_note(line: str) -> bool:
    """Say whether a line silences a checker without a word why."""
    note = NOTE.search(line)
    return note is not None and not note["reason"]


@pytest.mark.parametrize(
    ("line", "is_bare"),
    [
        ("x = 1  # noqa: S105", True),
        ("x = 1  # noqa", True),
        ("x = 1  # type: ignore[misc]", True),
        ("x = 1  # noqa: S105 - a vendor's word", False),
        ("x = 1  # noqa: S105 -- a vendor's word", False),
        ("x = 1  # noqa: S105 (a vendor's word)", False),
        ("x = 1  # noqa: S105  a vendor's word", False),
        ("x = 1  # type: ignore[misc]  # bound now", False),
        ("x = 1  # an ordinary comment", False),
    ],
)
def test_a_reason_is_told_from_a_bare_note(line: str, is_bare: bool) -> None:
    assert is_bare_note(line) is is_bare
