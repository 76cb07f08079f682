"""Compare: what differs between two runs, and which condition changed a verdict.

Of users and ratings there are only counts: no participant is named.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from pandas.api.types import is_numeric_dtype, is_string_dtype
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aggregation.data.cards import many
from aggregation.data.dataset import clean_text
from aggregation.decisions.rules import ACCEPTED, Rule
from aggregation.errors import RunError
from aggregation.files import sha256
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import read_manifest
from aggregation.runs.stages import flat
from aggregation.verify.equality import KEYS, rows, same
from aggregation.verify.verdict_changes import CHANGES, COLUMNS, NUMBERS, changes

FIT = {"loss": "objective", "residual": "kkt_residual", "mu": "mu"} | {
    key: key for key in ("settled", "n_ratings", "n_users", "n_guidelines")
}
"""What is compared of a fit, and its key in model/fit.json."""

VERSIONS = ("package", "commit", "dirty", "lock", "python", "processor", "libraries")
"""Keys of manifest.json that tell what made the run."""

READ = (
    *("params.yaml", "data/ingest.json", "model/fit.json"),
    *("evidence/summary.json", "evidence/guidelines.parquet"),
    *(f"data/{table}.parquet" for table in KEYS),
)
"""Files of a run that are compared."""

ALTERED = "is not as its run left it, and is no result of the run: see `aggregation verify`"

LONGEST, LONGEST_ID, MOST = 100, 40, 30
"""On a terminal: characters of a text, of an id or value, and guidelines under a heading."""

BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of what follows, beyond the text that holds them."""


