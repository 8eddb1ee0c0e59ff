"""A schema: what an answer must look like, as JSON Schema, compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jsonschema_rs

_DIALECT = re.compile(r"https?://json-schema\.org/(draft/20(19-09|20-12)|draft-0[467])/schema#?$")


def compiled(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """
    Compile a JSON Schema (2020-12 unless it says otherwise).

    Raises ValueError, with a message that is fit for people, for what is no schema. Fetches nothing: a `$ref` to
    another document is an error.
    """
    # The checker would fetch an unknown dialect from wherever the schema says.
    if any(not _DIALECT.match(str(dialect)) for dialect in values_of(schema, "$schema")):
        raise ValueError("at /$schema: names a dialect other than those of json-schema.org")
    try:
        # Both raise the same error; the first says in terms of the meta schema what is wrong.
        jsonschema_rs.meta.validate(dict(schema))
        return jsonschema_rs.validator_for(dict(schema), retriever=_fetch_nothing)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        place = "/".join(str(part) for part in getattr(error, "instance_path", ()))
        message = getattr(error, "message", str(error)).splitlines()[0]
        raise ValueError(f"at /{place}: {message}") from error


def _fetch_nothing(uri: str) -> NoReturn:
    raise LookupError(f"nothing is fetched, so {uri} cannot be followed")


def values_of(schema: Any, key: str) -> Iterator[Any]:
    """Walk a schema for everything that stands under a key."""
    if isinstance(schema, Mapping):
        if key in schema:
            yield schema[key]
        for inner in schema.values():
            yield from values_of(inner, key)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from values_of(inner, key)
