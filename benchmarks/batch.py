"""Eight small runs one after the other and two at a time, and a run with nothing to do.

    python benchmarks/batch.py [repetitions]

Needs two processors that are otherwise idle. Prints ratios; the lowest of the repetitions counts
least affected by what else the machine did.
"""

from __future__ import annotations

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


def seconds(*words: str) -> float:
    begin = time.perf_counter()
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seeds = ",".join(map(str, range(1, 9)))
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as place:
            params = Path(place) / "small.yaml"
            params.write_text(PARAMS, encoding="utf-8")
            batch = ("batch", str(params), "--grid", f"seed={seeds}")
            one = seconds(*batch, "-j", "1", "--out", f"{place}/one")
            two = seconds(*batch, "-j", "2", "--out", f"{place}/two")
            again = seconds(
                "run",
                str(params),
                "--set",
                "run=small-seed_1",
                "--set",
                "seed=1",
                "--out",
                f"{place}/two",
            )
        print(f"-j 1 {one:.1f} s, -j 2 {two:.1f} s, ratio {two / one:.2f}; unchanged {again:.2f} s")


main()
