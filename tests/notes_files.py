"""Files of Community Notes as X publishes them, with what is odd about the real ones.

Columns and their order as in the documentation and the published scorer of 2026-07.
"""

import hashlib
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd

HELPFUL_TAGS = """Other Informative Clear Empathetic GoodSources UniqueContext AddressesClaim
ImportantContext UnbiasedLanguage"""
OTHER_TAGS = """Other Incorrect SourcesMissingOrUnreliable OpinionSpeculationOrBias MissingKeyPoints
Outdated HardToUnderstand ArgumentativeOrBiased OffTopic SpamHarassmentOrAbuse IrrelevantSources
OpinionSpeculation NoteNotNeeded"""
TAGS = [f"helpful{tag}" for tag in HELPFUL_TAGS.split()]
TAGS += [f"notHelpful{tag}" for tag in OTHER_TAGS.split()]

LEVELS = {0.0: "NOT_HELPFUL", 0.5: "SOMEWHAT_HELPFUL", 1.0: "HELPFUL"}

BEFORE, AFTER = 1_612_000_000_000, 1_700_000_000_000
"""Milliseconds: in the first year, and since helpfulnessLevel and the new form."""


@dataclass
class Notes:
    """What was planted, and where: ratings has user_id, guideline_id, helpful."""

    ratings: pd.DataFrame
    kind: dict[str, str]
    """Of each note: shared, divisive, deleted, old or unrated."""
    group: dict[str, int]
    """Modeling group of each user."""


def write(folder, seed=0, users=300, notes=60, share=0.4, parts=3):
    """Write all files; return what was planted, the last rating of each pair.

    Messy on purpose: a part is zipped, a later part has columns that an earlier one lacks, fields
    are empty, pairs occur twice, ratings have the old columns, notes have no ratings or were
    deleted, texts hold quotes.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    user_id = [hashlib.sha256(f"{seed} {k}".encode()).hexdigest().upper() for k in range(users)]
    note_id = [str(1_350_000_000_000_000_000 + 7_919 * k) for k in range(notes)]
    kind = dict(zip(note_id, random.choice(["shared", "divisive"], notes), strict=True))
    kind |= dict(zip(note_id[-6:], ["deleted"] * 2 + ["old"] * 2 + ["unrated"] * 2, strict=True))
    position = random.choice([-1.0, 1.0], users, p=[0.4, 0.6]) * random.uniform(0.5, 1.5, users)
    slope = np.array([random.choice([-2, 2]) if kind[n] == "divisive" else 0.0 for n in note_id])
    quality = random.normal(0.9, 0.7, notes)
    quality[slope != 0] = 0.2
    u, g = np.nonzero(random.random((users, notes)) < share)
    rated = np.array([kind[n] != "unrated" for n in note_id])[g]
    u, g = u[rated], g[rated]
    logit = quality[g] + position[u] * slope[g] + random.normal(0, 0.7, len(u))
    helpful = np.select([logit > 0.4, logit > -0.2], [1.0, 0.5], 0.0)

    order = random.permutation(len(u))
    u, g, helpful = u[order], g[order], helpful[order]
    again = random.choice(len(u), len(u) // 50, replace=False)  # rated a second time, later
    u, g = np.append(u, u[again]), np.append(g, g[again])
    helpful = np.append(helpful, random.choice([0.0, 0.5, 1.0], len(again)))
    at = AFTER + np.arange(len(u)) * 1000
    old = (np.arange(len(u)) < len(u) // 20) & (helpful != 0.5)
    at[old] = BEFORE + np.flatnonzero(old)
    table = pd.DataFrame(
        {
            "noteId": np.array(note_id)[g],
            "raterParticipantId": np.array(user_id)[u],
            "createdAtMillis": at,
            "version": np.where(old, 1, 2),
            "agree": 0,
            "disagree": 0,
            "helpful": np.where(old, (helpful == 1).astype(int), 0),
            "notHelpful": np.where(old, (helpful == 0).astype(int), 0),
            "helpfulnessLevel": np.where(old, "", [LEVELS[h] for h in helpful]),
            **{tag: random.integers(0, 2, len(u)) for tag in TAGS},
            "ratedOnTweetId": "1",
            "ratingSourceBucketed": random.choice(["DEFAULT", "POPULATION_SAMPLED", ""], len(u)),
        }
    )
    said_nothing = table.iloc[:3].assign(helpful=0, notHelpful=0, helpfulnessLevel="")
    said_nothing = said_nothing.assign(raterParticipantId="NOBODY")
    cuts = np.linspace(0, len(table), parts + 1).astype(int)
    for k in range(parts):
        part = table.iloc[cuts[k] : cuts[k + 1]]
        if k == 0:
            part = pd.concat([part, said_nothing])
        if k == parts - 1:  # columns came later
            part = part.assign(suggestion='he said "no', suggestionId="", unknown="x")
        _write(folder / f"ratings-{k:05d}.tsv", part, zipped=k == 1)

    there = [n for n in note_id if kind[n] != "deleted"]
    author = dict(zip(note_id, random.choice(user_id, notes), strict=True))
    written = {n: AFTER if kind[n] != "old" else BEFORE for n in note_id}
    about = {
        n: "NOT_MISLEADING" if kind[n] == "old" else "MISINFORMED_OR_POTENTIALLY_MISLEADING"
        for n in note_id
    }
    _write(
        folder / "notes-00000.tsv",
        pd.DataFrame(
            {
                "noteId": there,
                "noteAuthorParticipantId": [author[n] for n in there],
                "createdAtMillis": [written[n] for n in there],
                "tweetId": "1",
                "classification": [about[n] for n in there],
                "believable": "",
                "summary": [f'Note {n}: it is not "so", see https://x.example/{n}' for n in there],
                "isMediaNote": 0,
                "isCollaborativeNote": 0,
            }
        ),
    )
    _write(
        folder / "noteStatusHistory-00000.tsv",
        pd.DataFrame(
            {
                "noteId": note_id,
                "noteAuthorParticipantId": [author[n] for n in note_id],
                "createdAtMillis": [written[n] for n in note_id],
                "timestampMillisOfFirstNonNMRStatus": "",
                "currentStatus": "NEEDS_MORE_RATINGS",
            }
        ),
        zipped=True,
    )
    group = {n: int(k) for n, k in zip(user_id, random.integers(1, 4, users), strict=True)}
    _write(
        folder / "userEnrollment-00000.tsv",
        pd.DataFrame(
            {
                "participantId": user_id,
                "enrollmentState": "earnedIn",
                "modelingPopulation": "CORE",
                "modelingGroup": [float(group[n]) for n in user_id],
            }
        ),
    )
    last = pd.DataFrame(
        {
            "user_id": table["raterParticipantId"],
            "guideline_id": table["noteId"],
            "helpful": helpful,
        }
    )
    last = last.assign(at=at).sort_values("at", kind="stable")
    last = last.drop_duplicates(["user_id", "guideline_id"], keep="last").drop(columns="at")
    return Notes(last, kind, group)


def _write(path, table, *, zipped=False):
    text = "\n".join("\t".join(map(str, row)) for row in [table.columns, *table.to_numpy()])
    if zipped:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.name, text + "\n")
    else:
        path.write_text(text + "\n", encoding="utf-8")
