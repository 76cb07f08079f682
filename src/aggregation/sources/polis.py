"""Polis: the folder of a conversation's export (comments.csv, votes, summary.csv)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aggregation.data.choices import Choices
from aggregation.data.cleaning import build
from aggregation.data.dataset import About, Count, Dataset
from aggregation.errors import InputError
from aggregation.params.schema import PolisSource
from aggregation.sources.readers import need, read_csv, times

COMMENTS = "comments.csv"
LOG = "votes.csv"
MATRICES = ("participants-votes.csv", "participant-votes.csv")
MODERATION = {"1": "accepted", "0": "not moderated", "-1": "rejected"}
LEFT_OUT = {"all": (), "lenient": ("rejected",), "strict": ("rejected", "not moderated")}
"""Which statements each setting of source.moderation leaves out."""


def read(source: PolisSource, choices: Choices) -> Dataset:
    """Statements are guidelines, participants users; votes are agree, disagree or pass.

    In votes.csv, an event log, the last vote of a participant on a statement counts. The sign of
    agree differs between exports and is checked against the export's own totals. Raises InputError.
    """
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check source.path")
    comments = _comments(folder / COMMENTS, source)
    reasons = comments["left_out"]
    counts = [Count("guidelines", "read", f"statements in {COMMENTS}", len(comments))]
    for reason, n in reasons.value_counts().sort_index().items():
        counts.append(Count("guidelines", "dropped", str(reason), int(n)))

    log, file = folder / LOG, folder / LOG
    matrix = next((folder / name for name in MATRICES if (folder / name).exists()), None)
    if source.votes == "log" or (source.votes == "auto" and log.exists()):
        votes = _log(log)
    elif matrix is not None:
        file, votes = matrix, _matrix(matrix)
    else:
        raise InputError(f"{folder}: holds neither {LOG} nor {MATRICES[0]}: export it again")
    if votes.empty:
        raise InputError(f"{file}: holds no votes: export the file again")
    agree = source.agree if source.agree != "infer" else _agree(votes, matrix, folder, file)
    votes["value"] = votes.pop("vote").map({agree: "agree", -agree: "disagree", 0: "pass"})
    counts.append(Count("ratings", "read", f"votes in {file.name}", len(votes)))
    counts.append(Count("ratings", "note", f"{agree} means agree in {file.name}", len(votes)))
    outside = votes["guideline_id"].map(dict(zip(comments["guideline_id"], reasons, strict=True)))
    for reason, n in outside.value_counts().sort_index().items():
        counts.append(Count("ratings", "dropped", f"the statement is left out: {reason}", int(n)))
    return build(
        {"ratings": votes[outside.isna()], "guidelines": comments[reasons.isna()]},
        choices,
        where=str(folder),
        files={"guidelines": str(folder / COMMENTS), "ratings": str(file)},
        about=_about(folder),
        counts=counts,
    )


def _comments(path: Path, source: PolisSource) -> pd.DataFrame:
    """The statements; `left_out` says why one is left out, null: it is not."""
    table = read_csv(path)
    names = {"guideline_id": "comment-id", "text": "comment-body", "author_id": "author-id"}
    comments = need(table, names | {"moderated": "moderated"}, path)
    state = comments["moderated"].map(MODERATION)
    _check(state.isna(), comments["moderated"], path, "moderated")
    refused = state.isin(LEFT_OUT[source.moderation])
    reason = (state + f" (moderation: {source.moderation})").where(refused)
    if "is-meta" in table and source.meta == "drop":
        meta = table["is-meta"].str.lower().isin(["true", "t", "1"])
        reason = reason.mask(meta & reason.isna(), "about the conversation itself (meta: drop)")
    return comments.assign(left_out=reason)


def _log(path: Path) -> pd.DataFrame:
    names = {"user_id": "voter-id", "guideline_id": "comment-id", "vote": "vote"}
    votes = need(read_csv(path), names | {"rated_at": "timestamp"}, path)
    at = times(votes["rated_at"], str(path))
    return votes.assign(rated_at=at, vote=_numbers(votes["vote"], path))


def _matrix(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    need(table, {"user_id": "participant", "n_agree": "n-agree"}, path)
    statements = [name for name in table.columns if name.isdigit()]
    if not statements:
        raise InputError(f"{path}: has no column named by a statement's number: export it again")
    table = table[["participant", *statements]].rename(columns={"participant": "user_id"})
    votes = table.melt("user_id", statements, "guideline_id", "vote", ignore_index=False)
    votes = votes[votes["vote"].str.strip() != ""]
    never = pd.Series(pd.NaT, index=votes.index, dtype="datetime64[ms, UTC]")
    return votes.assign(vote=_numbers(votes["vote"], path), rated_at=never)


def _numbers(votes: pd.Series, path: Path) -> pd.Series:
    number = pd.to_numeric(votes, errors="coerce")
    _check(~number.isin([-1, 0, 1]), votes, path, "the vote")
    return number.astype(int)


def _check(bad: pd.Series, cells: pd.Series, path: Path, what: str) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{path}, row {cells.index[at] + 1}: {what} is {cells.iloc[at]!r:.40}, not 1, 0 or -1: "
            "export the file again"
        )


def _agree(votes: pd.DataFrame, matrix: Path | None, folder: Path, file: Path) -> int:
    """Which of 1 and -1 means agree: the one whose totals are closer to the export's own."""
    if matrix is None:  # agrees counts every event
        path, counted, key, total = folder / COMMENTS, "guideline_id", "comment-id", "agrees"
    else:
        path, counted, key, total = matrix, "user_id", "participant", "n-agree"
        votes = votes.sort_values("rated_at", kind="stable", na_position="first")
        votes = votes.drop_duplicates(["user_id", "guideline_id"], keep="last")
    totals = need(read_csv(path), {"id": key, "n": total}, path)
    told = pd.Series(pd.to_numeric(totals["n"], errors="coerce").to_numpy(), index=totals["id"])
    miss = {}
    for sign in (1, -1):
        ours = votes[votes["vote"] == sign].groupby(counted).size()
        miss[sign] = float((told - ours.reindex(told.index).fillna(0)).abs().sum())
    if miss[1] == miss[-1]:
        raise InputError(f"{file}: cannot tell whether 1 or -1 means agree: set source.agree")
    return min(miss, key=lambda sign: miss[sign])


def _about(folder: Path) -> About:
    path = folder / "summary.csv"
    if not path.exists():
        return About(origin=f"Polis conversation {folder.name}")
    table = read_csv(path)  # has no header: its first row is one of the facts
    rows = [[*table.columns], *table.to_numpy().tolist()]
    facts = {row[0].strip(): row[-1].strip() for row in rows}
    return About(
        title=facts.get("topic", ""),
        description=facts.get("conversation-description", ""),
        origin=f"Polis conversation {facts.get('url') or folder.name}",
    )
