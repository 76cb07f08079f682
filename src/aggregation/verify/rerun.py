"""Rerun: a run once more in a scratch folder, compared byte by byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from aggregation.files import sha256, with_checksum
from aggregation.params import Params, load_params
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import surroundings
from aggregation.runs.runner import Execute, run
from aggregation.runs.stages import own, source_files, wanted
from aggregation.services.delivery import LAST
from aggregation.verify.checks import Claim, Told, claim, failure, plain_files, read
from aggregation.verify.compare import named_files

ENVIRONMENT = {"package", "lock", "python", "processor", "libraries"}
"""Keys of manifest.json for what bytes may depend on."""

NOT_REPEATABLE = {"commit", "dirty", "sha256"}
"""Keys of manifest.json that a rerun need not give again."""


def rerun(folder: RunFolder, execute: Execute | None = None) -> Iterator[Claim]:
    """Run the folder's params.yaml again; compare every file that its manifest names.

    Nobody is asked over the network and nothing is sent. What differs for that reason is not
    compared. Where the source is not at hand, the rerun begins with data/ as it is. Both are open
    claims. `execute`: as of `runs.runner.run`.
    """
    path = folder.path
    if not plain_files(path).holds:  # `checks.verify` says why
        return
    try:
        params, manifest = load_params(path / "params.yaml"), read(path, "manifest.json")
        source, noted = source_files(params, path), manifest["stages"]["ingest"]["input"]
    except Exception as error:  # whatever a damaged file makes any library raise
        yield failure("same bytes", error)
        return
    if here := all(source.values()):
        other = sorted(n for n in source.keys() | noted if source.get(n) != noted.get(n))
        told = f"not what was read: {', '.join(other)}" if other else "what was read, by its hash"
        yield Claim("source", not other, told)
    else:
        yield Claim("source", holds=None, told="not here: the rerun begins with data/ as it is")
    changes, left_out = _offline(params, here=here)
    if left_out:
        told = f"rerun with {', '.join(changes)}; without {', '.join(sorted(left_out))}"
        yield Claim("not compared", holds=None, told=told)
    with tempfile.TemporaryDirectory(prefix="aggregation-") as out:
        again = Path(out) / params.run
        try:
            if (path / "source").is_dir():
                shutil.copytree(path / "source", again / "source")
            if not here:
                _begin_with_data(params, path, again, manifest)
            first = None if here else "train"
            file, silent = path / "params.yaml", lambda _: None
            run(file, changes=changes, first=first, out=out, say=silent, execute=execute)
        except Exception as error:  # of this run or of its files
            yield failure("same bytes", error)
            return
        yield claim("same bytes", lambda: _same_bytes(path, again, left_out))
        keys = ENVIRONMENT if changes else manifest.keys() - NOT_REPEATABLE
        yield claim("same manifest", lambda: _same_manifest(path, again, keys))


def _offline(params: Params, *, here: bool) -> tuple[list[str], set[str]]:
    """Changes after which a run asks nobody, and the files that differ for them."""
    changes: list[str] = []
    left_out: set[str] = set()
    if params.source.kind == "platform" and not params.source.offline and here:
        changes.append("source.offline=true")
        left_out |= {"notebooks/ingest.ipynb", "report/ingest.html"}
    if params.publish.target == "platform":
        changes.append("publish.target=file")
        left_out |= {"notebooks/publish.ipynb", "report/publish.html", LAST}
    if params.demographics is not None:
        changes.append("demographics=null")  # every page links to that one
        left_out |= {"notebooks/demographics.ipynb", "demographics/counts.json"}
        left_out |= {f"report/{name}.html" for name in ("index", *wanted(params))}
    return changes, left_out | ({"params.yaml"} if changes else set())


def _begin_with_data(params: Params, path: Path, again: Path, manifest: dict[str, Any]) -> None:
    """Make the folder of a run that has done its first stage and found the data of this one."""
    record = manifest["stages"]["ingest"]
    for name in ("params.yaml", *own("ingest")):  # not the manifest's names: they may lead anywhere
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, again / name)
    stages = {"ingest": record | {"input": source_files(params, again)}}
    done = with_checksum(manifest | surroundings() | {"stages": stages})
    RunFolder(again).write_json("manifest.json", done)


def _same_bytes(path: Path, again: Path, left_out: set[str]) -> Told:
    one, other = (named_files(read(at, "manifest.json")).keys() - left_out for at in (path, again))
    differ = one ^ other | {n for n in one & other if sha256(path / n) != sha256(again / n)}
    return (
        not differ,
        f"not those of {', '.join(sorted(differ))}" if differ else f"all {len(one)} files",
    )


def _same_manifest(path: Path, again: Path, keys: Set[str]) -> Told:
    one, other = (_repeatable(read(at, "manifest.json")) for at in (path, again))
    differ = {key for key in keys if one[key] != other.get(key)}
    told = (
        f"another {', '.join(sorted(differ))} here"
        if differ
        else f"the same {', '.join(sorted(keys))}"
    )
    return None if differ and differ <= ENVIRONMENT else not differ, told


def _repeatable(manifest: dict[str, Any]) -> dict[str, Any]:
    """Of the stages only what is asked for: what they read and made is compared as files."""
    asked = ("notebook", "parameters")
    stages = {s: {key: r[key] for key in asked} for s, r in manifest["stages"].items()}
    return manifest | {"stages": stages}
