"""The whole way, from a file to the report: `make bench ONLY=size`; and from Community Notes' files
to coded ratings: `make bench ONLY=notes`.

Simulated ratings are written as Parquet or TSV, shuffled, with ids as long as those of Community
Notes (64 and 19 characters), into a temporary folder; a process of its own goes from there.
"""

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from worlds import simulated

PART = 10_000_000

N_TAGS = 23
"""Columns of a rating that say why, of which none is read."""


def world(n: int):
    """Simulated ratings, the ids of users and of guidelines, and a random order of the ratings."""
    import polars as pl

    made = simulated(max(n // 100, 1000), max(n // 1000, 200), n)
    users = pl.Series([hashlib.sha256(b"%d" % k).hexdigest() for k in range(made.n_users)])
    guidelines = pl.Series([str(10**18 + 7919 * k) for k in range(made.n_guidelines)])
    return made, users, guidelines, np.random.default_rng(0).permutation(len(made))


def write(folder: Path, n: int, late: int = 0) -> None:
    """Files of ten million ratings at most; the `late` last ones are in a file of their own."""
    import polars as pl

    made, users, guidelines, order = world(n)
    early = order[: len(order) - late]
    parts = np.array_split(early, -(-len(early) // PART))
    for k, at in enumerate([*parts, *([order[len(early) :]] if late else [])]):
        pl.DataFrame(
            {
                "user_id": users.gather(made.user[at]),
                "guideline_id": guidelines.gather(made.guideline[at]),
                "rating": pl.Series(["not_helpful", "helpful"]).gather(
                    made.helpful[at].astype(np.int8)
                ),
                "rated_at": 1_700_000_000_000 + 1000 * np.asarray(at),
            }
        ).write_parquet(folder / f"part-{k:03d}.parquet")


def write_notes(folder: Path, n: int) -> None:
    """The same as Community Notes' files, as wide as theirs; one pair in 200 is rated twice."""
    import polars as pl

    made, users, notes, order = world(n)
    again = order[: len(order) // 200]
    order = np.append(order, again)
    at_ms = 1_700_000_000_000 + 1000 * order
    at_ms[len(order) - len(again) :] += 500  # the second rating is the later one
    random = np.random.default_rng(0)
    level = pl.Series(["NOT_HELPFUL", "HELPFUL"])
    n_parts = -(-len(order) // PART)
    parts = zip(np.array_split(order, n_parts), np.array_split(at_ms, n_parts), strict=True)
    for k, (at, times) in enumerate(parts):
        zeros = ("agree", "disagree", "helpful", "notHelpful")
        table = {
            "noteId": notes.gather(made.guideline[at]),
            "raterParticipantId": users.gather(made.user[at]),
            "createdAtMillis": times,
            "version": np.full(len(at), 2, np.int8),
            **dict.fromkeys(zeros, np.zeros(len(at), np.int8)),
            "helpfulnessLevel": level.gather(made.helpful[at].astype(np.int8)),
            **{f"tag{tag}": random.integers(0, 2, len(at), np.int8) for tag in range(N_TAGS)},
        }
        pl.DataFrame(table).write_csv(folder / f"ratings-{k:05d}.tsv", separator="\t")
    about = {"noteId": notes, "noteAuthorParticipantId": users[: len(notes)]}
    about |= {"createdAtMillis": np.full(len(notes), 1_700_000_000_000), "summary": notes}
    about |= {"classification": np.full(len(notes), "MISINFORMED_OR_POTENTIALLY_MISLEADING")}
    pl.DataFrame(about).write_csv(folder / "notes-00000.tsv", separator="\t")


def notes_coded(folder: str) -> dict[str, float]:
    """Seconds from Community Notes' files to coded ratings."""
    import aggregation as ag

    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    begun = time.perf_counter()
    given = ag.sections(source={"kind": "community-notes", "path": folder}, ratings={})
    ratings, _ = ag.encode(ag.read(given.source, given.ratings).ratings)
    return {
        "ratings": len(ratings),
        "files_gb": size / 1e9,
        "seconds": time.perf_counter() - begun,
        "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measure(folder: str) -> dict[str, float]:
    """Seconds of each step."""
    taken, begun = {}, time.perf_counter()

    def done(step: str) -> None:
        nonlocal begun
        taken[step], begun = time.perf_counter() - begun, time.perf_counter()

    import aggregation as ag
    from aggregation.runs.pages import report_page

    source = {"kind": "table", "path": folder, "columns": {"rated_at": "rated_at"}}
    text = json.dumps({"run": "size", "source": source})
    path = Path(folder) / "params.yaml"
    path.write_text(text, encoding="utf-8")
    given = ag.load_params(path)
    run = ag.RunFolder.of("size", folder)
    done("start")
    dataset = ag.read(given.source, given.ratings)
    done("read")
    run.save_dataset(dataset)
    done("save")
    ratings, ids = ag.encode(dataset.ratings)
    done("encode")
    fit = ag.fit(ratings)
    done("fit")
    run.save_fit(fit, ratings, ids)
    found = ag.collect(dataset, ratings, ids, fit, given.rule.rule())
    run.save_evidence(
        found, ag.minima_table(found.constitution.scores, given.rule.rule(), ids, fit)
    )
    done("evidence")
    page = report_page(run, run.load(), given, [])
    run.write_text("report/index.html", page)
    done("report")
    taken["all"] = sum(taken.values())
    taken["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return taken


def measured(n: int, *, notes: bool = False) -> dict[str, float]:
    """Seconds of each step and in all, and peak memory, of about `n` ratings."""
    with tempfile.TemporaryDirectory() as folder:
        (write_notes if notes else write)(Path(folder), n)
        command = [sys.executable, __file__, "notes_coded" if notes else "measure", folder]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"ratings": n} | json.loads(out.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
