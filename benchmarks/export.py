"""Measure the reading of a large export: `python benchmarks/export.py [RATINGS]`.

Writes what the platform would answer (1,000,000 ratings, 20,000 users, 5,000 guidelines, ids as
UUIDs, embeddings, fields that nobody asked for) into a temporary folder, reads it in a process of
its own, and prints seconds and peak memory beside the bars.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

SECONDS, GIGABYTES = 15, 2  # the bars
USERS, GUIDELINES = 20_000, 5_000
DIMENSIONS = 8


def ids(random, n: int) -> list[str]:
    """That many UUIDs."""
    return [str(uuid.UUID(bytes=random.bytes(16), version=4)) for _ in range(n)]


def ratings(random, users: list[str], guidelines: list[str], n: int):
    """The ratings as the platform writes them, one by one."""
    moments = np.datetime64("2024-05-01T00:00:00.000") + random.integers(0, 10**10, n)
    who, which = random.integers(0, len(users), n), random.integers(0, len(guidelines), n)
    liked = random.random(n) < 0.7
    for id_, user, guideline, helpful, at in zip(
        ids(random, n), who, which, liked, np.datetime_as_string(moments), strict=True
    ):
        yield {
            "id": id_,
            "authorId": users[user],
            "guidelineId": guidelines[guideline],
            "rating": "helpful" if helpful else "not_helpful",
            "createdAt": f"{at}Z",
            "updatedAt": f"{at}Z",
            "version": 1,
            "deleted": False,
        }


def trained(random, id_: str) -> dict:
    """A user or guideline with what an earlier model says of it."""
    embeddings = [round(x, 9) for x in random.normal(size=DIMENSIONS)]
    return {"id": id_, "embeddings": embeddings, "intercept": round(random.normal(), 9)}


def write_export(path: Path, n: int) -> None:
    """The answer of `GET /exports`, a rating at a time. One text holds what ASCII does not."""
    random = np.random.default_rng(0)
    users, guidelines = ids(random, USERS), ids(random, GUIDELINES)
    topics = [{"id": f"t{k}", "title": f"Topic {k}", "description": ""} for k in range(50)]
    known = [
        trained(random, g) | {"value": f"Guideline {k} \U0001f600", "topicId": f"t{k % 50}"}
        for k, g in enumerate(guidelines)
    ]
    whole = {"mu": 0.5, "topics": topics, "guidelines": known}
    whole["users"] = [trained(random, u) for u in users]
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:-1])
        file.write(',"ratings":[')
        for k, rating in enumerate(ratings(random, users, guidelines, n)):
            file.write("," * (k > 0) + json.dumps(rating, separators=(",", ":")))
        file.write("]}")


def reading(path: str) -> dict:
    """Seconds, and peak memory before (what imports take) and after."""
    from aggregation import read, sections

    given = sections(source={"kind": "platform-file", "path": path}, ratings={})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = read(given.source, given.ratings)
    return {
        "ratings": len(found.ratings),
        "seconds": time.perf_counter() - began,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "before_gb": before / 1e6,
    }


def call(*words) -> bytes:
    """What a process of its own prints: on Linux, peak memory is handed down from its parent."""
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.json"
        call("--write", path, n)
        size = path.stat().st_size / 1e6
        load = os.getloadavg()[0]
        r = json.loads(call("--read", path))
    print(f"{n:,} ratings, {size:.0f} MB of JSON, {r['ratings']:,} pairs; load {load:.2f}")
    print(f"{r['seconds']:.1f} s (bar {SECONDS})")
    print(f"{r['peak_gb']:.2f} GB at most (bar {GIGABYTES}), {r['before_gb']:.2f} GB before")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(reading(sys.argv[2])))
    elif sys.argv[1:2] == ["--write"]:
        write_export(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
