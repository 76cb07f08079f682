"""Platform export: the records of the platform, and the answer of `GET /exports`."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pandas as pd
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from aggregation.data.choices import Choices
from aggregation.data.cleaning import build
from aggregation.data.dataset import TABLES, About, Count, Dataset
from aggregation.errors import InputError
from aggregation.sources.readers import read_bytes, read_text, times

MAX_PARAMETER = 1e6
"""Largest size of an intercept or of a number of an embedding. Ratings lie in [0, 1], so a model of
them has parameters near 1; squares and products of larger numbers soon overflow."""

Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Number = Annotated[
    float, Field(strict=True, allow_inf_nan=False, ge=-MAX_PARAMETER, le=MAX_PARAMETER)
]

FIRST_ERROR = Field(fail_fast=True)
"""Of a list with a million broken records, one is named."""


def _called(*names: str) -> Any:
    """What a field may be called: the platform's two forms differ."""
    return Field(validation_alias=AliasChoices(*names))


# The records, under the names of our columns. What a tree says by where a record stands, an export
# says by one more field.


class BareTopic(TypedDict):
    """What a topic says of itself."""

    title: Text
    description: NotRequired[Text | None]


class Topic(BareTopic):
    """A topic, its id, and the topic above it."""

    topic_id: Annotated[Text, _called("id")]
    parent_id: Annotated[NotRequired[Text | None], _called("parentId")]


class BareGuideline(TypedDict):
    """What a guideline says of itself."""

    text: Annotated[Text, _called("value")]
    author_id: Annotated[NotRequired[Text | None], _called("authorId", "author_id")]


class _Trained(TypedDict):
    intercept: NotRequired[Number | None]
    embedding: Annotated[NotRequired[list[Number] | None], _called("embeddings")]


class Guideline(BareGuideline, _Trained):
    """A guideline, its id, its topic, and what an earlier model says of it."""

    guideline_id: Annotated[Text, _called("id")]
    topic_id: Annotated[NotRequired[Text | None], _called("topicId")]


class BareRating(TypedDict):
    """Who rated, how and when."""

    user_id: Annotated[Text, _called("authorId", "author_id")]
    value: Annotated[Text, _called("rating")]
    updated: Annotated[NotRequired[Text | None], _called("updatedAt", "updated_at")]
    created: Annotated[NotRequired[Text | None], _called("createdAt", "created_at")]


class Rating(BareRating):
    """A rating, and of what."""

    guideline_id: Annotated[Text, _called("guidelineId")]


class User(_Trained):
    """A user, and what an earlier model says of it."""

    user_id: Annotated[Text, _called("id")]


class Export(TypedDict):
    """The answer of `GET /exports`. Unknown fields are ignored; nulls in lists stay, as None."""

    ratings: Annotated[list[Rating | None], FIRST_ERROR]
    guidelines: NotRequired[Annotated[list[Guideline | None], FIRST_ERROR] | None]
    users: NotRequired[Annotated[list[User | None], FIRST_ERROR] | None]
    topics: NotRequired[Annotated[list[Topic | None], FIRST_ERROR] | None]
    mu: NotRequired[Number | None]


EXPORT = TypeAdapter(Export)
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


def read_export(
    export: Path | dict[str, Any], choices: Choices, where: str, about: About = REAL
) -> Dataset:
    """A Dataset from the export, a file or parsed JSON; nulls in its lists are dropped and counted.

    Raises InputError naming the record, such as `ratings.12.guidelineId`.
    """
    try:
        if isinstance(export, Path):
            tables = validate_file(EXPORT, export)
        else:
            tables = EXPORT.validate_python(export)
    except ValidationError as error:
        raise bad_record(where, error) from None
    return dataset(tables, choices, where, about, {})


def validate_file(adapter: TypeAdapter[Any], path: Path) -> Any:
    """The JSON of the file as the adapter's type.

    Raises InputError where it is no JSON, ValidationError where it is JSON of another shape.
    """
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    # A text that was cut within a character may end in half of it, which the parser refuses.
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        data = ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        if first["type"] != "json_invalid":
            raise
    read_text(path)  # says if it is no UTF-8
    problem = first["msg"].removeprefix("Invalid JSON: ")
    raise InputError(f"{path}: is no JSON ({problem}): download the export again")


ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape of JSON. Group 1: half of a pair, which stands for no character."""


class NoExportError(InputError):
    """A document without the list of ratings that every export has."""


def bad_record(where: str | Path, error: ValidationError) -> InputError:
    """The error of a record that lacks something, or holds what cannot be used."""
    first = error.errors(include_url=False)[0]
    place = ".".join(f"{part!s:.80}" for part in first["loc"])
    place = f"{place if place.isprintable() else ascii(place)}: " if place else ""
    found = "" if first["type"] == "missing" else f", found {reprlib.repr(first['input']):.80}"
    problem = f"{where}: {place}{first['msg']}{found}"
    if first["loc"] in ((), ("ratings",)):
        return NoExportError(f"{problem}: {FORMS}")
    return InputError(f"{problem}: mend the record, or download the export again")


def dataset(
    tables: Mapping[str, Any], choices: Choices, where: str, about: About, files: Mapping[str, str]
) -> Dataset:
    """A Dataset from lists of records, in which None stands for a null, and perhaps `mu`.

    `files` is as in `build`. Raises InputError.
    """
    counts, raw = [], {}
    for table in ("topics", "guidelines", "ratings", "users"):
        records = tables.get(table) or []
        raw[table] = _columns(table, records)
        nulls = len(records) - len(raw[table])
        counts.append(Count(table, "read", "", len(records)))
        counts += [Count(table, "dropped", "null", nulls)] if nulls else []
    ratings = raw["ratings"]
    ratings["rated_at"] = times(ratings["rated_at"], files.get("ratings", where))
    mu = tables.get("mu")
    return build(raw, choices, where=where, files=files, mu=mu, about=about, counts=counts)


def _columns(table: str, records: list[Any]) -> pd.DataFrame:
    """Records as a frame; its index is their place in the list."""
    kept = [record for record in records if record is not None]
    cells = {name: [record.get(name) for record in kept] for name in TABLES[table]}
    if "embedding" in cells:
        cells["embedding"] = [embedding or None for embedding in cells["embedding"]]
    if table == "ratings":
        cells["value"] = [record["value"] for record in kept]
        cells["rated_at"] = [record.get("updated") or record.get("created") for record in kept]
    index = [k for k, record in enumerate(records) if record is not None]
    return pd.DataFrame(cells, index=index, dtype=object)
