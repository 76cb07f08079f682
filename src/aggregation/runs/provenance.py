"""Manifest: what a run was made from and what it made, by hash. Nothing in it changes with time."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aggregation import __version__
from aggregation.files import checksum_holds, sha256
from aggregation.params import Params
from aggregation.runs.folder import MANIFEST, RunFolder
from aggregation.runs.notebook_source import PACKAGE, ROOT, project_file
from aggregation.runs.stages import Record

PACKAGE_SUFFIXES = (".py", ".html", ".css", ".csv")
"""Of the package's own files: code, templates and tables, not what an editor leaves there."""

LIBRARIES = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "matplotlib", "papermill")


def surroundings() -> dict[str, Any]:
    """What every stage depends on besides its own input: package, lock, Python."""
    return {
        "package": {"version": __version__, "sha256": package()},
        "lock": sha256(project_file("requirements.lock")),
        "python": platform.python_version(),
    }


def package() -> str:
    """Hash of the package's own files."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in PACKAGE_SUFFIXES and not path.name.startswith("."):
            digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def circumstances() -> dict[str, Any]:
    """What else a run is made by: commit, whether what counts differs from it (both null where git
    does not tell), processor, libraries.
    """
    paths = ("src", "notebooks", "requirements.lock")
    changed = _git("status", "--porcelain", "--untracked-files=normal", "--", *paths)
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "processor": _processor(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def manifest(
    params: Params, folder: RunFolder, made_by: dict[str, Any], stages: dict[str, Record]
) -> dict[str, Any]:
    """The content of manifest.json, but its checksum. `made_by`: surroundings, circumstances."""
    return {
        "run": params.run,
        "seed": params.seed,
        **made_by,
        "parameters": sha256(folder.path / "params.yaml"),
        "tables": folder.read_json("data/ingest.json")["tables"],
        "stages": stages,
    }


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """The manifest of a finished run; empty where there is none, or it was changed."""
    found = folder.read_if_any(MANIFEST)
    return found if checksum_holds(found) else {}


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


def _git(*words: str) -> str | None:
    """Answer of git about the project; None where it is no checkout. It takes no lock there."""
    if not (ROOT / ".git").exists():  # an installed package may lie within another checkout
        return None
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
