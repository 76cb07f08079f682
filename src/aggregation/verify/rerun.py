"""Repeat: a run again, in a scratch folder, and whether it gives the same bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aggregation.files import sha256
from aggregation.params import Params, load_params
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import PARTIAL, manifest, read_manifest, surroundings
from aggregation.runs.runner import run
from aggregation.runs.stages import Record, made_by, source_files, wanted
from aggregation.services.delivery import LAST
from aggregation.verify.claims import Claim, Given, UnusableError, claim, plain, regular, taken


def repeat(folder: RunFolder) -> Iterator[Claim]:
    """Run the folder's params.yaml again; compare every file that a stage made.

    Nobody is asked over the network and nothing is sent. What differs for that reason is left out,
    and where the source is not at hand data/ is taken as it is; both are said.
    """
    try:
        yield from _repeat(Given(folder.path))
    except UnusableError as error:
        yield error.claim


def _repeat(folder: RunFolder) -> Iterator[Claim]:
    plain(folder.path)
    params = taken("same bits", lambda: load_params(folder.path / "params.yaml"))
    record = taken("same bits", lambda: read_manifest(folder)["stages"]["ingest"])
    taken("same bits", lambda: regular(params.source))
    here = taken("same bits", lambda: all(source_files(params, folder.path).values()))
    changes, left_out = _alone(params, here=here)
    if not here:
        yield Claim("source again", holds=None, told="not here: data/ is taken as it is")
        left_out |= record["outputs"].keys()
    if left_out:
        names = f"not compared: {', '.join(sorted(left_out))}"
        told = f"repeated with {', '.join(changes)}; {names}" if changes else names
        yield Claim("left out", holds=None, told=told)
    with tempfile.TemporaryDirectory(prefix="aggregation-") as place:
        again = RunFolder.of(params.run, place)

        def check() -> tuple[bool, str]:
            if (folder.path / "source").is_dir():
                shutil.copytree(folder.path / "source", again.path / "source")
            if not here:
                _take_data(params, folder, again, record)
            run(
                folder.path / "params.yaml",
                changes=changes,
                first=None if here else "train",
                out=place,
                say=lambda _: None,
            )
            return _compared(params, folder.path, again.path, left_out)

        yield claim("same bits", check)


def _alone(params: Params, *, here: bool) -> tuple[list[str], set[str]]:
    """Changes after which a run needs no network, and files that differ for them."""
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


def _take_data(params: Params, folder: RunFolder, again: RunFolder, record: Record) -> None:
    """Let the repetition begin with the data of the run."""
    for name in record["outputs"]:
        (again.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / name, again.path / name)
    shutil.copyfile(folder.path / "params.yaml", again.path / "params.yaml")
    record = record | {"input": source_files(params, again.path)}
    begun = manifest(params, again, surroundings(), {"ingest": record})
    again.write_json(PARTIAL, begun)


def _compared(params: Params, path: Path, again: Path, left_out: set[str]) -> tuple[bool, str]:
    made = (made_by(stage, at) for stage in wanted(params) for at in (path, again))
    names = {"params.yaml"}.union(*made) - left_out
    other = sorted(n for n in names if sha256(path / n) != sha256(again / n))
    return not other, f"not those of {', '.join(other)}" if other else f"all {len(names)} files"
