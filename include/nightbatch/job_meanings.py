"""What the keys of a job file mean: the sentences that stand below them in the source, read when they are asked for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

from .job_parts import Part


def meanings(part: type[Part]) -> dict[str, str]:
    """
    Give field → what it means, those of its base classes too.

    Not by pydantic's `use_attribute_docstrings`: that reads the source of every part in every process, 50 ms each
    time that Airflow parses a Dag file, for what only documents, editors and error messages say. Where the source is
    not installed, nothing is said.
    """
    found: dict[str, str] = {}
    for one in reversed(part.__mro__):
        if issubclass(one, Part):
            found |= _own(one)
    return {name: found[name] for name in part.model_fields if name in found}


@cache
def _own(part: type[Part]) -> dict[str, str]:
    try:
        source = inspect.getsource(part)
    except OSError:  # only what was compiled is there
        return {}
    (tree,) = ast.parse(textwrap.dedent(source)).body
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):  # type: ignore[attr-defined]  # it is a class
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
