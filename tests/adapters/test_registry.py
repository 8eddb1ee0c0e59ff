"""What a process gets when a job's adapters are opened."""

from __future__ import annotations

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
