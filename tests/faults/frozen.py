"""Imported last by a server that forks: what is loaded by now is never garbage, so that no fork looks at it again."""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
