"""New ratings: `make bench ONLY=daily`.

A simulated world as `size.py` writes it, one in a hundred ratings in a last file. A fit of the old
ones is at hand. Then the new ones are read and added, and all are fitted from the earlier model;
beside it all files are read and fitted from scratch, in the same process, compiled already. Whether
both fits accept the same guidelines is looked at as well.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from size import write

import aggregation as ag

GUIDELINE = ("guideline_intercept", "guideline_embedding")


def coded(folder: Path):
    """The ratings of a folder, coded."""
    columns = {"rated_at": "rated_at"}
    source = {"kind": "table", "path": str(folder), "columns": columns}
    given = ag.sections(source=source, ratings={})
    return ag.read(given.source, given.ratings).ratings


def accepted(ratings: ag.Ratings, ids: ag.Ids, fit: ag.Fit) -> set[str]:
    """What `aligned-2023` accepts."""
    scores = ag.select(ag.score(ratings, ids, fit.parameters), ag.ALIGNED_2023).scores
    return set(scores.loc[scores["verdict"] == "accepted", "guideline_id"])


def measure(folder: str) -> dict[str, float]:
    """Seconds of each step, and how far the two fits are apart."""
    taken: dict[str, float] = {}

    def timed(step, work, *given, **options):
        began = time.perf_counter()
        done = work(*given, **options)
        taken[step] = time.perf_counter() - began
        return done

    whole, late = Path(folder), Path(folder) / "late"
    late.mkdir()
    last = max(whole.glob("*.parquet"))
    last.rename(late / last.name)
    ratings, ids = ag.encode(coded(whole))
    earlier = ag.fit(ratings).parameters

    new = timed("new_read", coded, late)
    ratings, both = timed("new_append", ag.append, ratings, ids, new)
    warm = timed("new_reindex", ag.reindex, earlier, ids, both)
    for _ in range(2):  # the second is compiled already, as the one from scratch below
        found = timed("new_fit", ag.fit, ratings, warm_start=warm)
    del ratings, new, warm, earlier
    (late / last.name).rename(whole / last.name)

    table = timed("read", coded, whole)
    ratings, ids = timed("encode", ag.encode, table)
    del table
    cold = timed("fit", ag.fit, ratings)
    sets = [accepted(ratings, ids, fit) for fit in (found, cold)]
    apart = (getattr(found.parameters, n) - getattr(cold.parameters, n) for n in GUIDELINE)
    return taken | {
        "ratings": len(ratings),
        "continued": found.continued,
        "accepted": len(sets[1]),
        "otherwise": len(sets[0] ^ sets[1]),
        "loss_apart": abs(found.objective / cold.objective - 1),
        "guidelines_apart": max(float(np.abs(x).max()) for x in apart),
        "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measured(n: int) -> dict[str, float]:
    """`measure` of about `n` ratings, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n, late=n // 100)
        command = [sys.executable, __file__, folder]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
