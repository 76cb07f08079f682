"""Small deliberations on disk, and what every reading of one has to keep to."""

import csv
import json

from aggregation import InputError, read
from aggregation.params.loading import sections

EVENTS = ["timestamp", "datetime", "comment-id", "voter-id", "vote"]
COMMENTS = ["timestamp", "comment-id", "author-id", "agrees", "disagrees", "moderated"]
RATINGS = ["user_id", "guideline_id", "rating"]


def reading(kind, path, ratings=None, **source):
    """The Dataset that the parameters `source` and `ratings` say."""
    given = sections(source={"kind": kind, "path": str(path), **source}, ratings=ratings or {})
    return read(given.source, given.ratings)


def attempt(read, *args, **kwargs):
    """What `read` gives and None, or None and the message of its InputError; nothing else."""
    try:
        return read(*args, **kwargs), None
    except InputError as error:
        return None, str(error)


def rows_to(path, header, rows, delimiter=","):
    """Write a table as Python's csv module does; gives the path back."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def export_to(path, **changes):
    """Write a platform export of two users and two guidelines with some parts changed."""
    export = {
        "topics": [{"id": "t1", "title": "Tone", "description": "How it speaks"}],
        "guidelines": [
            {"id": "g1", "value": "Be brief.", "topicId": "t1"},
            {"id": "g2", "value": "Be kind.", "topicId": "t1"},
        ],
        "ratings": [
            {"id": "r1", "authorId": "u1", "guidelineId": "g1", "rating": "helpful"},
            {"id": "r2", "authorId": "u2", "guidelineId": "g1", "rating": "not_helpful"},
            {"id": "r3", "authorId": "u2", "guidelineId": "g2", "rating": "helpful"},
        ],
        "users": [{"id": "u1"}, {"id": "u2"}],
        "mu": None,
    }
    path.write_text(json.dumps(export | changes), encoding="utf-8")
    return path


def polis_folder(folder, events, comments, matrix=None, *, body="Statement {}", extra=None):
    """A Polis export.

    `events`: (timestamp, statement, participant, vote); None: no votes.csv. `comments`:
    (statement, author, agrees, moderated). `matrix`: participant -> (n-agree, {statement: vote}).
    `extra`: more columns of comments.csv, name -> cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extra = extra or {}
    rows = [
        [1700000000000, c, author, agrees, 0, moderated]
        + [column[k] for column in extra.values()]
        + [body.format(c)]
        for k, (c, author, agrees, moderated) in enumerate(comments)
    ]
    rows_to(folder / "comments.csv", [*COMMENTS, *extra, "comment-body"], rows)
    if events is not None:
        rows = [[at, "some day", statement, who, vote] for at, statement, who, vote in events]
        rows_to(folder / "votes.csv", EVENTS, rows)
    if matrix is not None:
        statements = sorted({s for _, votes in matrix.values() for s in votes})
        rows = [
            [who, 0, 0, len(votes), agrees, 0, *(votes.get(s, "") for s in statements)]
            for who, (agrees, votes) in matrix.items()
        ]
        header = ["participant", "group-id", "n-comments", "n-votes", "n-agree", "n-disagree"]
        rows_to(folder / "participants-votes.csv", [*header, *statements], rows)
    return folder


def cells(dataset):
    """(user, guideline) -> helpful."""
    r = dataset.ratings
    return dict(zip(zip(r["user_id"], r["guideline_id"], strict=True), r["helpful"], strict=True))


def counted(dataset, table, action, reason=""):
    """How many rows of the table met that fate, for reasons that contain `reason`."""
    return sum(
        c.n for c in dataset.counts if (c.table, c.action) == (table, action) and reason in c.reason
    )


def assert_conserved(dataset):
    """read + added - dropped - merged = kept = rows, for every table."""
    for table in ("ratings", "guidelines", "users", "topics"):
        n = {a: counted(dataset, table, a) for a in ("read", "added", "dropped", "merged", "kept")}
        assert n["read"] + n["added"] - n["dropped"] - n["merged"] == n["kept"], (table, n)
        assert n["kept"] == len(getattr(dataset, table)), table
        assert all(count >= 0 for count in n.values()), (table, n)


def assert_says(error, *parts):
    """The message holds every part: the file, the place, the remedy."""
    message = str(error.value)
    missing = [str(part) for part in parts if str(part) not in message]
    assert not missing, f"{missing} not in: {message}"