@dataclass(frozen=True)
class Pair:
    """One thing of both runs."""

    key: str
    sides: dict[str, Any]
    """`before` and `after`, each where the run has it."""

    @property
    def same(self) -> bool:
        """Whether both have it alike."""
        return len(self.sides) == 2 and same(self.sides["before"], self.sides["after"])

    def shown(self) -> tuple[str, str]:
        """Both sides in words; numbers with six digits, or as many as tell them apart, and counts
        (`n_...`) with their thousands set apart.
        """
        one, other = (self.sides.get(side, ...) for side in ("before", "after"))
        if isinstance(one, float) and isinstance(other, float):
            texts = [(f"{one:.{n}g}", f"{other:.{n}g}") for n in range(6, 18)]
            return next((pair for pair in texts if self.same or pair[0] != pair[1]), texts[-1])
        if self.key.startswith("n_") and isinstance(one, int) and isinstance(other, int):
            return f"{one:,}", f"{other:,}"
        return _word(one), _word(other)


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs. See `compare`."""

    HEADINGS: ClassVar = CHANGES

    before: str
    """Name of the run."""
    after: str
    parameters: tuple[Pair, ...]
    """Those that differ, by dotted key; the name of the run is none of them."""
    versions: tuple[Pair, ...] | None
    """What differs in `VERSIONS`; None: a run has no manifest, it did not finish."""
    data: dict[str, dict[str, int]]
    """table -> number of rows `only_before`, `only_after`, `changed`, `same`."""
    fit: tuple[Pair, ...]
    """All of `FIT`, alike or not."""
    rule: tuple[Pair, ...]
    """The rule that the verdicts were made by, alike or not."""
    rules: tuple[Rule, Rule]
    """The rules themselves."""
    guidelines: pd.DataFrame
    """One row per guideline of either run: guideline_id, text, text_before (where the text is
    another one by now, else ""), change (of `CHANGES`, in that
    order, then by text), moved (whether a number differs), why (list; where the verdict changed:
    which conditions changed sides), and verdict and `NUMBERS`, each with _before and _after
    ("" or NaN where the guideline is not there)."""
    simulated: tuple[str, ...]
    """Names of the runs whose deliberation is simulated."""
    altered: tuple[str, ...]
    """Files of `READ`, as run/file, that are not as their run left them."""

    @property
    def same(self) -> bool:
        """Whether nothing at all differs."""
        pairs = (*self.parameters, *(self.versions or ()), *self.fit, *self.rule)
        rows = [n for table in self.data.values() for kind, n in table.items() if kind != "same"]
        judged = self.guidelines["change"].eq("same") & ~self.guidelines["moved"]
        judged &= self.guidelines["text_before"].eq("")
        return all(pair.same for pair in pairs) and not any(rows) and bool(judged.all())

    def verdicts(self) -> dict[str, int]:
        """How many guidelines changed in each way of `CHANGES`."""
        found = self.guidelines["change"].value_counts()
        return {change: int(found.get(change, 0)) for change in CHANGES}

    def result(self) -> str:
        """The overall result, one sentence."""
        if self.same:
            known = "." if self.versions is not None else ", as far as is known: versions are not."
            return f"Nothing differs between {self.before} and {self.after}{known}"
        n, told = self.verdicts(), "No verdict changed"
        if changed := n["gained"] + n["lost"] + n["other"]:
            told = f"{many(changed, 'verdict')} changed: {n['gained']} accepted now, "
            told += f"{n['lost']} no longer"
            told += f", {n['other']} between undecided and rejected" if n["other"] else ""
        for change, side, word in (
            ("new", "after", "accepted"),
            ("gone", "before", "accepted before"),
        ):
            rows = self.guidelines[self.guidelines["change"] == change]
            accepted = int(rows[f"verdict_{side}"].eq(ACCEPTED).sum())
            told += f"; {many(len(rows), 'guideline')} {change}" if len(rows) else ""
            told += f" ({accepted} {word})" if accepted else ""
        both = self.guidelines[~self.guidelines["change"].isin(["new", "gone"])]
        if 2 * both["text_before"].ne("").sum() > len(both):
            told += ". Most texts differ: these are other guidelines under the same ids"
        return told + "."

    def kept(self) -> str:
        """How many verdicts are as before, and how far their numbers moved; one sentence."""
        rows = self.guidelines[self.guidelines["change"] == "same"]
        told = f"{many(len(rows), 'verdict')} as before"
        moved = rows["consensus_score_after"] - rows["consensus_score_before"]
        if rows["moved"].any():
            told += f"; {rows['moved'].sum():,} of them with other numbers than before"
            told += f", the consensus score by {moved.abs().max():.2g} at most"
        if n := int(rows["text_before"].ne("").sum()):
            told += f"; {many(n, 'text')} changed"
        return told + "."

    def text(self) -> str:
        """For a terminal, which nothing that strangers wrote can steer; long texts are cut."""
        told = [self.result(), *(f"{file}: {ALTERED}" for file in self.altered)]
        if self.same:
            return "\n".join(told)
        differ = {t: n for t, n in self.data.items() if n["same"] < sum(n.values())}
        lines = [*told, f"before: {self.before}, after: {self.after}"]
        lines += _section("Parameters", _told(self.parameters))
        unknown = ["not known: a run has no manifest.json, since it did not finish or was changed"]
        lines += _section("Versions", unknown if self.versions is None else _told(self.versions))
        lines += _section("Data", [f"{table}: {rows_told(n)}" for table, n in differ.items()])
        lines += _section("Fit", _told(pair for pair in self.fit if not pair.same))
        for change, heading in list(CHANGES.items())[:-1]:
            rows = self.guidelines[self.guidelines["change"] == change].to_dict("records")
            told = [line for row in rows[:MOST] for line in _guideline(row)]
            told += [f"and {len(rows) - MOST:,} more, all with --json"] if len(rows) > MOST else []
            lines += _section(heading, told) if rows else []
        return "\n".join([*lines, self.kept()])

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values that JSON can hold; what is not known is null."""
        told = {"same": self.same, "result": self.result(), "verdicts": self.verdicts()}
        for name, value in vars(self).items():
            if isinstance(value, tuple) and name not in ("simulated", "altered", "rules"):
                told[name] = {pair.key: pair.sides for pair in value}
            elif name != "rules":
                told[name] = value.to_dict("records") if isinstance(value, pd.DataFrame) else value
        return _plain(told)


