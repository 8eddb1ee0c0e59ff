"""The fault harness: real processes, a real ledger, store and vendor, and everything that can go wrong with them."""

import pytest

pytest.register_assert_rewrite("tests.faults.airflow_stand")
