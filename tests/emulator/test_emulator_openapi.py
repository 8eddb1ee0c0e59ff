"""OpenAI's own specification, thrown at the emulator from all sides by schemathesis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightbatch import emulator

SPEC = Path(emulator.__file__).parent / "spec" / "openai-batches.overlay.openapi.yaml"

EXCLUDED: dict[str, str] = {}
"""Checks that are left out, each with its reason: none. `schemathesis_hooks.py` keeps `limit` in its bounds."""


@pytest.mark.timeout(180)
def test_the_specification_finds_nothing_wrong(rehearse, chats, tmp_path):
    """All checks in all phases, 20 examples an operation, the same ones every time."""
    stage = rehearse(seed=7)
    batch = stage.run(chats(3))
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        "REAL_FILE_ID": batch.input_file_id,
        "REAL_BATCH_ID": batch.id,
    }
    options = {"--url": f"{stage.url}/v1", "--checks": "all", "--max-examples": "20", "--seed": "7", "--mode": "all"}
    flat = [text for option in options.items() for text in option]
    excluded = [text for check in EXCLUDED for text in ("--exclude-checks", check)]
    key = ["-H", f"Authorization: Bearer {emulator.DEFAULT_KEY}", "--no-color"]
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(SPEC), *flat, *excluded, *key]

    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 9" in done.stdout, done.stdout
