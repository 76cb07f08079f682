"""Provenance: what a run was made from, and its record in manifest.json."""

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
from aggregation.files import checksum_holds, read_if_any, sha256, with_checksum, write_json

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]
"""The project, if the package is used from a checkout."""

MANIFEST, PARTIAL = "manifest.json", "manifest.partial.json"
"""Of a run that is whole, and of one that is under way, has stopped, or was changed by hand."""

PACKAGE_FILES = (".py", ".pyi", ".html", ".css", ".js", ".j2", ".po", ".csv", ".json")
"""Suffixes of the package's own files."""

LIBRARIES = ("jax", "jaxlib", "numpy", "pandas", "pyarrow", "matplotlib", "papermill")

Record = dict[str, Any]
"""Of a stage: hash of its `notebook`, its `parameters`, name and hash of what it read (`input`) and
made (`outputs`)."""


def project_file(name: str) -> Path:
    """A file of the project, such as notebooks/train.ipynb: one of the working folder's own
    notebooks, else of the checkout, else of the wheel.
    """
    own = Path.cwd() / name
    if name.startswith("notebooks/") and own.is_file():
        return own
    here = CHECKOUT / name
    return here if (CHECKOUT / "pyproject.toml").is_file() else PACKAGE / name


def surroundings() -> dict[str, Any]:
    """What every stage depends on besides its own input: package, lock, Python."""
    return {
        "package": {"version": __version__, "sha256": package_hash()},
        "lock": sha256(project_file("requirements.lock")),
        "python": platform.python_version(),
    }


def package_hash() -> str:
    """Hash of the package's own code and templates."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in PACKAGE_FILES and not path.name.startswith("."):
            digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def circumstances() -> dict[str, Any]:
    """What else a run is made by: commit, whether the checkout differs from it (both null where git
    does not tell), processor, what JAX computes on, libraries.
    """
    paths = ("src", "notebooks", "requirements.lock")
    changed = _git("status", "--porcelain", "--untracked-files=normal", "--", *paths)
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "processor": _processor(),
        "jax_platforms": jax_platforms(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def jax_platforms() -> str:
    """What kernels compute on: the processor, unless JAX_PLATFORMS names something else."""
    return os.environ.get("JAX_PLATFORMS") or "cpu"


def write_manifest(path: Path, name: str, values: dict[str, Any]) -> None:
    """Write MANIFEST or PARTIAL with its checksum into a run's folder."""
    write_json(path / name, with_checksum(values))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a run's folder, of a whole run or of one under way.

    Empty where there is none, or it was changed: then stages run again.
    """
    for name in (MANIFEST, PARTIAL):
        found = read_if_any(path / name)
        if checksum_holds(found):
            return found
    return {}


def _processor() -> str:
    """Architecture and, where Linux tells it, vendor, family and model: bits may depend on it."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0]
    except OSError:
        first = ""
    found = re.findall(r"^(?:vendor_id|cpu family|model)\s*: (.+)$", first, re.MULTILINE)
    return " ".join([platform.machine(), *found])


def _git(*words: str) -> str | None:
    """Answer of git about the checkout; None where there is none. It takes no lock there."""
    if not (CHECKOUT / ".git").exists():  # an installed package may lie within another checkout
        return None
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words],
            env=env | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
