"""What a process gets when a job's adapters are opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from tests.memory_stack import job_of

from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.registry import open_ports, settings_from


def test_memory_that_arrow_lets_go_of_goes_back_to_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's own allocator keeps it, which is most of the memory of a step."""
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)

    open_ports(job_of(), settings_from({"NIGHTBATCH_HOME": str(tmp_path)}), from_environment({}))

    assert pa.default_memory_pool().backend_name == "system"


@pytest.mark.parametrize(("chosen", "used"), [(None, "system"), ("mimalloc", "mimalloc")])
def test_arrow_itself_uses_it_too_unless_somebody_chose(chosen: str | None, used: str) -> None:
    """What Arrow takes inside is not asked of pyarrow's pool, so it is said before Arrow is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": chosen} if chosen else {}
    ask = "import nightbatch, pyarrow; print(pyarrow.default_memory_pool().backend_name)"

    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == used
