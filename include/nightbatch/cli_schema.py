"""The command `schema`: what a job file may say, for editors."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of job files; `init` puts it beside them as job.schema.json, where editors find it."""
    from nightbatch.job_editor import job_schema

    typer.echo(job_schema(), nl=False)
