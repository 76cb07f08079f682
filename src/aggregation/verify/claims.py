"""Claims: what a run says of its files, and whether it is true."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aggregation.data.fingerprint import fingerprints
from aggregation.errors import AggregationError, InputError
from aggregation.files import checksum_holds, sha256
from aggregation.params import Params, PlatformSource, Source, dump, load_params
from aggregation.runs.folder import RunFolder
from aggregation.runs.lock import HELD
from aggregation.runs.notebook_source import notebook_source
from aggregation.runs.provenance import COMMIT, as_committed, circumstances, package, surroundings
from aggregation.runs.stages import RECEIPTS, handed_on, named, own, source_files, wanted
from aggregation.services.delivery import LAST
from aggregation.sources import read

FOLDERS = ("data", "model", "evidence", "demographics", "notebooks", "report", "source")
FOLDERS += ("published",)
"""Folders of a run; each may be a link to another disk."""

CHECKPOINT = re.compile(r"notebooks/\.ipynb_checkpoints/[\w-]+-checkpoint\.ipynb")
"""JupyterLab's copies of notebooks that somebody looked at."""

LOCK = re.compile(rb"(process \d+ since [\d:T+-]+)?")
"""What the process that holds a folder writes; one that was killed leaves it."""

KNOWN = {
    *("run", "seed", "package", "lock", "python", "commit", "dirty", "processor", "libraries"),
    *("parameters", "tables", "stages", "sha256"),
}
KNOWN_OF_STAGE = {"notebook", "parameters", "input", "outputs", "pages"}
"""Keys of manifest.json, and of each stage in it."""

T = TypeVar("T")


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that no run would write
            holds, told = check()
    except Exception as error:  # whatever a file of a stranger's makes any library raise
        return Claim(what, holds=False, told=f"cannot be checked: {_reason(error)}")
    return Claim(what, None if holds is None else bool(holds), told)


