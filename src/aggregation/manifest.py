"""Manifest: what a run was made from and what it made, by hash. Nothing in it changes with time."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aggregation import __version__
from aggregation.params import Params

ROOT = Path(__file__).resolve().parents[2]
"""The project: its notebooks, lock and history."""

LOCK = ".lock"
"""Held by the process that runs."""

VOLATILE = ("timing.json", "manifest.json", "published", "source", LOCK)
"""Not among the outputs: what tells times, and what came from the platform (an input)."""
LIBRARIES = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "matplotlib", "papermill")


def manifest(params: Params, folder: Path) -> dict[str, Any]:
    """The content of manifest.json for a finished run."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    made = [
        p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.relative_to(folder).parts[0] not in VOLATILE
    ]
    return {
        "run": params.run,
        "seed": params.seed,
        "input": _inputs(params, folder),
        "parameters": sha256(folder / "params.yaml"),
        "lock": sha256(ROOT / "requirements.lock"),
        "notebooks": {p.name: sha256(p) for p in notebooks},
        "package": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "processor": platform.machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "outputs": {p.relative_to(folder).as_posix(): sha256(p) for p in made},
    }


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hex; empty if it is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inputs(params: Params, folder: Path) -> dict[str, str]:
    """Name and hash of each file that the source names or sent; none for a simulated one."""
    if params.source.kind == "platform":
        return {"export.json": sha256(folder / "source" / "export.json")}
    named = [getattr(params.source, key, None) for key in ("path", "guidelines")]
    files: list[Path] = []
    for name in filter(None, named):
        path = Path(name)
        files += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return {path.name: sha256(path) for path in files}


def _git(*words: str) -> str:
    """Answer of git about the project; empty where it is no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