def compare(before: RunFolder, after: RunFolder) -> Comparison:
    """What differs between two runs, guideline by guideline.

    Parameters and verdicts are compared as they were written, so the runs may be of different
    versions. An axis that points the other way is no difference: it has no direction.

    Raises RunError, naming the folder and the remedy, for a folder that is no run, has no evidence
    yet, or holds a file that cannot be read.
    """
    try:
        return _compare((before, after))
    except RunError:
        raise
    except Exception as error:  # whatever a damaged file makes any library raise
        damaged = [str(f.path / name) for f in (before, after) for name in _altered(f)]
        where = " and ".join(damaged) or f"a file in {before.path} or {after.path}"
        raise RunError(
            f"{where}: damaged ({type(error).__name__}), see `aggregation verify`"
        ) from None


def _compare(folders: tuple[RunFolder, RunFolder]) -> Comparison:
    for folder in folders:
        _check(folder)
    params, ingest, fit, summary = (
        [_file(folder, name) for folder in folders]
        for name in ("params.yaml", "data/ingest.json", "model/fit.json", "evidence/summary.json")
    )
    tables = [{t: _file(folder, f"data/{t}.parquet") for t in KEYS} for folder in folders]
    scores = [_file(folder, "evidence/guidelines.parquet") for folder in folders]
    rules = []
    for folder, told, table in zip(folders, summary, scores, strict=True):
        try:
            rules.append(Rule.from_json(told["rule"]))
        except (KeyError, TypeError):
            rules.append(None)
        if rules[-1] is None or not set(COLUMNS) <= set(table):
            raise RunError(f"{folder.path}: evidence/ is of an unknown version: {_again(folder)}")
        if not all(isinstance(bound, int | float) for bound in rules[-1].bounds.values()):
            raise _damaged(folder, "evidence/summary.json")
        kinds = dict.fromkeys(("guideline_id", "verdict"), is_string_dtype)
        kinds |= dict.fromkeys(NUMBERS, is_numeric_dtype)
        if not all(known(table[column]) for column, known in kinds.items()):
            raise _damaged(folder, "evidence/guidelines.parquet")
    rule = _pairs(*({"name": r.name, **r.bounds} for r in rules))
    paths = [folder.path.resolve() for folder in folders]
    parts = 1 if paths[0].name != paths[1].name else 2
    names = [_clear("/".join(path.parts[-parts:])) for path in paths]
    altered = [
        f"{name}/{f}" for name, folder in zip(names, folders, strict=True) for f in _altered(folder)
    ]
    versions = None
    if all((folder.path / "manifest.json").is_file() for folder in folders):
        made = [_file(folder, "manifest.json") for folder in folders]
        made = [flat({key: one[key] for key in VERSIONS if key in one}) for one in made]
        versions = tuple(pair for pair in _pairs(*made) if not pair.same)
    given = [flat(values | {"run": ""}) for values in params]
    fits = [{name: one[key] for name, key in FIT.items() if key in one} for one in fit]
    return Comparison(
        before=names[0],
        after=names[1],
        parameters=tuple(pair for pair in _pairs(*given) if not pair.same),
        versions=versions,
        data=rows(*tables),
        fit=_pairs(*fits),
        rule=rule,
        rules=(rules[0], rules[1]),
        guidelines=changes(
            scores[0],
            scores[1],
            (_texts(tables[0]), _texts(tables[1])),
            (rules[0], rules[1]),
        ),
        simulated=tuple(
            dict.fromkeys(
                name
                for name, told in zip(names, ingest, strict=True)
                if told.get("about", {}).get("simulated")
            )
        ),
        altered=tuple(altered),
    )