class UnusableError(Exception):
    """Something without which nothing else can be checked; `claim` is the one that fails."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(str(claim))
        self.claim = claim


def taken(what: str, get: Callable[[], T]) -> T:
    """What `get` gives. Raises UnusableError."""
    got: list[T] = []
    failed = claim(what, lambda: (got.append(get()) is None, ""))
    if not got:
        raise UnusableError(failed)
    return got[0]


def _reason(error: Exception) -> str:
    """In words, on one line."""
    words = " ".join(str(error).split())
    if isinstance(error, AggregationError):
        return words
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror or words}"
    if isinstance(error, LookupError):
        return f"{words} is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it holds something that no run writes ({words})"


class Given(RunFolder):
    """A run's folder that somebody gave: says which file cannot be read, not what to run."""

    def read_json(self, name: str) -> Any:
        """As RunFolder does."""
        try:
            return super().read_json(name)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} is no JSON: {_reason(error)}") from None

    def _there(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{name} is not there")
        return path


def plain(path: Path) -> Claim:
    """Whether there are files and folders alone, so that nothing that is opened has no end.

    Raises UnusableError if there is anything else: then nothing is to be opened.
    """
    kinds = taken("plain files", lambda: _found(path)).items()
    odd = [name for name, mode in kinds if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]
    if odd:
        told = f"nothing was opened, since these are neither files nor folders: {', '.join(odd)}"
        raise UnusableError(Claim("plain files", holds=False, told=told))
    return Claim("plain files", holds=True, told="no links, pipes or devices")


def _found(path: Path) -> dict[str, int]:
    """Name and mode of all that lies in the folder, and of folders in which nothing lies.

    No link is followed but that of the folder itself and of those in `FOLDERS`.
    """
    found: dict[str, int] = {}
    todo = [path]
    while todo:
        at = todo.pop()
        inner = sorted(at.iterdir())
        if not inner and at != path:
            found[f"{at.relative_to(path).as_posix()}/"] = stat.S_IFDIR
        for file in inner:
            mode = file.stat() if file.parent == path and file.name in FOLDERS else file.lstat()
            if stat.S_ISDIR(mode.st_mode):
                todo.append(file)
            else:
                found[file.relative_to(path).as_posix()] = mode.st_mode
    return dict(sorted(found.items()))


def files(folder: RunFolder) -> Iterator[Claim]:
    """Claims on files and hashes; every byte of the run is covered by one of them."""
    path = folder.path
    yield claim("manifest", lambda: _manifest(folder))
    yield claim("times", lambda: _written(folder, "timing.json"))
    manifest = taken("files", lambda: folder.read_json("manifest.json"))
    params = taken("files", lambda: load_params(path / "params.yaml"))
    yield claim("files", lambda: _hashes(path, manifest))
    yield claim("no others", lambda: _others(path, manifest))
    yield claim("parameters", lambda: _parameters(params, folder, manifest))
    yield claim("stages", lambda: _chain(params, manifest))
    yield claim("input tables", lambda: _tables(folder, manifest))
    yield claim("source", lambda: _source(params, folder, manifest))
    yield claim("notebooks", lambda: _notebooks(folder, manifest))
    yield claim("notebooks' parameters", lambda: _injected(params, folder, manifest))
    for receipt, body in RECEIPTS.items():
        if (path / receipt).exists() or (path / body).exists():
            yield claim(receipt, lambda r=receipt, b=body: _receipt(folder, r, b, params))
    if params.demographics is not None:
        told = "as Prolific answered then: nobody can ask the same again"
        yield Claim("demographics", holds=None, told=told)
    yield claim("package", lambda: _package(manifest))
    yield claim("made with", lambda: _made_with(manifest))


def _written(folder: RunFolder, name: str) -> tuple[bool, str]:
    """Whether a with_checksum file is, byte for byte, as this package writes it."""
    found, value = folder.read_bytes(name), folder.read_json(name)
    as_written = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if as_written.encode("utf-8") != found or not checksum_holds(value):
        return False, f"{name} was changed since it was written"
    return True, f"{name} is as it was written"


def _manifest(folder: RunFolder) -> tuple[bool, str]:
    fine, told = _written(folder, "manifest.json")
    other = sorted(KNOWN ^ folder.read_json("manifest.json").keys())
    return (False, f"manifest.json: not what a run notes: {other[0]}") if other else (fine, told)


def _hashes(path: Path, manifest: dict[str, Any]) -> tuple[bool, str]:
    wanted_hashes = {"params.yaml": manifest["parameters"]}
    for record in manifest["stages"].values():
        wanted_hashes |= record["outputs"]
    there = _found(path)  # a name may lead out of the folder
    changed = [
        n for n, digest in wanted_hashes.items() if n not in there or sha256(path / n) != digest
    ]
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
    strange = [n for n in _found(path) if n not in known and not CHECKPOINT.fullmatch(n)]
    if (path / HELD).exists() and not LOCK.fullmatch((path / HELD).read_bytes()):
        strange.append(HELD)
    if strange:
        return False, f"the run did not make {', '.join(strange)}"
    return True, "there is no file that the run did not make"


def _parameters(
    params: Params, folder: RunFolder, manifest: dict[str, Any]
) -> tuple[bool | None, str]:
    given = params.model_dump(mode="json")
    for stage, record in manifest["stages"].items():
        for name, value in record["parameters"].items():
            if given.get(name) != value:
                return False, f"{stage} was run with another {name} than params.yaml has"
    if (manifest["run"], manifest["seed"]) != (params.run, params.seed):
        return False, "run or seed are not those of params.yaml"
    if dump(params).encode("utf-8") != folder.read_bytes("params.yaml"):
        if manifest["package"]["sha256"] != package():
            return None, "this version of the package writes params.yaml otherwise"
        return False, "params.yaml holds something else than the parameters"
    return True, "every stage was run with those of params.yaml"


def _chain(params: Params, manifest: dict[str, Any]) -> tuple[bool, str]:
    stages = manifest["stages"]
    if missing := [s for s in wanted(params) if s not in stages]:
        return False, f"not done: {', '.join(missing)}"
    if more := [s for s in stages if s not in wanted(params)]:
        return False, f"the parameters want no {more[0]}"
    unmade = {LAST} if params.publish.target == "file" else set()
    for stage, record in stages.items():
        if record.keys() != KNOWN_OF_STAGE or record["pages"] != list(stages):
            return False, f"{stage}: manifest.json has other keys, or pages, than a run writes"
        if record["outputs"].keys() != {*own(stage)} - unmade:
            return False, f"{stage}: manifest.json lists other files than the stage makes"
        if stage != "ingest" and record["input"] != handed_on(stage, stages):
            return False, f"{stage} read something else than the stages before it made"
    return True, "each read what those before it made"


def _tables(folder: RunFolder, manifest: dict[str, Any]) -> tuple[bool, str]:
    found = fingerprints(folder.dataset())
    told = folder.read_json("data/ingest.json")
    noted = told["tables"]
    if told.keys() != {"about", "mu", "tables", "counts"}:
        return False, "data/ingest.json has other keys than a run writes"
    changed = [n for n in found if not found[n] == noted.get(n) == manifest["tables"].get(n)]
    if changed:
        return False, f"data/ holds other content: {', '.join(changed)}"
    return True, "data/ holds the content that was read, whatever its order"


def _source(params: Params, folder: RunFolder, manifest: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether the source, where it is at hand, gives data/ when it is read again."""
    source, noted = params.source, manifest["stages"]["ingest"]["input"]
    regular(source)
    found = source_files(params, folder.path)
    names = ", ".join(noted) or source.kind
    if source.kind != "simulated" and not any(found.values()):
        return None, f"{names}: as the manifest notes; not here, so not read again"
    if changed := [name for name in sorted(noted | found) if noted.get(name) != found.get(name)]:
        return False, f"not what was read: {', '.join(changed)}"
    if isinstance(source, PlatformSource):
        source = source.model_copy(update={"offline": True})
    again = read(source, params.ratings, params.seed, folder.path / "source")
    here = folder.dataset()
    one, other = fingerprints(again), fingerprints(here)
    differ = [f"{name}.parquet" for name in one if one[name] != other[name]]
    if (again.mu, again.about, again.counts) != (here.mu, here.about, here.counts):
        differ.append("ingest.json")
    if differ and manifest["package"]["sha256"] != package():
        return None, f"{names}: this version reads {', '.join(differ)} otherwise"
    if differ:
        return False, f"{names}: read again it gives another {', '.join(differ)}"
    return True, f"{names}: read again it gives data/"


def regular(source: Source) -> None:
    """Raises InputError where the parameters name something as a source that may have no end."""
    for at in named(source):
        for file in at.iterdir() if at.is_dir() else (at,):
            if file.exists() and not (file.is_file() or file.is_dir()):
                raise InputError(f"the source names {file}, which is no file")


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


def _injected(params: Params, folder: RunFolder, manifest: dict[str, Any]) -> tuple[bool, str]:
    """Whether each notebook was given what the manifest notes, in one cell, and nothing less."""
    known = params.model_dump().keys()
    for stage in wanted(params):
        cells = folder.read_json(f"notebooks/{stage}.ipynb")["cells"]
        declared, given = (
            [_assigned(c) for c in cells if tag in c["metadata"].get("tags", [])]
            for tag in ("parameters", "injected-parameters")
        )
        noted = manifest["stages"][stage]["parameters"]
        if given != [noted] or len(declared) != 1:
            return (
                False,
                f"{stage}: its notebook was given other parameters than the manifest notes",
            )
        if declared[0].keys() & known != noted.keys():
            return False, f"{stage}: the manifest does not note all parameters of its notebook"
    return True, "each was given what the manifest notes"


def _assigned(cell: dict[str, Any]) -> dict[str, Any]:
    """What a cell assigns; nothing but names and literals is allowed in it."""
    found: dict[str, Any] = {}
    for line in ast.parse("".join(cell["source"])).body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        value = getattr(line, "value", None)
        if not isinstance(line, ast.Assign | ast.AnnAssign) or not isinstance(target, ast.Name):
            raise InputError("a cell of parameters does something else")
        found[target.id] = ast.literal_eval(value) if value is not None else None
    return found


def _receipt(folder: RunFolder, receipt: str, body: str, params: Params) -> tuple[bool | None, str]:
    """Whether a receipt is as it was written, and its body the one that came or went."""
    fine, told = _written(folder, receipt)
    if fine and sha256(folder.path / body) != folder.read_json(receipt)["body_sha256"]:
        return False, f"{body} is not what it is for"
    sent = receipt.startswith("published/")
    if fine and (params.publish.target if sent else params.source.kind) != "platform":
        return None, f"{told}, by an earlier run: this one asked the platform nothing"
    return fine, told


def _package(manifest: dict[str, Any]) -> tuple[bool | None, str]:
    here = surroundings()
    other = [name for name in here if here[name] != manifest[name]]
    if other:
        return None, f"the run was made with another {' and '.join(other)} than is here"
    return True, f"version {here['package']['version']}, with the lock and Python of the run"


def _made_with(manifest: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether processor, libraries and commit are those that are here."""
    here, commit, dirty = circumstances(), manifest["commit"], manifest["dirty"]
    if type(dirty) is not (bool if commit else type(None)):
        return False, "a commit is noted without whether there were changes beside it"
    if commit is not None and not COMMIT.fullmatch(commit):
        return False, "what is noted as the commit is none"
    if other := [name for name in ("processor", "libraries") if here[name] != manifest[name]]:
        return None, f"the run was made with another {' and other '.join(other)} than here"
    words = "the processor and libraries that are here, "
    if commit is None:
        return True, f"{words}no commit is noted"
    if dirty:
        return True, f"{words}changes beside commit {commit[:12]!r}"
    alike = all(surroundings()[name] == manifest[name] for name in ("package", "lock"))
    same = as_committed(commit) if alike else None
    if same is None:
        return None, f"commit {commit[:12]!r} cannot be compared with what is here"
    return same, f"{words}{'the' if same else 'NOT the'} package and lock of commit {commit[:12]!r}"
