"""Platform records: topics, guidelines, ratings and users of the platform, checked, as tables.

The platform writes the same records in several forms; each says what it calls their fields.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from aggregation.data.cleaning import Choices, build
from aggregation.data.dataset import About, Count, Dataset, clean_text, frame
from aggregation.errors import InputError
from aggregation.sources.readers import times

LISTS = ("topics", "guidelines", "ratings", "users")

Fields = Mapping[str, Mapping[str, tuple[str, ...]]]
"""For each table, for each of its columns: a kind, and what the field may be called.

The first name that a record has counts. Kinds: `id` and `text` (REQUIRED), `optional` is
a text too, `time`, `number`, `numbers`.
"""
REQUIRED = ("id", "text")


class Records:
    """The records of a deliberation, taken in one by one."""

    def __init__(
        self,
        fields: Fields,
        where: str,
        named: Callable[[str, Any], str],
        files: Mapping[str, str] | None = None,
    ) -> None:
        """`named` says a record's table and place in words; `files` is as in `build`."""
        self._fields = fields
        self._columns = {table: [[] for _ in columns] for table, columns in fields.items()}
        self._places: dict[str, list[Any]] = {table: [] for table in fields}
        self._nulls: dict[str, int] = dict.fromkeys(LISTS, 0)
        self._known: dict[str, str] = {}
        self._where, self._named, self._files = where, named, files or {}

    def add(self, table: str, record: Any, place: Any) -> None:
        """Take a record in; a null is counted. Raises InputError naming the record."""
        if record is None:
            self._nulls[table] += 1
            return
        if not isinstance(record, dict):
            where = self._at(table, place)
            raise InputError(f"{where} is no object: download the export again")
        self._places[table].append(place)
        fields, columns = self._fields[table].values(), self._columns[table]
        for (kind, *names), column in zip(fields, columns, strict=True):
            value = _first(record, names, kind)
            # One text for all that name the same id: a million ratings name few users.
            if kind == "id" and type(value) is str and value in self._known:
                column.append(self._known[value])
                continue
            try:
                value = CHECKS[kind](value, names[-1])
            except _BadError as bad:
                name = record.get("id")
                known = "" if name == place else f" (id {shown(name)})"
                raise InputError(f"{self._at(table, place)}{known}{bad}") from None
            column.append(self._known.setdefault(value, value) if kind == "id" else value)

    def dataset(self, choices: Choices, about: About, mu: Any = None) -> Dataset:
        """All that was taken in. Raises InputError."""
        counts: list[Count] = []
        for table in LISTS:
            n, nulls = len(self._places.get(table, [])), self._nulls[table]
            counts.append(Count(table, "read", "", n + nulls))
            if nulls:
                counts.append(Count(table, "dropped", "null", nulls))
        ratings = pd.DataFrame(dict(self._cells("ratings")), dtype=object)
        where, places = self._files.get("ratings", self._where), self._places["ratings"]
        ratings["rated_at"] = times(
            ratings["rated_at"], where, lambda k: self._named("ratings", places[k])
        )
        try:
            mu = _number(mu, "mu")
        except _BadError as bad:
            raise InputError(f"{self._where}{bad}") from None
        return build(
            ratings,
            self._frame("guidelines"),
            self._frame("users"),
            self._frame("topics"),
            choices,
            where=self._where,
            files=self._files,
            mu=mu,
            about=about,
            counts=counts,
        )

    def _cells(self, table: str) -> dict[str, list[Any]]:
        names = self._fields.get(table, {})
        return dict(zip(names, self._columns.get(table, []), strict=True))

    def _frame(self, table: str) -> pd.DataFrame:
        cells = self._cells(table)
        rows = zip(*cells.values(), strict=True)
        return frame(table, (dict(zip(cells, row, strict=True)) for row in rows))

    def _at(self, table: str, place: Any) -> str:
        return f"{self._files.get(table, self._where)}: {self._named(table, place)}"


def shown(value: object) -> str:
    """A value of the file in a message, however long or deeply nested it is."""
    return f"{reprlib.repr(value):.80}"


class _BadError(ValueError):
    """What is wrong with a field, as the end of a message that begins with the record."""


def _first(record: Mapping[str, Any], names: list[str], kind: str) -> Any:
    for name in names:
        value = record.get(name)
        if value is not None and (value or kind != "time"):  # a time may be given as ""
            return value
    return None


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _BadError(f" has no `{key}`: mend the record or download the export again")
    return str(value)


def _id(value: Any, key: str) -> str:
    text = _text(value, key)
    if clean_text(text) != text:
        raise _BadError(
            f": `{key}` {shown(text)} holds characters that no id may hold: mend the record"
        )
    return text


def _optional(value: Any, key: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _BadError(f": `{key}` is {shown(value)}, no text: mend the record")
    return str(value)


def _number(value: Any, key: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # larger integers are no float, and larger floats (1e999) are infinite
    if not number or abs(value) > sys.float_info.max:
        raise _BadError(f": {key} is {shown(value)}, not a number: mend the record")
    return float(value)


def _numbers(value: Any, key: str) -> list[float | None] | None:
    """An embedding of an earlier model; an empty list means never trained."""
    if value is not None and not isinstance(value, list):
        raise _BadError(f": `{key}` is no list: mend the record")
    numbers = [_number(v, key) for v in value or []]
    if None in numbers:
        raise _BadError(f": {key} holds null: mend the record")
    return numbers or None


CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "id": _id,
    "text": _text,
    "optional": _optional,
    "time": lambda value, _: value,  # `times` checks all at once
    "number": _number,
    "numbers": _numbers,
}
