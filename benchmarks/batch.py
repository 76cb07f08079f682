"""Eight small runs one after the other and two at a time, and a run with nothing to do.

    python benchmarks/batch.py [repetitions]

Needs two processors that are otherwise idle. Writes `benchmarks/batch.md`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("aggregation"))

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 80}
train: {starts: 2, max_starts: 2, moves: false}
"""


HEAD = """\
# Eight small runs, two at a time

`python benchmarks/batch.py`: a grid of 8 seeds, 80 simulated users each, on {cores} cores. Bars: a
ratio of 0.6 on 2 cores, and 2 s for a run with nothing changed.

| s, `-j 1` | s, `-j 2` | ratio | s, unchanged |
| --- | --- | --- | --- |
"""


def seconds(*words: str) -> float:
    begin = time.perf_counter()
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seeds = ",".join(map(str, range(1, 9)))
    rows = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as place:
            params = Path(place) / "small.yaml"
            params.write_text(PARAMS, encoding="utf-8")
            batch = ("batch", str(params), "--grid", f"seed={seeds}")
            one = seconds(*batch, "-j", "1", "--out", f"{place}/one")
            two = seconds(*batch, "-j", "2", "--out", f"{place}/two")
            own = ("--set", "run=small-seed_1", "--set", "seed=1", "--out", f"{place}/two")
            again = seconds("run", str(params), *own)
        rows.append(f"| {one:.1f} | {two:.1f} | {two / one:.2f} | {again:.2f} |\n")
        print(rows[-1], end="")
    text = HEAD.format(cores=os.cpu_count()) + "".join(rows)
    Path(__file__).with_name("batch.md").write_text(text, encoding="utf-8")


main()
