"""Leaves these tests out where the browser's driver is not installed: `make test-ui` installs it."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]
