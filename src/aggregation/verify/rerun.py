"""Rerun: a run once more in a scratch folder, compared byte by byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aggregation.files import sha256
from aggregation.params.loading import load_params
from aggregation.params.schema import Params
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import surroundings, write_manifest
from aggregation.runs.runner import Execute, run
from aggregation.runs.stages import LAST, own, source_files, wanted
from aggregation.verify.checks import Claim, Told, claim, failure, plain_files
from aggregation.verify.compare import named_files, read

ENVIRONMENT = {"package", "lock", "python", "processor", "jax_platforms", "libraries"}
"""Keys of manifest.json for what bytes may depend on."""

NOT_REPEATABLE = {"commit", "dirty", "sha256"}
"""Keys of manifest.json that a rerun need not give again."""


def rerun(folder: RunFolder, execute: Execute | None = None) -> Iterator[Claim]:
    """Run the folder's params.yaml again; compare every file that its manifest names.

    Nobody is asked over the network and nothing is sent. What differs for that reason is not
    compared. Where the source is not at hand, the rerun begins with data/ as it is. Both are open
    claims. `execute`: as of `runs.runner.run`.
    """
    if not plain_files(folder.path).holds:  # `checks.verify` says why
        return
    try:
        yield from _rerun(folder.path, execute)
    except Exception as error:  # of the rerun, or of a damaged file
        yield failure("same bytes", error)


def _rerun(path: Path, execute: Execute | None) -> Iterator[Claim]:
    params = load_params(path / "params.yaml")
    here = all(source_files(params, path / "source").values())
    told = "at hand" if here else "not at hand: the rerun begins with data/ as it is"
    yield Claim("source", here or None, told)
    changes, left_out = _offline(params, here=here)
    if not (path / "notebooks" / "train.ipynb").is_file():  # trained by several processes
        left_out |= {"notebooks/train.ipynb", *_pages(params)}
    if left_out:
        by = f"rerun with {', '.join(changes)}; " if changes else ""
        told = f"{by}without {', '.join(sorted(left_out))}"
        yield Claim("not compared", holds=None, told=told)
    with tempfile.TemporaryDirectory(prefix="aggregation-") as out:
        again = Path(out) / params.run
        if (path / "source").is_dir():
            shutil.copytree(path / "source", again / "source")
        if not here:
            _begin_with_data(params, path, again)
        run(
            path / "params.yaml",
            changes=changes,
            first=None if here else "train",
            out=out,
            say=lambda _: None,
            execute=execute,
        )
        same = claim("same bytes", lambda: _same_bytes(path, again, left_out))
        yield same
        keys = None if same.holds and here and not left_out else ENVIRONMENT
        yield claim("same manifest", lambda: _same_manifest(path, again, keys))


def _offline(params: Params, *, here: bool) -> tuple[list[str], set[str]]:
    """Changes after which a run asks nobody, and the files that differ for them."""
    changes: list[str] = []
    left_out = {"params.yaml"}
    if params.source.kind == "platform" and not params.source.offline and here:
        changes.append("source.offline=true")
        left_out |= {"notebooks/ingest.ipynb", "report/ingest.html"}
    if params.publish.target == "platform":
        changes.append("publish.target=file")
        left_out |= {"notebooks/publish.ipynb", "report/publish.html", LAST}
    if params.demographics is not None:
        changes.append("demographics=null")  # every page links to that one
        left_out |= {"notebooks/demographics.ipynb", "demographics/counts.json"}
        left_out |= _pages(params)
    return changes, left_out if changes else set()


def _pages(params: Params) -> set[str]:
    return {f"report/{name}.html" for name in ("index", *wanted(params))}


def _begin_with_data(params: Params, path: Path, again: Path) -> None:
    """Make the folder of a run that has finished its first stage with the data of this one."""
    names = own("ingest")  # not those of its manifest, which may lead out of the folder
    for name in ("params.yaml", *names):
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, again / name)
    manifest = read(path, "manifest.json")
    made = {
        "input": source_files(params, again / "source"),
        "outputs": {n: sha256(again / n) for n in names},
    }
    stages = {"ingest": manifest["stages"]["ingest"] | made}
    write_manifest(again, "manifest.json", manifest | surroundings() | {"stages": stages})


def _same_bytes(path: Path, again: Path, left_out: set[str]) -> Told:
    one, other = (named_files(read(at, "manifest.json")).keys() - left_out for at in (path, again))
    differ = one ^ other | {n for n in one & other if sha256(path / n) != sha256(again / n)}
    told = f"not those of {', '.join(sorted(differ))}" if differ else f"all {len(one)} files"
    return not differ, told


def _same_manifest(path: Path, again: Path, keys: set[str] | None) -> Told:
    one, other = (read(at, "manifest.json") for at in (path, again))
    names = keys or (one.keys() | other.keys()) - NOT_REPEATABLE
    differ = {key for key in names if one.get(key) != other.get(key)}
    told = (
        f"another {', '.join(sorted(differ))} than here" if differ else "but for commit and dirty"
    )
    return None if differ and differ <= ENVIRONMENT else not differ, told
