"""Manifest: what a run was made from and what it made, by hash. Nothing in it changes with time."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aggregation import __version__
from aggregation.errors import RunError
from aggregation.folder import RunFolder
from aggregation.params import Params
from aggregation.seal import is_sealed, sealed
from aggregation.stages import ROOT, Record, sha256

MANIFEST, PARTIAL = "manifest.json", "manifest.partial.json"
"""Of a run that is whole, and of one that is under way or has stopped."""

LIBRARIES = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "matplotlib", "papermill")


def surroundings() -> dict[str, Any]:
    """What every stage depends on besides its own input: package, lock, Python."""
    return {
        "package": {"version": __version__, "sha256": package()},
        "lock": sha256(ROOT / "requirements.lock"),
        "python": platform.python_version(),
    }


def package() -> str:
    """Hash of the package's own files."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(here).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def manifest(
    params: Params, folder: RunFolder, around: dict[str, Any], stages: dict[str, Record]
) -> dict[str, Any]:
    """The content of manifest.json, with its seal."""
    ingested = folder.path / "data" / "ingest.json"
    return sealed(
        {
            "run": params.run,
            "seed": params.seed,
            **around,
            "commit": _git("rev-parse", "HEAD"),
            "dirty": bool(_git("status", "--porcelain")),
            "processor": _processor(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "parameters": sha256(folder.path / "params.yaml"),
            "tables": folder.read_json("data/ingest.json")["tables"] if ingested.exists() else {},
            "stages": stages,
        }
    )


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """The manifest, of a whole run or of one under way; empty where there is none that can be read.

    Reading it wrong only makes stages run again.
    """
    for name in (MANIFEST, PARTIAL):
        try:
            found = folder.read_json(name)
        except (RunError, OSError, ValueError):
            continue
        if isinstance(found, dict) and is_sealed(found):
            return found
    return {}


def _processor() -> str:
    """Architecture and, where Linux tells it, vendor, family and model: bits may depend on it."""
    told = {}
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        told[key.strip()] = value.strip()
    names = ("vendor_id", "cpu family", "model")
    return " ".join([platform.machine(), *(told[n] for n in names if told.get(n))])


def _git(*words: str) -> str:
    """Answer of git about the project; empty where it is no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
