"""
A job as it is sealed with a run, read by whichever version of the library comes by.

What is sealed is the whole job, defaults included, so that neither an edit nor another version's defaults change a run
under way. Beside it stands which keys have their default: a version that does not know such a key may leave it out;
one that does not know a key that somebody set must not touch the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from . import __version__
from .core.version import is_too_new
from .errors import PlanUnreadable
from .job import Job

Path = Sequence[str | int]


def facts_of(job: Job) -> dict[str, Any]:
    """Give what goes into a plan: the job, the keys of it that have their default, and this version."""
    whole = job.model_dump(mode="json", by_alias=True)
    said = job.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"job": job.to_json(), "unsaid": [list(path) for path in _missing(whole, said)], "library": __version__}


def unsealed(facts: Mapping[str, Any], *, run: str) -> Job:
    """Read what `facts_of` gave, here or in another version. Raises PlanUnreadable."""
    sealed_by = str(facts.get("library") or "0.1.0")
    if is_too_new(sealed_by, own=__version__):
        problem = "that is more than one minor version newer"
        raise PlanUnreadable(run, sealed_by=sealed_by, problem=problem)
    text = str(facts.get("job", ""))
    try:
        return Job.from_json(text)
    except ValidationError:
        pass
    try:
        return _without_what_is_unknown(text, facts.get("unsaid", ()))
    except ValidationError as error:
        # Places only: what pydantic says quotes the values, and these may be a prompt.
        places = sorted({".".join(map(str, item["loc"])) or "the job" for item in error.errors(include_input=False)})
        problem = f"this version does not understand {', '.join(places[:5])} of its job"
        raise PlanUnreadable(run, sealed_by=sealed_by, problem=problem) from None
    except ValueError:
        raise PlanUnreadable(run, sealed_by=sealed_by, problem="its job is no JSON") from None


def _without_what_is_unknown(text: str, unsaid: Iterable[Path]) -> Job:
    whole, said = json.loads(text), json.loads(text)
    for path in unsaid:
        _remove(said, path)
    known = Job.from_json(json.dumps(said))
    return Job.from_json(json.dumps(_overlaid(json.loads(known.to_json()), whole)))


def _missing(whole: Any, part: Any, path: tuple[str | int, ...] = ()) -> Iterable[tuple[str | int, ...]]:
    """Give the places of what is in the whole and not in its part."""
    if isinstance(whole, dict) and isinstance(part, dict):
        for key, value in whole.items():
            if key not in part:
                yield (*path, key)
            else:
                yield from _missing(value, part[key], (*path, key))
    elif isinstance(whole, list) and isinstance(part, list):
        for at, (value, other) in enumerate(zip(whole, part, strict=False)):
            yield from _missing(value, other, (*path, at))


def _remove(values: Any, path: Path) -> None:
    *parents, last = path
    try:
        for step in parents:
            values = values[step]
        del values[last]
    except LookupError:
        return


def _overlaid(known: Any, whole: Any) -> Any:
    """Put the sealed values over ours, where we know the key: our defaults may be others by now."""
    if isinstance(known, dict) and isinstance(whole, dict):
        return {key: _overlaid(value, whole[key]) if key in whole else value for key, value in known.items()}
    if isinstance(known, list) and isinstance(whole, list) and len(known) == len(whole):
        return [_overlaid(value, other) for value, other in zip(known, whole, strict=True)]
    return whole
