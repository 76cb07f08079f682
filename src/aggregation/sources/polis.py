"""Polis: the folder of a conversation's export (comments.csv, votes, summary.csv)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from aggregation.data.cleaning import Choices, build
from aggregation.data.dataset import About, Count, Dataset, frame
from aggregation.errors import InputError
from aggregation.params import PolisSource
from aggregation.sources.readers import need, read_csv, read_text, times

COMMENTS = "comments.csv"
LOG = "votes.csv"
MATRICES = ("participants-votes.csv", "participant-votes.csv")
MODERATION = {"1": "accepted", "0": "not moderated", "-1": "rejected"}


def read(source: PolisSource, choices: Choices) -> Dataset:
    """Statements are guidelines, participants users; votes are agree, disagree or pass.

    In votes.csv, an event log, the last vote of a participant on a statement counts. The sign of
    agree differs between exports and is checked against the export's own totals. Raises InputError.
    """
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        problem = "is a file: give the folder that holds it"
        missing = "there is no such folder: check source.path"
        raise InputError(f"{folder}: {problem if folder.exists() else missing}")
    counts: list[Count] = []
    comments = _comments(folder, source, counts)
    matrix = next((folder / name for name in MATRICES if (folder / name).exists()), None)
    log = folder / LOG
    if source.votes == "log" or (source.votes == "auto" and log.exists()):
        votes = _log(log)
        file = log
    elif matrix is not None:
        votes = _matrix(matrix)
        file = matrix
    else:
        raise InputError(f"{folder}: holds neither {LOG} nor {MATRICES[0]}: export it again")
    if votes.empty:
        raise InputError(f"{file}: holds no votes: export the file again")
    counts.append(Count("ratings", "read", f"votes in {file.name}", len(votes)))
    agree = source.agree if source.agree != "infer" else _agree(votes, matrix, folder, file)
    counts.append(Count("ratings", "note", f"{agree} means agree in {file.name}", len(votes)))
    words = {agree: "agree", -agree: "disagree", 0: "pass"}
    votes["value"] = votes.pop("vote").map(words)
    left_out = dict(zip(comments["guideline_id"], comments["left_out"], strict=True))
    outside = votes["guideline_id"].map(left_out)
    for reason in sorted(outside.dropna().loc[lambda r: r != ""].unique()):
        gone = outside.eq(reason)
        counts.append(
            Count("ratings", "dropped", f"the statement is left out: {reason}", int(gone.sum()))
        )
        votes, outside = votes[~gone], outside[~gone]
    kept = comments[comments["left_out"] == ""]
    return build(
        votes,
        frame("guidelines", kept.to_dict("records")),  # pyright: ignore[reportArgumentType]
        frame("users", []),
        frame("topics", []),
        choices,
        where=str(folder),
        files={"guidelines": str(folder / COMMENTS), "ratings": str(file)},
        about=_about(folder),
        counts=counts,
    )


def _comments(folder: Path, source: PolisSource, counts: list[Count]) -> pd.DataFrame:
    path = folder / COMMENTS
    table = read_csv(path)
    names = {"guideline_id": "comment-id", "text": "comment-body", "author_id": "author-id"}
    comments = need(table, names | {"moderated": "moderated"}, path)
    strange = ~comments["moderated"].isin(list(MODERATION))
    if strange.any():
        at = int(np.argmax(strange.to_numpy()))
        raise InputError(
            f"{path}, row {at + 1}: moderated is {comments['moderated'].iloc[at]!r:.40}, "
            "not 1, 0 or -1: export the file again"
        )
    out = pd.Series("", index=comments.index, dtype=object)
    state = comments["moderated"].map(MODERATION)
    refused = {
        "all": [],
        "lenient": ["rejected"],
        "strict": ["rejected", "not moderated"],
    }[source.moderation]
    for word in refused:
        out[state.eq(word).to_numpy()] = f"{word} (moderation: {source.moderation})"
    if "is-meta" in table and source.meta == "drop":
        meta = table["is-meta"].str.lower().isin(["true", "t", "1"]).to_numpy()
        out[meta & out.eq("").to_numpy()] = "about the conversation itself (meta: drop)"
    comments["left_out"] = out
    counts.append(Count("guidelines", "read", "statements in comments.csv", len(comments)))
    for reason, n in out[out != ""].value_counts().sort_index().items():
        counts.append(Count("guidelines", "dropped", str(reason), int(n)))
    return comments


def _log(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    names = {"user_id": "voter-id", "guideline_id": "comment-id", "vote": "vote"}
    votes = need(table, names | {"rated_at": "timestamp"}, path)
    votes["rated_at"] = times(votes["rated_at"], str(path))
    votes["vote"] = _numbers(votes["vote"], path)
    return votes


def _matrix(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    need(table, {"user_id": "participant", "n_agree": "n-agree"}, path)
    comments = [name for name in table.columns if name.isdigit()]
    votes = table[["participant", *comments]].melt("participant", comments, "guideline_id", "vote")
    votes = votes[votes["vote"].str.strip() != ""].reset_index(drop=True)
    votes = votes.rename(columns={"participant": "user_id"})
    votes["vote"] = _numbers(votes["vote"], path)
    votes["rated_at"] = pd.Series(pd.NaT, index=votes.index, dtype="datetime64[ms, UTC]")
    return votes


def _numbers(votes: pd.Series, path: Path) -> pd.Series:
    number = pd.to_numeric(votes, errors="coerce")
    bad = ~number.isin([-1, 0, 1])
    if bad.any():
        at = int(np.argmax(bad.to_numpy()))
        raise InputError(
            f"{path}, row {at + 1}: the vote is {votes.iloc[at]!r:.40}, not 1, 0 or -1: "
            "export the file again"
        )
    return number.astype(int)


def _agree(votes: pd.DataFrame, matrix: Path | None, folder: Path, file: Path) -> int:
    """Which of 1 and -1 means agree: the one whose totals are closer to the export's own."""
    last = votes.sort_values("rated_at", kind="stable", na_position="first")
    last = last.drop_duplicates(["user_id", "guideline_id"], keep="last")
    if matrix is not None:
        totals, key, column, counted = read_csv(matrix), "participant", "n-agree", "user_id"
    else:
        totals, key, column, counted = (
            read_csv(folder / COMMENTS),
            "comment-id",
            "agrees",
            "guideline_id",
        )
        last = votes  # agrees counts every event
    told = need(totals, {"id": key, "n": column}, matrix or folder / COMMENTS)
    told = pd.Series(pd.to_numeric(told["n"], errors="coerce").to_numpy(), index=told["id"])
    miss = {}
    for sign in (1, -1):
        ours = last[last["vote"] == sign].groupby(counted).size()
        miss[sign] = float((told - ours.reindex(told.index).fillna(0)).abs().sum())
    if miss[1] == miss[-1]:
        raise InputError(
            f"{file}: cannot tell whether 1 or -1 means agree: say source.agree: 1 or -1"
        )
    return min(miss, key=lambda sign: miss[sign])


def _about(folder: Path) -> About:
    path = folder / "summary.csv"
    if not path.exists():
        return About(origin=f"Polis conversation {folder.name}")
    try:
        rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        told = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    except csv.Error as error:
        raise InputError(f"{path}: {error}: mend the quotes, or export the file again") from None
    url = told.get("url", "")
    return About(
        title=told.get("topic", ""),
        description=told.get("conversation-description", ""),
        origin=f"Polis conversation {url or folder.name}",
    )
