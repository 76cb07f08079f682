"""Repeat: a run again, in a scratch folder, and whether it gives the same bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aggregation.claims import Claim
from aggregation.errors import AggregationError
from aggregation.folder import RunFolder
from aggregation.manifest import PARTIAL, manifest, read_manifest, surroundings
from aggregation.params import Params, load_params
from aggregation.posting import LAST
from aggregation.runs import run
from aggregation.stages import MAKES, Record, made_by, sha256, source_files, wanted

PEOPLE = ("demographics", "report/index.html")
"""Files that hold what Prolific said."""


def repeat(folder: RunFolder) -> Iterator[Claim]:
    """Run the folder's params.yaml again; compare every file that a stage made.

    Nobody is asked over the network and nothing is sent. What depends on that is left out, and
    where the source is not at hand data/ is taken as it is; both are said.
    """
    try:
        params = load_params(folder.path / "params.yaml")
        record = read_manifest(folder)["stages"]["ingest"]
    except (AggregationError, LookupError) as error:
        yield Claim("same bits", holds=False, told=f"this is no whole run: {error}")
        return
    with tempfile.TemporaryDirectory(prefix="aggregation-") as place:
        again = RunFolder.of(params.run, place)
        if (folder.path / "source").is_dir():
            shutil.copytree(folder.path / "source", again.path / "source")
        here = all(source_files(params, folder.path).values())
        changes = _alone(params, here=here)
        if not here:
            yield Claim("source again", holds=None, told="not here: data/ is taken as it is")
        if changes:
            told = f"repeated with {', '.join(changes)}: what depends on it is not compared"
            yield Claim("network", holds=None, told=told)
        try:
            if not here:
                _take_data(params, folder, again, record)
            run(
                folder.path / "params.yaml",
                changes=changes,
                first=None if here else "train",
                out=place,
                say=lambda _: None,
            )
        except (AggregationError, OSError) as error:
            told = f"it does not run again: {(str(error).splitlines() or [''])[0]}"
            yield Claim("same bits", holds=False, told=told)
            return
        yield _compared(params, folder.path, again.path, whole=not changes)


def _alone(params: Params, *, here: bool) -> list[str]:
    """Changes after which a run needs no network."""
    changes = []
    if params.source.kind == "platform" and not params.source.offline and here:
        changes.append("source.offline=true")
    if params.publish.target == "platform":
        changes.append("publish.target=file")
    if params.demographics is not None:
        changes.append("demographics=null")
    return changes


def _take_data(params: Params, folder: RunFolder, again: RunFolder, record: Record) -> None:
    """Let the repetition begin with the data of the run."""
    for name in record["outputs"]:
        (again.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / name, again.path / name)
    shutil.copyfile(folder.path / "params.yaml", again.path / "params.yaml")
    record = record | {"input": source_files(params, again.path)}
    taken = manifest(params, again, surroundings(), {"ingest": record})
    again.write_json(PARTIAL, taken)


def _compared(params: Params, path: Path, again: Path, *, whole: bool) -> Claim:
    if whole:
        names = {"params.yaml"}.union(*(made_by(s, path) for s in wanted(params)))
        names = names.union(*(made_by(s, again) for s in wanted(params)))
    else:
        told = (LAST, *(PEOPLE if params.demographics is not None else ()))
        makes = tuple(name for names in MAKES.values() for name in names if name not in told)
        names = {n for s in MAKES for n in made_by(s, path) if n.startswith(makes)}
    other = sorted(n for n in names if sha256(path / n) != sha256(again / n))
    told = f"all {len(names)} files" if not other else f"not those of {', '.join(other)}"
    return Claim("same bits", not other, told)
