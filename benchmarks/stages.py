"""
Tell where the time of preparing goes: each stage is added to those before it, and the difference is its own.

    .venv/bin/python benchmarks/stages.py [RECORDS]

One process, no turns: a look, not a comparison. Imports are not counted.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from records import DAY, NEXT_DAY, job_values, make
from turns import asked_for, finish

from nightbatch import flow
from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Ports
from nightbatch.steps.fill import INDEX_SCHEMA, ShardFiller, numbers
from nightbatch.steps.lanes import open_lane
from nightbatch.steps.pack import Asked, encode
from nightbatch.steps.parquet import row_writer
from nightbatch.steps.pull import Question, Tally, pull
from nightbatch.steps.render import render
from nightbatch.steps.seen import seen

WINDOW = Window(DAY, NEXT_DAY)


class Stages:
    """The stages of preparing, each with all those before it."""

    def __init__(self, ports: Ports, job: Job, folder: Path) -> None:
        self.ports, self.job, self.folder = ports, job, folder
        self.filler = ShardFiller(
            ports.store, open_lane(ports, job, 0), ledger="0" * 8, folder="stages", numbers=numbers("stages", 0)
        )

    def questions(self) -> Iterator[Question]:
        """Read and render."""
        for part in render(pull(self.ports.source(), self.job, WINDOW, Tally()), self.job):
            yield from part

    def asked(self) -> Iterator[list[Asked]]:
        """Encode and hash them too."""
        for part in render(pull(self.ports.source(), self.job, WINDOW, Tally()), self.job):
            yield [one for question in part if (one := encode(question, self.filler))]

    def looked_up(self) -> Iterator[list[Asked]]:
        """Look for doubles too."""
        with seen() as memory:
            for part in self.asked():
                memory.new_keys([one.question.key for one in part])
                memory.twins([(one.question.key, one.fingerprint) for one in part])
                yield part

    def index(self) -> None:
        """Read, render, and write the rows of the index alone."""
        with row_writer(self.ports.store, "stages/index.parquet", INDEX_SCHEMA) as rows:
            for one in self.questions():
                rows.add((one.key, "f" * 64, 1, None, None))

    def all(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Name them in order."""
        yield "read", lambda: sum(len(chunk.rows) for chunk in self.ports.source().read(WINDOW))
        yield "render", lambda: sum(1 for _ in self.questions())
        yield "index alone, after rendering", self.index
        yield "render again", lambda: sum(1 for _ in self.questions())
        yield "fingerprint", lambda: sum(1 for _ in self.asked())
        yield "look up", lambda: sum(1 for _ in self.looked_up())
        yield "all of prepare", lambda: flow.prepare(self.ports, self.job, WINDOW)


def main() -> None:
    """Time each, and print what it adds."""
    (records,) = asked_for(100_000)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        folder = Path(name)
        make(folder, records)
        job = Job.model_validate(job_values({"files": f"{name}/records.parquet"}, {"files": f"{name}/answers"}))
        environ = {**os.environ, "NIGHTBATCH_HOME": name, "OPENAI_API_KEY": "sk-none"}
        ports = open_ports(job, settings_from(environ), from_environment(environ))
        found, before = {}, 0.0
        for stage, run in (
            ("warm", lambda: sum(1 for _ in ports.source().read(WINDOW))),
            *Stages(ports, job, folder).all(),
        ):
            gc.collect()
            began = time.process_time()
            run()
            took = (time.process_time() - began) / records * 1e6
            found[stage] = {"us": took, "us_more": took - before}
            before = took
            print(f"{stage:30} {took:6.1f} µs a record, {found[stage]['us_more']:+.1f}")
    finish(__file__, found, [])


if __name__ == "__main__":
    main()