def _texts(tables: dict[str, pd.DataFrame]) -> pd.Series:
    """Text by guideline_id."""
    return tables["guidelines"].drop_duplicates("guideline_id").set_index("guideline_id")["text"]


def rows_told(n: dict[str, int]) -> str:
    """What became of the rows of a table, in words."""
    return (
        f"{n['only_before']:,} only before, {n['only_after']:,} only after, "
        f"{n['changed']:,} changed, {n['same']:,} the same"
    )


# reading


def _check(folder: RunFolder) -> None:
    if not (folder.path / "params.yaml").is_file():
        raise RunError(
            f"{folder.path}: is no run's folder, it has no params.yaml: give one that "
            "`aggregation run` has made, such as outputs/demo"
        )
    if not (folder.path / "evidence" / "summary.json").is_file():
        raise RunError(f"{folder.path}: has no evidence yet: {_again(folder)}")


def _file(folder: RunFolder, name: str) -> Any:
    """Content of one of the run's files, a dict or a frame; RunError where it cannot be read."""
    try:
        if name.endswith(".parquet"):
            return folder.read_table(name)
        if name.endswith(".json"):
            content = folder.read_json(name)
        else:
            content = YAML(typ="safe", pure=True).load(folder.read_bytes(name))
        json.dumps(content, default=str)  # an alias in YAML may stand for itself
    except (OSError, ValueError, YAMLError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _damaged(folder, name)
    return content


def _damaged(folder: RunFolder, name: str) -> RunError:
    return RunError(f"{folder.path / name}: cannot be read, it is damaged: {_again(folder)}")


def _altered(folder: RunFolder) -> list[str]:
    """Which of the files that are compared are not as the run's own manifest has them."""
    found = read_manifest(folder)
    known = {"params.yaml": found.get("parameters")}
    for stage in found.get("stages", {}).values():
        known |= stage.get("outputs", {})
    return [name for name in READ if known.get(name) not in (None, sha256(folder.path / name))]


def _again(folder: RunFolder) -> str:
    """How to make this folder anew, in its own place even if it was renamed."""
    path = folder.path.absolute()
    words = [str(folder.path / "params.yaml"), "--set", f"run={path.name}", "--out", path.parent]
    return "run it to the end first: aggregation run " + shlex.join(map(str, words))


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> tuple[Pair, ...]:
    sides = {"before": one, "after": other}
    return tuple(
        Pair(key, {side: has[key] for side, has in sides.items() if key in has})
        for key in dict.fromkeys([*one, *other])
    )


# words


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [f"{title}:", *indented] if indented else [f"{title}: the same"]


def _told(pairs: Iterable[Pair]) -> list[str]:
    return [_clear(p.key) + ": " + " -> ".join(map(_clear, p.shown())) for p in pairs]


def _guideline(row: dict[Any, Any]) -> list[str]:
    """A guideline's lines on a terminal. The text comes last: it may run from right to left."""
    words = (row["verdict_before"], row["verdict_after"])
    verdicts = " -> ".join(_clear(word, LONGEST_ID) for word in words if word)
    head = f"{verdicts} [{_clear(row['guideline_id'], LONGEST_ID)}] {_clear(row['text'])}"
    why = [sentence for sentence in row["why"] if sentence not in CHANGES]
    why += [f"text changed, before: {_clear(row['text_before'])}"] if row["text_before"] else []
    return [head, *(f"  {sentence}" for sentence in why)]


def _word(value: Any) -> str:
    if value is ...:
        return "not there"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{40,}", value):  # a hash
        return value[:12]
    return json.dumps(_plain(value), ensure_ascii=False)


def _clear(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut, with nothing in it that steers a terminal."""
    line = BIDI.sub("\ufffd", clean_text(" ".join(text.split())))
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; a number that is not known is None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value is pd.NA else str(value)
