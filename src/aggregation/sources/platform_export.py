"""Platform export: the answer of `GET /exports`, parsed or on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aggregation.data.cleaning import Choices
from aggregation.data.dataset import About, Dataset
from aggregation.errors import InputError
from aggregation.sources.json_reader import open_json
from aggregation.sources.platform_records import LISTS, Records, shown

PRIOR = {"intercept": ("number", "intercept"), "embedding": ("numbers", "embeddings")}
FIELDS = {
    "topics": {
        "topic_id": ("id", "id"),
        "title": ("text", "title"),
        "description": ("optional", "description"),
        "parent_id": ("optional", "parentId"),
    },
    "guidelines": {
        "guideline_id": ("id", "id"),
        "text": ("text", "value"),
        "topic_id": ("optional", "topicId"),
        "author_id": ("optional", "authorId"),
        **PRIOR,
    },
    "ratings": {
        "user_id": ("id", "authorId"),
        "guideline_id": ("id", "guidelineId"),
        "value": ("id", "rating"),
        "rated_at": ("time", "updatedAt", "createdAt"),
    },
    "users": {"user_id": ("id", "id"), **PRIOR},
}
REAL = About(origin="platform export")
SIMULATED = About(
    title="Simulated deliberation on an AI assistant",
    description="How should an AI assistant behave? Is this guideline helpful?",
    origin="simulated: planted by the package, nobody said any of this",
    simulated=True,
)
FORMS = (
    "give the answer of GET /exports,\nor what the platform's download page writes: a JSON tree of "
    "topics,\nor a folder with its three CSV files (topics, guidelines, ratings)"
)
"""The three forms, as the remedy of a message."""


def from_export(export: Any, choices: Choices, where: str, *, simulated: bool = False) -> Dataset:
    """A Dataset from the export as parsed JSON; nulls in its lists are dropped and counted.

    Unknown fields are ignored; a missing required field is an InputError naming the record.
    """
    if not isinstance(export, dict) or not isinstance(export.get("ratings"), list):
        raise no_export(where, list(export) if isinstance(export, dict) else [])
    records = Records(FIELDS, where, _named)
    for table in LISTS:
        items = export.get(table)
        if items is not None and not isinstance(items, list):
            raise _no_list(where, table)
        _take_in(records, table, items or [])
    return records.dataset(choices, SIMULATED if simulated else REAL, export.get("mu"))


def read_export(path: Path, choices: Choices, where: str) -> Dataset:
    """What `from_export` gives, in the memory of a Dataset: the file is never held whole."""
    records = Records(FIELDS, where, _named)
    found: list[str] = []
    mu, rated = None, False
    with open_json(path) as json:
        if json.kind() != "{":
            json.value()
            json.end()
            raise no_export(where, ())
        for key in json.fields():
            found.append(key)
            if key in LISTS and json.kind() == "[":
                _take_in(records, key, json.items())
                rated |= key == "ratings"
                continue
            value = json.value()
            if key == "mu":
                mu = value
            elif key in ("topics", "guidelines", "users") and value is not None:
                raise _no_list(where, key)
        json.end()
    if not rated:
        raise no_export(where, found)
    return records.dataset(choices, REAL, mu)


def no_export(where: str, keys: Iterable[str]) -> InputError:
    """The error of what is none of the platform's three forms; `keys` were found in it."""
    found = ", ".join(map(shown, list(keys)[:8])) or "none"
    return InputError(
        f"{where}: is no platform export: it needs an object with `guidelines` and `ratings`, "
        f"found {found}: {FORMS}"
    )


def _no_list(where: str, table: str) -> InputError:
    return InputError(f"{where}: `{table}` is no list: download the export again")


def _take_in(records: Records, table: str, items: Iterable[Any]) -> None:
    for k, item in enumerate(items):
        records.add(table, item, k)


def _named(table: str, place: int) -> str:
    return f"{table}[{place}]"
