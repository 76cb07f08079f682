"""Platform file: what the platform gave, on disk, in whichever of its three forms it is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aggregation.data.cleaning import Choices
from aggregation.data.dataset import Dataset
from aggregation.errors import InputError
from aggregation.params import PlatformFileSource
from aggregation.sources.json_reader import open_json
from aggregation.sources.platform_export import FORMS, from_export, read_export
from aggregation.sources.platform_forms import TOPIC, read_tables, read_tree, table_of
from aggregation.sources.platform_records import LISTS
from aggregation.sources.readers import read_csv

__all__ = ["from_export", "read", "read_export"]


def read(source: PlatformFileSource, choices: Choices) -> Dataset:
    """Read an export, a JSON tree, or a folder of CSV files or of one JSON file.

    Raises InputError naming the file and the record.
    """
    path = Path(source.path).expanduser()
    files = _files(path)
    if files is None:
        return _read_json(path, choices)
    documents = [file for file in files if file.suffix.lower() == ".json"]
    tables = [(p, read_csv(p)) for p in files if p.suffix.lower() == ".csv"]
    known = [(table, file, cells) for file, cells in tables if (table := table_of(cells))]
    if len(documents) == 1 and not known:
        return _read_json(documents[0], choices)
    if documents or sorted(table for table, _, _ in known) != ["guidelines", "ratings", "topics"]:
        found = [f"{file.name} ({table_of(cells) or _columns(cells)})" for file, cells in tables]
        found = ", ".join([*(file.name for file in documents), *found]) or "no such file"
        raise InputError(f"{path}: is no platform export: found {found:.300}: {FORMS}")
    return read_tables({table: (file, cells) for table, file, cells in known}, choices)


def _read_json(path: Path, choices: Choices) -> Dataset:
    form = read_tree if _is_tree(path) else read_export
    return form(path, choices, str(path))


def _is_tree(path: Path) -> bool:
    """Whether a topic comes before any list of an export. Reads no further than that."""
    with open_json(path) as json:
        for key in json.fields() if json.kind() == "{" else ():
            if key in LISTS or key == "mu":
                return False
            if json.kind() != "{":
                json.value()
                continue
            for field in json.fields():
                if field in TOPIC:
                    return True
                json.value()
    return False


def _files(path: Path) -> list[Path] | None:
    """What a folder holds, but for what systems hide in it; None where it is no folder."""
    try:
        return sorted(file for file in path.iterdir() if not file.name.startswith("."))
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check source.path") from None
    except (OSError, ValueError):  # to read it as a file says what is wrong, if anything
        return None


def _columns(cells: pd.DataFrame) -> str:
    return "with " + ", ".join(f"{name:.40}" for name in cells.columns[:8])
