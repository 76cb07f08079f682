"""Platform forms: what the platform's download page writes, a JSON tree or three CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from aggregation.data.cleaning import Choices
from aggregation.data.dataset import About, Dataset
from aggregation.errors import InputError
from aggregation.sources.json_reader import JsonReader, open_json
from aggregation.sources.platform_records import REQUIRED, Records, shown

TABLES = {
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
        "author_id": ("optional", "authorId", "author_id"),
    },
    "ratings": {
        "user_id": ("id", "author_id"),
        "guideline_id": ("id", "guidelineId"),
        "value": ("id", "rating"),
        "rated_at": ("time", "updated_at", "updatedAt", "created_at", "createdAt"),
    },
}
"""The two forms mix two ways to write names; of fields that only some exports have, both are read.
What lies around a record of a tree is put into it as `id`, `parentId`, `topicId`, `guidelineId`."""

# tree

TOPIC = ("title", "guidelines", "children")
"""Fields by which a topic of the tree is known."""

Walk = Iterator["Walk"]
"""A walk over a part of the tree, which yields the walks over parts of that."""


def read_tree(path: Path, choices: Choices, where: str) -> Dataset:
    """Topics within topics, guidelines in topics, ratings in guidelines. Raises InputError."""
    records = Records(TABLES, where, lambda table, place: f"{table} {shown(place)}")
    with open_json(path) as json:
        tree = _Tree(json, records, where)
        walks = [tree.topics(None)]
        while walks:  # no recursion: a tree may be deeper than the stack
            part = next(walks[-1], None)
            if part is None:
                walks.pop()
            else:
                walks.append(part)
        json.end()
    return records.dataset(choices, About(origin="platform export (JSON tree)"))


class _Tree:
    """The walks over a tree; each begins at an object and ends behind it."""

    def __init__(self, json: JsonReader, records: Records, where: str) -> None:
        self._json, self._records, self._where = json, records, where

    def topics(self, parent: str | None) -> Walk:
        for topic in self._members("topics", f"children of topic {shown(parent)}"):
            yield self._topic(topic, parent)

    def _topic(self, topic: str, parent: str | None) -> Walk:
        record = {}
        for key in self._json.fields():
            if key == "children":
                yield self.topics(topic)
            elif key == "guidelines":
                for guideline in self._members(key, f"guidelines of topic {shown(topic)}"):
                    self._guideline(guideline, topic)
            else:
                record[key] = self._json.value()
        self._records.add("topics", record | {"id": topic, "parentId": parent}, topic)

    def _guideline(self, guideline: str, topic: str) -> None:
        record = {}
        for key in self._json.fields():
            if key == "ratings":
                for rating in self._members(key, f"ratings of guideline {shown(guideline)}"):
                    found = self._json.value() | {"id": rating, "guidelineId": guideline}
                    self._records.add(key, found, rating)
            else:
                record[key] = self._json.value()
        self._records.add("guidelines", record | {"id": guideline, "topicId": topic}, guideline)

    def _members(self, table: str, what: str) -> Iterator[str]:
        """Keys of the object that comes next, if any; those of no object are dealt with here."""
        if self._json.kind() != "{":
            if self._json.value() is not None:
                raise InputError(f"{self._where}: {what}: is no object: download the tree again")
            return
        for key in self._json.fields():
            if self._json.kind() == "{":
                yield key
            else:
                self._records.add(table, self._json.value(), key)


# CSV


def table_of(cells: pd.DataFrame) -> str | None:
    """Which of the three tables the columns are those of."""
    for table in ("ratings", "guidelines", "topics"):  # the others may have a `title` too
        fields = TABLES[table].values()
        if all(name in cells for kind, *names in fields if kind in REQUIRED for name in names):
            return table
    return None


def read_tables(files: Mapping[str, tuple[Path, pd.DataFrame]], choices: Choices) -> Dataset:
    """The three files with their cells, as `read_csv` gives them. Raises InputError.

    A blank cell is a missing field.
    """
    paths = {table: str(path) for table, (path, _) in files.items()}
    where = str(files["ratings"][0].parent)
    records = Records(TABLES, where, lambda _, row: f"row {row}", paths)
    for table, (_, cells) in files.items():
        known = ["id", *(name for _, *names in TABLES[table].values() for name in names)]
        names = [name for name in dict.fromkeys(known) if name in cells]
        rows = zip(*(cells[name] for name in names), strict=True)
        for k, row in enumerate(rows, start=1):
            given = {name: cell or None for name, cell in zip(names, row, strict=True)}
            records.add(table, given, k)
    return records.dataset(choices, About(origin="platform export (CSV files)"))
