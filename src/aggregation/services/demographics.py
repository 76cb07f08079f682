"""Demographics: what Prolific knows of the people who took part, and what may be shown of it.

A row names a participant, so rows go nowhere but into the body that is posted. Everything else
gets counts, and none of fewer than `MIN_CELL_SIZE` people.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from aggregation.data.dataset import Count
from aggregation.data.suppression import MIN_CELL_SIZE, suppressed
from aggregation.errors import InputError

Row = dict[str, str]
"""A submission: column -> cell, as in the CSV."""

PARTICIPANT, STATUS, COMPLETED = "Participant id", "Status", "Completed at"

CATEGORIES = {
    column.removesuffix(" simplified").lower(): column
    for column in (
        *("Age", "Sex", "Country of residence", "Employment status", "Ethnicity simplified"),
        *("Nationality", "Student status", "Language", "Country of birth"),
    )
}
"""What the platform's public page shows, and the column of the CSV that holds it."""

REQUIRED = (PARTICIPANT, STATUS, COMPLETED, *CATEGORIES.values())

REVOKED, EXPIRED = "CONSENT_REVOKED", "DATA_EXPIRED"
"""Prolific's marks: the person withdrew; the answer is no longer known."""

LEFT_OUT = ("RETURNED", "TIMED-OUT", "REJECTED")
UNKNOWN = "unknown"
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Cleaned:
    """Submissions that may be used. Shows itself without them, for they name participants."""

    studies: dict[str, list[Row]] = field(repr=False)
    """study id -> its submissions, in the order of the CSV; these are posted."""
    people: list[Row] = field(repr=False)
    """One submission per participant, over all studies; these are counted."""
    counts: tuple[Count, ...] = ()
    """What became of the submissions that were read."""

    def fates(self) -> pd.DataFrame:
        """What became of the submissions that were read, as a table."""
        return pd.DataFrame(list(self.counts))


def parse(data: bytes, where: str) -> list[Row]:
    """The submissions in a CSV of Prolific's: UTF-8, with or without a byte-order mark.

    Raises InputError naming `where` (the study) and the line, and never what a cell holds.
    """
    rows: list[Row] = []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8 text: export it again") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        wrong = _wrong_header(list(reader.fieldnames or ()))
        while not wrong and (row := next(reader, None)) is not None:
            wrong = _wrong_row(row)
            rows.append(row)
    except csv.Error as error:
        wrong = f"{error}: export it again"
    if wrong:
        raise InputError(f"{where}, line {max(reader.reader.line_num, 1)}: {wrong}")
    return rows


def clean(
    rows_by_study: Mapping[str, Sequence[Row]], left_out: Collection[str] = LEFT_OUT
) -> Cleaned:
    """Leave out who withdrew consent and these statuses; find the people behind the rest.

    Who withdrew in one study is left out of all. Of a participant's several submissions the one
    completed last is counted; where none is later, the one of the study whose id sorts last.
    """
    rows = [(study, row) for study in sorted(rows_by_study) for row in rows_by_study[study]]
    withdrawn = {_participant(row) for _, row in rows if _withdrew(row)}
    unwanted = {_words(status) for status in left_out}
    dropped: Counter[str] = Counter()
    studies: dict[str, list[Row]] = {study: [] for study in sorted(rows_by_study)}
    for study, row in rows:
        status = _words(row[STATUS])
        if _participant(row) in withdrawn:
            dropped["consent withdrawn"] += 1
        elif status in unwanted:
            dropped[f"status {status}"] += 1
        else:
            studies[study].append(row)
    kept = [row for of_study in studies.values() for row in of_study]
    # sorted() is stable: rows completed at the same time stay in the order of their studies
    people = {_participant(row): row for row in sorted(kept, key=_completed)}
    differing = {p for row in kept if _answers(row) != _answers(people[p := _participant(row)])}
    counts: tuple[tuple[Any, str, int], ...] = (
        ("read", "", len(rows)),
        *(("dropped", why, n) for why, n in sorted(dropped.items())),
        ("merged", "the same participant", len(kept) - len(people)),
        ("kept", "", len(people)),
        ("note", "participants with differing answers: the last completed counts", len(differing)),
    )
    return Cleaned(studies, [*people.values()], tuple(Count("submissions", *c) for c in counts))


