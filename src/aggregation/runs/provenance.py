"""Manifest: what a run was made from and what it made, by hash. Nothing in it changes with time."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aggregation import __version__
from aggregation.files import checksum_holds, sha256
from aggregation.params import Params
from aggregation.runs.folder import MANIFEST, PARTIAL, RunFolder
from aggregation.runs.notebook_source import ROOT
from aggregation.runs.stages import Record

KINDS = (".py", ".html", ".css", ".csv")
"""Suffixes of the package's files."""

COMMIT = re.compile("[0-9a-f]{40,64}")
"""What git calls one; other words could be options."""

LIBRARIES = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "matplotlib", "papermill")


def surroundings() -> dict[str, Any]:
    """What every stage depends on besides its own input: package, lock, Python."""
    return {
        "package": {"version": __version__, "sha256": package()},
        "lock": sha256(ROOT / "requirements.lock"),
        "python": platform.python_version(),
    }


def package() -> str:
    """Hash of the package's own files: code and templates, not what an editor leaves there."""
    here = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*")):
        if path.suffix in KINDS and not path.name.startswith("."):
            digest.update(f"{path.relative_to(here).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def circumstances() -> dict[str, Any]:
    """What else a run is made by: commit, whether what counts differs from it (both null where git
    does not tell), processor, libraries.
    """
    changed = _git(
        "status",
        "--porcelain",
        "--untracked-files=normal",
        "--",
        "src",
        "notebooks",
        "requirements.lock",
    )
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "processor": _processor(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def as_committed(commit: str) -> bool | None:
    """Whether package and lock are here as they were in that commit; None: git does not know it."""
    if not COMMIT.fullmatch(commit):
        return False
    if _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return None
    modes = ("-c", "core.fileMode=false")  # who may execute a file is no part of its content
    return _git(*modes, "diff", "--quiet", commit, "--", "src", "requirements.lock") is not None


def manifest(
    params: Params, folder: RunFolder, made_by: dict[str, Any], stages: dict[str, Record]
) -> dict[str, Any]:
    """The content of manifest.json, but for its seal. `made_by`: surroundings, circumstances."""
    return {
        "run": params.run,
        "seed": params.seed,
        **made_by,
        "parameters": sha256(folder.path / "params.yaml"),
        "tables": folder.read_json("data/ingest.json")["tables"] if "ingest" in stages else {},
        "stages": stages,
    }


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """The manifest, of a whole run or of one under way; empty where there is none that can be read.

    Reading it wrong only makes stages run again.
    """
    found = (folder.read_if_any(name) for name in (MANIFEST, PARTIAL))
    return next((one for one in found if checksum_holds(one) and _is_known(one)), {})


def _is_known(found: dict[str, Any]) -> bool:
    """Whether there is a record of each stage, of the kind that this package writes."""
    try:
        records = [*found["stages"].values(), *found.get("aside", {}).values()]
        kinds = {"notebook": str, "parameters": dict, "input": dict, "outputs": dict}
        return all(isinstance(one[name], kind) for one in records for name, kind in kinds.items())
    except (LookupError, TypeError, AttributeError):
        return False


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
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words],
            env=env | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
