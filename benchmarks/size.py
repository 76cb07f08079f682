"""Measure the whole way, from a file to the report: `python benchmarks/size.py [RATINGS...]`.

Writes simulated ratings as Parquet, shuffled, with ids as long as those of Community Notes (64 and
19 characters), into a temporary folder, and goes from there to the report in a process of its own.
Prints seconds of each step, all of them, and peak memory. From 5e7 ratings on it ends with the fit.
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

SIZES = (1e5, 1e6, 1e7)
WHOLE = 5e7
PART = 10_000_000


def write(folder: Path, n: int) -> None:
    """Files of ten million ratings at most."""
    import polars as pl

    made = simulated(max(n // 100, 1000), max(n // 1000, 200), n)
    users = pl.Series([hashlib.sha256(b"%d" % k).hexdigest() for k in range(made.n_users)])
    guidelines = pl.Series([str(10**18 + 7919 * k) for k in range(made.n_guidelines)])
    order = np.random.default_rng(0).permutation(len(made))
    for k, at in enumerate(np.array_split(order, -(-len(made) // PART))):
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


def measure(folder: str, n: int) -> dict[str, float]:
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
    if n < WHOLE:
        run.save_dataset(dataset)
        done("save")
    ratings, ids = ag.encode(dataset.ratings)
    done("encode")
    fit = ag.fit(ratings)
    done("fit")
    if n < WHOLE:
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


def main(sizes: list[float]) -> None:
    rows = []
    for size in sizes:
        n = int(size)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n)
            out = subprocess.run(
                [sys.executable, __file__, "--in", folder, str(n)],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parent,
            )
        rows.append((n, json.loads(out.stdout.splitlines()[-1])))
        columns = ("start", "read", "save", "encode", "fit", "evidence", "report", "all", "GB")
        cells = " | ".join(f"{rows[-1][1][c]:.2f}" if c in rows[-1][1] else "" for c in columns)
        print(f"| {n:,} | {cells} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main([float(word) for word in sys.argv[1:]] or list(SIZES))
