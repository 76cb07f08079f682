"""Platform file: the answer of `GET /exports`, as JSON on disk."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aggregation.dataset import About, Choices, Count, Dataset, build, clean_text, frame
from aggregation.errors import InputError
from aggregation.params import PlatformFileSource
from aggregation.sources.files import read_text, times

LISTS = ("topics", "guidelines", "ratings", "users")


def read(source: PlatformFileSource, choices: Choices) -> Dataset:
    """Read an export from disk. Raises InputError naming the file and the record."""
    path = Path(source.path)
    try:
        export = json.loads(read_text(path), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: is no whole JSON "
            f"({error.msg}): download the export again"
        ) from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: is no usable JSON ({error}): download it again") from None
    return from_export(export, choices, str(path))


def from_export(export: Any, choices: Choices, where: str, *, simulated: bool = False) -> Dataset:
    """A Dataset from the export as parsed JSON; nulls in its lists are dropped and counted.

    Unknown fields are ignored; a missing required field is an InputError naming the record.
    """
    if not isinstance(export, dict) or not isinstance(export.get("ratings"), list):
        keys = ", ".join(map(_shown, list(export)[:8])) if isinstance(export, dict) else ""
        raise InputError(
            f"{where}: is no platform export: it needs an object with `guidelines` and `ratings`, "
            f"found {keys or 'none'}: give the answer of GET /exports"
        )
    counts: list[Count] = []
    lists = {name: _records(export, name, counts, where) for name in LISTS}
    ratings = pd.DataFrame(
        {
            "user_id": [_text(r, "authorId", "ratings", k, where) for k, r in lists["ratings"]],
            "guideline_id": [
                _text(r, "guidelineId", "ratings", k, where) for k, r in lists["ratings"]
            ],
            "value": [_text(r, "rating", "ratings", k, where) for k, r in lists["ratings"]],
        },
        dtype=object,
    )
    given = [r.get("updatedAt") or r.get("createdAt") for _, r in lists["ratings"]]
    places = [f"ratings[{k}]" for k, _ in lists["ratings"]]
    ratings["rated_at"] = times(given, where, places.__getitem__)
    return build(
        ratings,
        frame(
            "guidelines",
            [
                {
                    "guideline_id": _text(r, "id", "guidelines", k, where),
                    "text": _text(r, "value", "guidelines", k, where),
                    "topic_id": _optional(r, "topicId", "guidelines", k, where),
                    "author_id": _optional(r, "authorId", "guidelines", k, where),
                    **_prior(r, "guidelines", k, where),
                }
                for k, r in lists["guidelines"]
            ],
        ),
        frame(
            "users",
            [
                {"user_id": _text(r, "id", "users", k, where), **_prior(r, "users", k, where)}
                for k, r in lists["users"]
            ],
        ),
        frame(
            "topics",
            [
                {
                    "topic_id": _text(r, "id", "topics", k, where),
                    "title": _text(r, "title", "topics", k, where),
                    "description": _optional(r, "description", "topics", k, where),
                    "parent_id": _optional(r, "parentId", "topics", k, where),
                }
                for k, r in lists["topics"]
            ],
        ),
        choices,
        where=where,
        mu=_number(export.get("mu"), "mu", where),
        about=About(
            title="Simulated deliberation on an AI assistant" if simulated else "",
            description=(
                "How should an AI assistant behave? Is this guideline helpful?" if simulated else ""
            ),
            origin="simulated: planted by the package, nobody said any of this"
            if simulated
            else "platform export",
            simulated=simulated,
        ),
        counts=counts,
    )


def _records(
    export: Mapping[str, Any], name: str, counts: list[Count], where: str
) -> list[tuple[int, dict[str, Any]]]:
    items = export.get(name)
    items = [] if items is None else items
    if not isinstance(items, list):
        raise InputError(f"{where}: `{name}` is no list: download the export again")
    counts.append(Count(name, "read", "", len(items)))
    nulls = sum(item is None for item in items)
    if nulls:
        counts.append(Count(name, "dropped", "null", nulls))
    records = [(k, item) for k, item in enumerate(items) if item is not None]
    for k, item in records:
        if not isinstance(item, dict):
            raise InputError(f"{where}: {name}[{k}] is no object: download the export again")
    return records


def _text(record: Mapping[str, Any], key: str, name: str, k: int, where: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(
            f"{where}: {name}[{k}] (id {_shown(record.get('id'))}) has no `{key}`: "
            "mend the record or download the export again"
        )
    text = str(value)
    if key not in ("value", "title") and clean_text(text) != text:
        raise InputError(
            f"{where}: {name}[{k}]: `{key}` {_shown(text)} holds characters that no id may hold: "
            "mend the record"
        )
    return text


def _optional(record: Mapping[str, Any], key: str, name: str, k: int, where: str) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(
            f"{where}: {name}[{k}] (id {_shown(record.get('id'))}): `{key}` is {_shown(value)}, "
            "no text: mend the record"
        )
    return str(value)


def _number(value: Any, what: str, where: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # larger integers are no float, and larger floats (1e999) are infinite
    if not number or abs(value) > sys.float_info.max:
        raise InputError(f"{where}: {what} is {_shown(value)}, not a number: mend the record")
    return float(value)


def _prior(record: Mapping[str, Any], name: str, k: int, where: str) -> dict[str, Any]:
    """Intercept and embedding of an earlier model; an empty list means never trained."""
    place = f"{name}[{k}] (id {_shown(record.get('id'))})"
    embedding = record.get("embeddings")
    if embedding is not None and not isinstance(embedding, list):
        raise InputError(f"{where}: {place}: `embeddings` is no list: mend the record")
    numbers = [_number(v, f"{place}: embeddings", where) for v in embedding or []]
    if None in numbers:
        raise InputError(f"{where}: {place}: embeddings holds null: mend the record")
    intercept = _number(record.get("intercept"), f"{place}: intercept", where)
    return {"intercept": intercept, "embedding": numbers or None}


def _shown(value: object) -> str:
    """A value of the file in a message, however long or deeply nested it is."""
    return f"{reprlib.repr(value):.80}"


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no JSON number")