def body(cleaned: Cleaned) -> bytes:
    """The body of `POST /prolific/demographics`, the same bytes every time. It names people."""
    content = {"studyIdToDemoData": cleaned.studies}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def counts(cleaned: Cleaned, least: int = MIN_CELL_SIZE) -> pd.DataFrame:
    """How many people gave each answer, without any number that tells of fewer than `least`.

    Columns: category, value, n (int, or None where suppressed), suppressed. The first row,
    category `people`, is the total. A category that cannot be shown at all is one row without a
    value.
    """
    n_people = len(cleaned.people)
    enough = n_people >= least
    table = [("people", "all", n_people if enough else None, not enough)]
    answers = [_answers(row) for row in cleaned.people]
    for category in CATEGORIES:
        cells = Counter(answer[category] for answer in answers)
        held = suppressed(cells, least)
        if held is None:
            table.append((category, "", None, True))
            continue
        table += [
            (category, value, None if value in held else cells[value], value in held)
            for value in _ordered(category, cells, held)
        ]
    # dtype=object: numbers stay whole beside None, which pandas would make floats and NaN
    frame = pd.DataFrame(table, columns=["category", "value", "n", "suppressed"], dtype=object)
    return frame.astype({"category": "str", "value": "str", "suppressed": bool})


def _wrong_header(header: list[str]) -> str:
    """What is wrong with it, and the remedy; empty: nothing."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        what = f"is no demographic export: it has no column {missing[0]!r}"
        return f"{what}: look at it on Prolific, or try the other demographics.endpoint"
    twice = [name for name in header if header.count(name) > 1]
    return f"the column {twice[0]!r:.80} occurs twice: export it again" if twice else ""


def _wrong_row(row: Row) -> str:
    if None in row or None in row.values():  # as DictReader marks cells too many or too few
        return "has more or fewer cells than the header: export it again"
    if _withdrew(row):
        return ""
    if _participant(row) in ("", EXPIRED):
        return f"has no {PARTICIPANT!r}: export it again"
    try:
        _completed(row)
    except ValueError:
        return f"{COMPLETED!r} is no ISO 8601 time: export it again"
    return ""


def _participant(row: Row) -> str:
    return row[PARTICIPANT].strip()


def _withdrew(row: Row) -> bool:
    return any(REVOKED in cell.upper() for cell in row.values())


def _words(status: str) -> str:
    """One spelling of a status: the services write TIMED-OUT, TIMED_OUT and timed out."""
    return re.sub(r"[\s_-]+", "-", status.strip().upper())


def _completed(row: Row) -> datetime:
    """When the submission was completed; before all others if it was not, or nobody knows."""
    text = row[COMPLETED].strip()
    if text in ("", EXPIRED):
        return NEVER
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _answers(row: Row) -> dict[str, str]:
    """A value for each category, ages in bars of five years."""
    given = {category: row[column].strip() for category, column in CATEGORIES.items()}
    known = {c: UNKNOWN if value in ("", EXPIRED) else value for c, value in given.items()}
    return known | {"age": _bar(known["age"])}


def _bar(age: str) -> str:
    if not re.fullmatch(r"[0-9]{1,3}", age):
        return UNKNOWN
    first = int(age) // 5 * 5
    return f"{first}-{first + 4}"


def _ordered(category: str, cells: Mapping[str, int], held: set[str]) -> list[str]:
    """Ages upwards; else the largest first. The order of values held back tells nothing of them."""
    if category == "age":
        return sorted(cells, key=lambda bar: (len(bar), bar))  # 5-9, 20-24, 100-104, unknown
    shown = sorted(set(cells) - held, key=lambda value: (-cells[value], value))
    return shown + sorted(held)
