"""Platform file: what the platform gave, on disk, in whichever of its three forms it is.

The answer of `GET /exports`, the JSON tree of the download page, or its three CSV files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from aggregation.data.choices import Choices
from aggregation.data.dataset import About, Dataset
from aggregation.errors import InputError
from aggregation.params.schema import PlatformFileSource
from aggregation.sources.platform_export import (
    EXPORT,
    FORMS,
    BareGuideline,
    BareRating,
    BareTopic,
    NoExportError,
    bad_record,
    dataset,
    read_export,
    validate_file,
)
from aggregation.sources.readers import read_csv


class TreeGuideline(BareGuideline):
    """A guideline with its ratings by their ids."""

    ratings: NotRequired[dict[str, BareRating | None] | None]


class TreeTopic(BareTopic):
    """A topic with its guidelines and the topics below it, by their ids."""

    guidelines: NotRequired[dict[str, TreeGuideline | None] | None]
    children: NotRequired[dict[str, TreeTopic | None] | None]


TREE = TypeAdapter(dict[str, TreeTopic | None])
CSV_COLUMNS = {
    "topics": {"id", "title"},
    "guidelines": {"id", "value"},
    "ratings": {"rating", "guidelineId"},
}
"""Columns by which each of the three CSV files is known; the last of them that fits counts."""


def read(source: PlatformFileSource, choices: Choices) -> Dataset:
    """Read a JSON file, an export or a tree, or a folder with the three CSV files.

    Raises InputError naming the file and the record.
    """
    path = Path(source.path).expanduser()
    try:
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check source.path") from None
    except (OSError, ValueError):  # no folder: to read it as a file says what is wrong, if anything
        return _read_json(path, choices)
    cells = {file: read_csv(file) for file in files if file.suffix.lower() == ".csv"}
    known = CSV_COLUMNS.items()
    tables = {f: table for f in cells for table, names in known if names <= {*cells[f].columns}}
    if sorted(tables.values()) != sorted(CSV_COLUMNS):
        found = ", ".join(f"{f.name} ({tables.get(f, 'unknown columns')})" for f in cells) or "none"
        raise InputError(f"{path}: is no platform export: found {found:.300}: {FORMS}")
    return _read_csvs(path, {tables[file]: (file, cells[file]) for file in tables}, choices)


def _read_json(path: Path, choices: Choices) -> Dataset:
    try:
        return read_export(path, choices, str(path))
    except NoExportError as problem:
        try:
            tree = validate_file(TREE, path)
        except ValidationError as error:
            inside = len(error.errors(include_input=False)[0]["loc"]) > 2
            raise bad_record(path, error) if inside else problem from None
    tables: dict[str, list[Any]] = {"topics": [], "guidelines": [], "ratings": []}
    _flatten(tree, None, tables)
    return dataset(tables, choices, str(path), About(origin="platform export (JSON tree)"), {})


def _flatten(tree: Mapping[str, Any], parent: str | None, tables: dict[str, list[Any]]) -> None:
    """Add the records of a tree to the lists, with the ids that say where they stood."""
    for topic_id, topic in tree.items():
        tables["topics"].append(topic and topic | {"topic_id": topic_id, "parent_id": parent})
        for guideline_id, guideline in ((topic or {}).get("guidelines") or {}).items():
            ids = {"guideline_id": guideline_id, "topic_id": topic_id}
            tables["guidelines"].append(guideline and guideline | ids)
            ratings = ((guideline or {}).get("ratings") or {}).values()
            tables["ratings"] += [r and r | {"guideline_id": guideline_id} for r in ratings]
        _flatten((topic or {}).get("children") or {}, topic_id, tables)


def _read_csvs(
    folder: Path, files: Mapping[str, tuple[Path, pd.DataFrame]], choices: Choices
) -> Dataset:
    """The three files with their cells; a blank cell is a missing field."""
    paths = {table: str(path) for table, (path, _) in files.items()}
    records = {
        table: [{k: cell for k, cell in row.items() if cell} for row in cells.to_dict("records")]
        for table, (_, cells) in files.items()
    }
    try:
        tables = EXPORT.validate_python(records)
    except ValidationError as error:
        table = str(error.errors(include_input=False)[0]["loc"][0])
        raise bad_record(paths[table], error) from None
    about = About(origin="platform export (CSV files)")
    return dataset(tables, choices, str(folder), about, paths)
