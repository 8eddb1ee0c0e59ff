"""What needs an extra says so where it is not installed, instead of a traceback."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nightbatch.adapters import extras
from nightbatch.adapters.extras import EXTRAS
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.registry import open_provider
from nightbatch.cli_check import check_files
from nightbatch.errors import PackageMissing
from nightbatch.ports import Connection


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without any extra."""
    monkeypatch.setattr(extras, "find_spec", lambda package: None)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_a_vendor_without_its_package_is_told(bare: None, vendor: str) -> None:
    with pytest.raises(PackageMissing, match=rf"pip install 'nightbatch\[{EXTRAS[vendor]}\]'"):
        open_provider(vendor, Connection("vendor", vendor, password="x"), request_timeout_s=1)


def test_a_ledger_in_postgresql_without_its_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(PackageMissing, match=r"nightbatch\[postgres\]"):
        SqlLedger.open("postgresql://nobody@127.0.0.1:1/none")


def test_check_warns_of_a_package_that_is_not_here(tmp_path: Path, bare: None) -> None:
    """Only a warning: the file may be good, and run elsewhere."""
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: job\nsource: {files: in/, key: id}\nprompt: {user: '{{ body }}'}\nsink: {files: out/}\n"
        "models: [{provider: openai, model: gpt-5-mini, connection: vendor, max_output_tokens: 5}]\n"
    )

    [found] = check_files([job], now=datetime.now(UTC)).values()

    assert found.problems == []
    assert any("pip install 'nightbatch[openai]'" in warning for warning in found.warnings)
