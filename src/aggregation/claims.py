"""Claims: what a run says of its files, and whether it is true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregation.alone import HELD
from aggregation.errors import AggregationError
from aggregation.fingerprint import fingerprints
from aggregation.folder import RunFolder
from aggregation.manifest import surroundings
from aggregation.notebook_source import notebook_source
from aggregation.params import Params, load_params
from aggregation.seal import is_sealed
from aggregation.stages import MAKES, READS, sha256, source_files, wanted

RECEIPTS = {
    "source/receipt.json": "source/export.json",
    "published/receipt.json": "published/pending.json",
    "published/known.json": "published/constitution.json",
}
"""Receipts that outlive runs, sealed, and what each is for: what came from the platform, or went
there."""


@dataclass(frozen=True)
class Claim:
    """Something that a run says, and whether it holds; None: nobody could tell here."""

    what: str
    holds: bool | None
    told: str

    def __str__(self) -> str:
        word = {True: "holds", False: "FAILS", None: "open "}[self.holds]
        told = "".join(c if c.isprintable() else "\ufffd" for c in self.told)
        return f"{word}  {self.what}: {told[:400]}"


def claim(what: str, check: Callable[[], tuple[bool | None, str]]) -> Claim:
    """The claim as `check` finds it. A file that cannot be read, or lacks something, fails it."""
    try:
        holds, told = check()
    except (
        AggregationError,
        OSError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        words = str(error).splitlines() or [""]
        return Claim(
            what, holds=False, told=f"cannot be checked: {type(error).__name__}: {words[0]}"
        )
    return Claim(what, None if holds is None else bool(holds), told)


def files(folder: RunFolder) -> Iterator[Claim]:
    """Claims on files and hashes; every byte of the run is covered by one of them."""
    path = folder.path
    yield claim("manifest", lambda: _written(folder, "manifest.json"))
    yield claim("times", lambda: _written(folder, "timing.json"))
    try:
        manifest = folder.read_json("manifest.json")
        params = load_params(path / "params.yaml")
    except (AggregationError, OSError, ValueError) as error:
        yield Claim("files", holds=False, told=str(error).splitlines()[0])
        return
    yield claim("files", lambda: _hashes(path, manifest))
    yield claim("no others", lambda: _others(path, manifest))
    yield claim("parameters", lambda: _parameters(params, manifest))
    yield claim("stages", lambda: _chain(params, manifest))
    yield claim("input tables", lambda: _tables(folder, manifest))
    yield claim("source", lambda: _source(params, path, manifest))
    yield claim("notebooks", lambda: _notebooks(folder, manifest))
    for receipt, body in RECEIPTS.items():
        if (path / receipt).exists() or (path / body).exists():
            yield claim(receipt, lambda r=receipt, b=body: _receipt(folder, r, b))
    yield claim("package", lambda: _package(manifest))


def _written(folder: RunFolder, name: str) -> tuple[bool, str]:
    """Whether a sealed file is, byte for byte, as this package writes it."""
    found = folder.read_bytes(name)
    value = json.loads(found)
    as_written = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if as_written.encode("utf-8") != found or not is_sealed(value):
        return False, f"{name} was changed since it was written"
    return True, f"{name} is as it was written"


def _hashes(path: Path, manifest: dict[str, Any]) -> tuple[bool, str]:
    wanted_hashes = {"params.yaml": manifest["parameters"]}
    for record in manifest["stages"].values():
        wanted_hashes |= record["outputs"]
    changed = [name for name, digest in wanted_hashes.items() if sha256(path / name) != digest]
    if changed:
        return (
            False,
            f"{len(changed)} of {len(wanted_hashes)} changed or gone: {', '.join(changed)}",
        )
    return True, f"all {len(wanted_hashes)} have their hashes"


def _others(path: Path, manifest: dict[str, Any]) -> tuple[bool, str]:
    known = {"params.yaml", "manifest.json", "timing.json", HELD, *RECEIPTS, *RECEIPTS.values()}
    for record in manifest["stages"].values():
        known |= record["outputs"].keys()
    found = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file()]
    strange = [
        f.as_posix()
        for f in found
        if f.as_posix() not in known and ".ipynb_checkpoints" not in f.parts
    ]
    if strange:
        return False, f"the run did not make {', '.join(strange)}"
    return True, "there is no file that the run did not make"


def _parameters(params: Params, manifest: dict[str, Any]) -> tuple[bool, str]:
    given = params.model_dump()
    for stage, record in manifest["stages"].items():
        for name, value in record["parameters"].items():
            if given.get(name) != value:
                return False, f"{stage} was run with another {name} than params.yaml has"
    if (manifest["run"], manifest["seed"]) != (params.run, params.seed):
        return False, "run or seed are not those of params.yaml"
    return True, "every stage was run with those of params.yaml"


def _chain(params: Params, manifest: dict[str, Any]) -> tuple[bool, str]:
    stages = manifest["stages"]
    if missing := [s for s in wanted(params) if s not in stages]:
        return False, f"not done: {', '.join(missing)}"
    for stage, record in stages.items():
        made = {
            name: digest
            for earlier in READS[stage]
            for name, digest in stages.get(earlier, {"outputs": {}})["outputs"].items()
            if name.startswith(MAKES[earlier])
        }
        if stage != "ingest" and record["input"] != made:
            return False, f"{stage} read something else than the stages before it made"
    return True, "each read what those before it made"


def _tables(folder: RunFolder, manifest: dict[str, Any]) -> tuple[bool, str]:
    found = fingerprints(folder.dataset())
    noted = folder.read_json("data/ingest.json")["tables"]
    changed = [n for n in found if not found[n] == noted.get(n) == manifest["tables"].get(n)]
    if changed:
        return False, f"data/ holds other content: {', '.join(changed)}"
    return True, "data/ holds the content that was read, whatever its order"


def _source(params: Params, path: Path, manifest: dict[str, Any]) -> tuple[bool | None, str]:
    noted = manifest["stages"]["ingest"]["input"]
    if not noted:
        return True, f"{params.source.kind}: there are no files to compare"
    found = source_files(params, path)
    if not any(found.values()):
        return None, f"{', '.join(noted)}: not here, so data/ is taken as it is"
    changed = [name for name in sorted(noted | found) if noted.get(name) != found.get(name)]
    if changed:
        return False, f"not what was read: {', '.join(changed)}"
    return True, f"{', '.join(noted)}: as they were read"


def _notebooks(folder: RunFolder, manifest: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether the executed notebooks have the code of those that stand in the project."""
    other = []
    for stage, record in manifest["stages"].items():
        source = notebook_source(stage)
        if hashlib.sha256(source).hexdigest() != record["notebook"]:
            other.append(stage)
            continue
        executed = folder.read_json(f"notebooks/{stage}.ipynb")["cells"]
        own = json.loads(source)["cells"]
        kept = [c for c in executed if "injected-parameters" not in c["metadata"].get("tags", [])]
        if ["".join(c["source"]) for c in kept] != [c["source"] for c in own]:
            return False, f"{stage}: its cells are not those of the notebook that was run"
    if other:
        return None, f"made by another version of {', '.join(other)} than stands here"
    return True, "executed as they stand here"


def _receipt(folder: RunFolder, receipt: str, body: str) -> tuple[bool, str]:
    """Whether a receipt is as it was written, and its body the one that came or went."""
    fine, told = _written(folder, receipt)
    if fine and sha256(folder.path / body) != folder.read_json(receipt)["body_sha256"]:
        return False, f"{body} is not what it is for"
    return fine, told


def _package(manifest: dict[str, Any]) -> tuple[bool | None, str]:
    here = surroundings()
    other = [name for name in here if here[name] != manifest[name]]
    if other:
        return None, f"the run was made with another {' and '.join(other)} than is here"
    return True, f"version {here['package']['version']}, with the lock and Python of the run"
