"""The whole way, from a file to the report: `make bench ONLY=size`.

Simulated ratings are written as Parquet, shuffled, with ids as long as those of Community Notes (64
and 19 characters), into a temporary folder; a process of its own goes from there to the report.
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


def write(folder: Path, n: int, late: int = 0) -> None:
    """Files of ten million ratings at most; the `late` last ones are in a file of their own."""
    import polars as pl

    made = simulated(max(n // 100, 1000), max(n // 1000, 200), n)
    users = pl.Series([hashlib.sha256(b"%d" % k).hexdigest() for k in range(made.n_users)])
    guidelines = pl.Series([str(10**18 + 7919 * k) for k in range(made.n_guidelines)])
    order = np.random.default_rng(0).permutation(len(made))
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


def measured(n: int) -> dict[str, float]:
    """Seconds of each step and in all, and peak memory, of about `n` ratings."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n)
        command = [sys.executable, __file__, folder]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"ratings": n} | json.loads(out.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
