"""Community Notes: the files that X publishes every day, as they are downloaded.

Columns as in the documentation, "Downloading data", and as the published scorer reads them
(github.com/twitter/communitynotes, 2026-07). Columns that are not named here are not read.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import polars as pl

from aggregation.data.choices import Choices
from aggregation.data.cleaning import Book, build
from aggregation.data.dataset import About, Count, Dataset
from aggregation.errors import InputError
from aggregation.params.schema import CommunityNotesSource
from aggregation.sources.readers import MAX_UNPACKED, check_names, first_line, times
from aggregation.sources.streams import coded

RATER, AUTHOR, CREATED = "raterParticipantId", "noteAuthorParticipantId", "createdAtMillis"

NEW_FORM = 1_664_755_200_000
"""2022-10-03, in milliseconds: notes that a post is not misleading are scored since then.
Their `notMisleadingUILaunchTime`."""

DELETED = "This note was deleted, and its text with it."


def read(source: CommunityNotesSource, choices: Choices) -> Dataset:
    """Notes are guidelines, raters users. Raises InputError."""
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check source.path")
    with tempfile.TemporaryDirectory(prefix="aggregation-") as unpacked:
        parts = {
            name: [_plain(path, Path(unpacked)) for path in _parts(folder, name, needed=needed)]
            for name, needed in {
                "notes": True,
                "ratings": True,
                "noteStatusHistory": False,
                "userEnrollment": bool(source.groups),
            }.items()
        }
        notes, counts = _notes(parts["notes"], parts["noteStatusHistory"])
        ratings = _ratings(parts["ratings"])
        book = Book(counts, {})
        book.add("read", "ratings", f"{len(parts['ratings'])} files", len(ratings))
        old = ratings["guideline_id"].isin(notes["guideline_id"][notes["old"]])
        reason = "an old note that a post is not misleading, which is not scored"
        ratings = book.take("dropped", "ratings", ratings, old, reason)
        if source.groups:
            members = _members(parts["userEnrollment"], source.groups)
            other = ~ratings["user_id"].isin(members)
            reason = "the rater is in none of source.groups"
            ratings = book.take("dropped", "ratings", ratings, other, reason)
    unrated = ~notes["guideline_id"].isin(ratings["guideline_id"].unique())
    reason = "no rating of the note counts"
    notes = book.take("dropped", "guidelines", notes, unrated, reason)
    tables = {"ratings": ratings, "guidelines": notes}
    del ratings  # build frees what it has used
    return build(
        tables,
        choices,
        where=str(folder),
        about=About(title="Community Notes", origin=f"Community Notes, files in {folder.name}"),
        counts=book.counts,
    )


def _parts(folder: Path, name: str, *, needed: bool) -> list[Path]:
    """The files of a table: notes-00000.tsv, ratings-00007.zip, or those in a folder ratings/."""
    inside = folder / name
    at = sorted(inside.glob("[!.]*") if inside.is_dir() else folder.glob(f"{name}*"))
    found = {path.stem: path for path in at if path.suffix.lower() == ".zip"}
    found |= {path.stem: path for path in at if path.suffix.lower() == ".tsv"}  # not read twice
    if needed and not found:
        raise InputError(
            f"{folder}: holds no {name}-00000.tsv or .zip: download it from "
            "x.com/i/communitynotes/download-data"
        )
    return [found[stem] for stem in sorted(found)]


def _plain(path: Path, unpacked: Path) -> Path:
    """The file itself, or the one that a .zip holds, unpacked."""
    if path.suffix.lower() != ".zip":
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            [inside] = [one for one in archive.infolist() if one.filename.endswith(".tsv")]
            if inside.file_size > MAX_UNPACKED:
                raise InputError(f"{path}: holds more than {MAX_UNPACKED >> 30} GB: unpack it")
            to = unpacked / f"{path.stem}.tsv"
            with archive.open(inside) as file, to.open("wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)
            return to
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        problem = first_line(error)
        raise InputError(f"{path}: is no whole .zip ({problem}): download it again") from None
    except ValueError:
        raise InputError(f"{path}: does not hold one .tsv file: download it again") from None


def _scan(path: Path, names: Sequence[str]) -> tuple[pl.LazyFrame, list[str]]:
    """A file as columns of text, and what they are called. Raises InputError if `names` lack."""
    try:
        rows = pl.scan_csv(path, separator="\t", quote_char=None, infer_schema=False)
        found = rows.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = first_line(error)
        raise InputError(f"{path.name}: is no table ({problem}): download it again") from None
    check_names({name: name for name in names}, found, Path(path.name))
    return rows, found


def _ratings(parts: Sequence[Path]) -> pd.DataFrame:
    """user_id, guideline_id, value, rated_at. `value` is helpfulnessLevel; before July 2021 there
    were the columns helpful and notHelpful instead.
    """
    scans = []
    for path in parts:
        rows, found = _scan(path, ("noteId", RATER, CREATED))
        levels = [pl.col("helpfulnessLevel")] if "helpfulnessLevel" in found else []
        old = {"notHelpful": "NOT_HELPFUL", "helpful": "HELPFUL"}
        marked = [
            pl.when(pl.col(name) == "1").then(pl.lit(value))
            for name, value in old.items()
            if name in found
        ]
        if not levels and len(marked) < len(old):
            check_names({"rating": "helpfulnessLevel"}, found, Path(path.name))
        value = pl.coalesce([pl.when(level != "").then(level) for level in levels] + marked)
        scans.append(
            rows.select(
                pl.col(RATER).alias("user_id"),
                pl.col("noteId").alias("guideline_id"),
                value.alias("value"),
                pl.col(CREATED).cast(pl.Float64, strict=False).alias("rated_at"),
            )
        )
    try:
        found = coded(pl.concat(scans), ("user_id", "guideline_id", "value"), ("rated_at",))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"ratings: {first_line(error)}: download the files again") from None
    return found.assign(rated_at=times(found["rated_at"], "ratings"))


def _table(parts: Sequence[Path], columns: Mapping[str, str]) -> pd.DataFrame:
    """The `columns` (new name -> name in the file) of a small table, as text."""
    tables = []
    for path in parts:
        rows, found = _scan(path, [name for name in columns.values() if name != AUTHOR])
        # The documentation calls the author participantId, the files have the longer name.
        known = {k: v if v in found else "participantId" for k, v in columns.items()}
        picked = rows.select(pl.col(v).alias(k) for k, v in known.items())
        try:
            tables.append(pd.DataFrame(picked.collect().to_dict(as_series=False), dtype="str"))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path.name}: {first_line(error)}: download it again") from None
    return pd.concat(tables, ignore_index=True).drop_duplicates(ignore_index=True)


def _notes(notes: Sequence[Path], history: Sequence[Path]) -> tuple[pd.DataFrame, list[Count]]:
    """guideline_id, text, author_id and `old`: whether the scorer leaves the note out.

    Notes that were deleted are known by their history alone.
    """
    columns = {"guideline_id": "noteId", "text": "summary", "author_id": AUTHOR}
    more = {"classification": "classification", "created": CREATED}
    found = _table(notes, columns | more)
    counts = [Count("guidelines", "read", "notes", len(found))]
    created = pd.to_numeric(found["created"], errors="coerce")
    old = found["classification"].eq("NOT_MISLEADING") & (created <= NEW_FORM)
    found = found[list(columns)].assign(old=old)
    if history:
        known = _table(history, {k: v for k, v in columns.items() if k != "text"})
        gone = known[~known["guideline_id"].isin(found["guideline_id"])]
        gone = gone.drop_duplicates("guideline_id").assign(text=DELETED, old=False)
        counts.append(Count("guidelines", "added", "deleted notes, by their history", len(gone)))
        found = pd.concat([found, gone], ignore_index=True)
    return found, counts


def _members(enrollment: Sequence[Path], groups: Sequence[int]) -> pd.Series:
    """The users in these modeling groups."""
    known = _table(enrollment, {"user_id": "participantId", "group": "modelingGroup"})
    return known["user_id"][pd.to_numeric(known["group"], errors="coerce").isin(groups)]
