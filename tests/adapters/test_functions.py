"""A job file may name functions of modules that the installation lists, and no other code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.memory_stack import job_of

from nightbatch.adapters.functions import function_problems, open_function
from nightbatch.errors import JobInvalid

SOURCE = """
import os
from os import system

def find(text):
    return [(0, 1)]

NOT_CALLABLE = "find"
"""


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A deployer's modules: one that works, one that raises, and one that is not there."""
    (tmp_path / "acme_finds.py").write_text(SOURCE)
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('planted')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "acme_finds, acme_broken,acme_absent"


def test_a_function_of_a_listed_module_is_called(allowed: str) -> None:
    job = job_of(redact={"functions": {"person": "acme_finds.find"}})

    assert open_function("acme_finds.find", allowed=allowed, job=job)("x") == [(0, 1)]
    assert function_problems(job, allowed=allowed) == []
    assert function_problems(job_of(), allowed="") == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("os.system", "module os is not one that this installation lets job files use"),
        ("acme_finds.os.system", "module acme_finds.os is not one"),
        ("acme.finds", "module acme is not one"),
        ("acme_finds.system", "module acme_finds defines no function system"),
        ("acme_finds.os", "module acme_finds defines no function os"),
        ("acme_finds.NOT_CALLABLE", "module acme_finds defines no function NOT_CALLABLE"),
        ("acme_finds.__builtins__", "module acme_finds defines no function __builtins__"),
        ("acme_broken.find", "module acme_broken cannot be imported (RuntimeError)"),
        ("acme_absent.find", "module acme_absent cannot be imported (ModuleNotFoundError)"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(allowed: str, name: str, problem: str) -> None:
    job = job_of(redact={"functions": {"person": name}})

    with pytest.raises(JobInvalid) as error:
        open_function(name, allowed=allowed, job=job)

    assert f"redact.functions.person: {problem}" in str(error.value)
    assert [told.problem for told in function_problems(job, allowed=allowed)] == [
        found.problem for found in error.value.problems
    ]
