"""Comparison: what differs between two runs, and which condition changed a verdict.

Of users and ratings there are only counts: no participant is named.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from aggregation.data.cards import many
from aggregation.data.dataset import clean_text
from aggregation.decisions.rules import ACCEPTED, COMPARISONS, Condition, Rule
from aggregation.errors import InputError, RunError
from aggregation.files import read_json, sha256
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import read_manifest
from aggregation.runs.stages import flat

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-9, 1e-12
"""Numbers that differ by less than either are the same."""

KEYS = {
    "ratings": ["user_id", "guideline_id"],
    "guidelines": ["guideline_id"],
    "users": ["user_id"],
    "topics": ["topic_id"],
}
"""Tables of data/, and the columns that tell their rows apart."""

FIT = {
    "loss": "objective",
    "residual": "kkt_residual",
    **{key: key for key in ("mu", "settled", "n_ratings", "n_users", "n_guidelines")},
}
"""What is compared of a fit, and its key in model/fit.json."""

VERSIONS = ("package", "commit", "dirty", "lock", "python", "processor", "libraries")
"""Keys of manifest.json that say what made the run."""

JSONS = ("data/ingest.json", "model/fit.json", "evidence/summary.json")
TABLES = ("evidence/guidelines.parquet", *(f"data/{table}.parquet" for table in KEYS))
READ = ("params.yaml", *JSONS, *TABLES)
"""Files of a run that are compared."""

NUMBERS = ("intercept", "helpful_rate", "n_ratings", "consensus_score")
"""Numbers of each guideline that are compared."""

ALTERED = "is not as its run left it, and is no result of the run: see `aggregation verify`"

MAX_LINE_LENGTH, MAX_ID_LENGTH, MAX_GUIDELINES = 100, 40, 30
"""On a terminal: characters of a text, characters of an id, guidelines under a heading."""

BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of what follows, beyond the text that holds them."""


SUFFIXES = ("_before", "_after")
LISTS = (list, tuple, np.ndarray)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; numbers but for rounding, and null like null."""
    if isinstance(one, LISTS) or isinstance(other, LISTS):
        alike = isinstance(one, LISTS) and isinstance(other, LISTS) and len(one) == len(other)
        return alike and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, bool) or isinstance(other, bool):  # else 1 would be true
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        close = math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
        return close or (one != one and other != other)
    return bool(one == other) or all(v is None or v is pd.NaT or v != v for v in (one, other))


def read(path: Path, name: str) -> Any:
    """A JSON value or a table of a run. Raises InputError, which names the file."""
    try:
        if name.endswith(".parquet"):
            return pd.read_parquet(path / name)
        return read_json(path / name)
    except Exception:  # whatever a damaged file makes any library raise
        raise InputError(f"{name} is not there, or is damaged") from None


def named_files(manifest: dict[str, Any]) -> dict[str, str]:
    """Name and hash of every file that a run's manifest names."""
    outputs = (record["outputs"].items() for record in manifest["stages"].values())
    return {"params.yaml": manifest["parameters"]} | {n: h for out in outputs for n, h in out}


@dataclass(frozen=True)
class Pair:
    """One thing of both runs."""

    key: str
    before: Any
    """None where the run does not have it."""
    after: Any

    @property
    def same(self) -> bool:
        """Whether it is the same in both."""
        return same(self.before, self.after)

    def shown(self) -> tuple[str, str]:
        """Both sides as texts. Numbers have six digits, or as many as tell them apart; counts
        (`n_...`) have thousands separators.
        """
        one, other = self.before, self.after
        if isinstance(one, float) and isinstance(other, float):
            texts = ((f"{one:.{n}g}", f"{other:.{n}g}") for n in range(6, 18))
            return next(pair for pair in texts if self.same or pair[0] != pair[1])
        if self.key.startswith("n_") and isinstance(one, int) and isinstance(other, int):
            return f"{one:,}", f"{other:,}"
        return _word(one), _word(other)


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs. See `compare`."""

    HEADINGS: ClassVar = {
        "gained": "Accepted now",
        "lost": "No longer accepted",
        "other": "Judged otherwise, accepted in neither",
        "new": "New guidelines",
        "gone": "Guidelines that are gone",
        "same": "Judged as before",
    }
    """Values of the column `change` of `guidelines`, in the order of the rows, as headings."""

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
    """All of `FIT`, the same or not."""
    rule: tuple[Pair, ...]
    """Name and bounds of the rule that the verdicts were made by, the same or not."""
    rules: tuple[Rule, Rule]
    """The rules themselves."""
    guidelines: pd.DataFrame
    """One row per guideline of either run: guideline_id, text, text_before (where the text was
    another one, else ""), change (a key of `HEADINGS`, in that order, then by text), moved (whether
    a number differs), why (list of sentences; where the verdict changed: which conditions hold in
    one run only), and verdict and `NUMBERS`, each with _before and _after ("" or NaN where the
    guideline is not there)."""
    simulated: tuple[str, ...]
    """Names of the runs whose deliberation is simulated."""
    altered: tuple[str, ...]
    """Files, as run/file, that are compared and are not as their run left them."""

    @property
    def same(self) -> bool:
        """Whether nothing at all differs."""
        pairs = (*self.parameters, *(self.versions or ()), *self.fit, *self.rule)
        rows = sum(sum(n.values()) - n["same"] for n in self.data.values())
        g = self.guidelines
        judged = g["change"].eq("same") & ~g["moved"] & g["text_before"].eq("")
        return all(pair.same for pair in pairs) and rows == 0 and bool(judged.all())

    def verdicts(self) -> dict[str, int]:
        """How many guidelines changed in each way of `HEADINGS`."""
        found = self.guidelines["change"].value_counts()
        return {change: int(found.get(change, 0)) for change in self.HEADINGS}

    def result(self) -> str:
        """The overall result, one sentence."""
        if self.same:
            known = "." if self.versions is not None else ", as far as is known: versions are not."
            return f"Nothing differs between {self.before} and {self.after}{known}"
        n = {c: k for c, k in self.verdicts().items() if k and c != "same"}
        told = "; ".join(f"{self.HEADINGS[change]}: {k:,}" for change, k in n.items())
        return f"{told or 'No verdict changed'}."

    def kept(self) -> str:
        """How many verdicts are as before; one sentence."""
        rows = self.guidelines[self.guidelines["change"] == "same"]
        told = f"{many(len(rows), 'verdict')} as before, {rows['moved'].sum():,} with other numbers"
        return f"{told}, {rows['text_before'].ne('').sum():,} with another text."

    def text(self) -> str:
        """For a terminal, which nothing that strangers wrote can steer; long texts are cut."""
        lines = [self.result(), *(f"{file}: {ALTERED}" for file in self.altered)]
        if self.same:
            return "\n".join(lines)
        lines += [f"before: {self.before}, after: {self.after}"]
        lines += _section("Parameters", _told(self.parameters))
        unknown = ["not known: a run has no manifest.json, since it did not finish or was changed"]
        lines += _section("Versions", unknown if self.versions is None else _told(self.versions))
        differ = {table: n for table, n in self.data.items() if n["same"] < sum(n.values())}
        lines += _section("Data", [f"{table}: {_counts(n)}" for table, n in differ.items()])
        lines += _section("Fit", _told(pair for pair in self.fit if not pair.same))
        for change, heading in list(self.HEADINGS.items())[:-1]:
            rows = self.guidelines[self.guidelines["change"] == change].to_dict("records")
            told = [line for row in rows[:MAX_GUIDELINES] for line in _guideline(row)]
            if (more := len(rows) - MAX_GUIDELINES) > 0:
                told.append(f"and {more:,} more, all with --json")
            lines += _section(heading, told) if rows else []
        return "\n".join([*lines, self.kept()])

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values that JSON can hold; what is not known is null."""
        told = {"same": self.same, "result": self.result(), "verdicts": self.verdicts()}
        told |= {name: value for name, value in vars(self).items() if name != "rules"}
        for name in ("parameters", "versions", "fit", "rule"):
            pairs = told[name] or ()
            told[name] = {p.key: {"before": p.before, "after": p.after} for p in pairs}
        told["versions"] = told["versions"] if self.versions is not None else None
        told["guidelines"] = self.guidelines.to_dict("records")
        return _plain(told)


def compare(before: RunFolder, after: RunFolder) -> Comparison:
    """What differs between two runs, guideline by guideline.

    Parameters and verdicts are compared as they were written, so the runs may be of different
    versions.

    Raises RunError, naming the file and the remedy, where a folder is of no finished run or holds
    a file that cannot be read.
    """
    one, other = _read(before), _read(after)
    paths = [folder.path.resolve() for folder in (before, after)]
    parts = 1 if paths[0].name != paths[1].name else 2
    names = [_clear("/".join(path.parts[-parts:])) for path in paths]
    named = list(zip(names, (one, other), strict=True))
    pairs = {key: _pairs(one[key], other[key]) for key in ("parameters", "versions", "fit", "rule")}
    differ = {key: tuple(pair for pair in pairs[key] if not pair.same) for key in pairs}
    try:
        return Comparison(
            before=names[0],
            after=names[1],
            parameters=differ["parameters"],
            versions=differ["versions"] if one["versions"] and other["versions"] else None,
            data={name: _rows(one[name], other[name], keys) for name, keys in KEYS.items()},
            fit=pairs["fit"],
            rule=pairs["rule"],
            rules=(one["the rule"], other["the rule"]),
            guidelines=_guidelines(one, other),
            simulated=tuple(dict.fromkeys(name for name, run in named if run["simulated"])),
            altered=tuple(f"{name}/{file}" for name, run in named for file in run["altered"]),
        )
    except Exception as error:  # whatever a damaged file makes any library raise
        told = f"{names[0]} or {names[1]}: damaged, see `aggregation verify` ({error})"
        raise RunError(told) from None


def _read(folder: RunFolder) -> dict[str, Any]:
    """What is compared of a run, by name."""
    path, file = folder.path, "params.yaml"
    try:
        parameters = flat(YAML(typ="safe", pure=True).load(path / file) | {"run": ""})
        json.dumps(parameters, default=str)  # an alias in YAML may stand for itself
        ingest, fit, summary = (dict(read(path, file := name)) for name in JSONS)
        rule = Rule.from_json(summary["rule"])
        tables = {name: read(path, file := f"data/{name}.parquet") for name in KEYS}
        scores = read(path, file := "evidence/guidelines.parquet")
        kinds = {"guideline_id": "str", "verdict": "str", **dict.fromkeys(NUMBERS, "float64")}
        scores = scores[[*kinds, "failed"]].astype(kinds)
        scores["failed"] = [{c["name"] for c in failed} for failed in scores["failed"]]
        texts = tables["guidelines"].set_index("guideline_id")["text"].to_dict()
        manifest = read_manifest(path)
        hashes = named_files(manifest) if manifest else {}
        return {
            "parameters": parameters,
            "versions": flat({key: manifest[key] for key in VERSIONS if key in manifest}),
            "fit": {name: fit.get(key) for name, key in FIT.items()},
            "rule": {"name": rule.name, **{c.name: c.bound for c in rule.conditions}},
            "the rule": rule,
            "scores": scores.assign(text=scores["guideline_id"].map(texts)),
            "simulated": ingest["about"]["simulated"],
            "altered": [n for n in READ if n in hashes and hashes[n] != sha256(path / n)],
            **tables,
        }
    except Exception:  # whatever a damaged file makes any library raise
        here = path.absolute()
        words = [str(path / "params.yaml"), "--set", f"run={here.name}", "--out", str(here.parent)]
        raise RunError(
            f"{path / file}: is not there, damaged or of an unknown version: run it to the end "
            f"first: aggregation run {shlex.join(words)}"
        ) from None


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> tuple[Pair, ...]:
    keys = dict.fromkeys([*one, *other])
    return tuple(Pair(key, one.get(key), other.get(key)) for key in keys)


def _rows(one: pd.DataFrame, other: pd.DataFrame, keys: list[str]) -> dict[str, int]:
    """Number of rows of two tables by what became of them."""
    if "embedding" in one and "embedding" in other:  # a list cannot be merged on
        one, other = (
            table.assign(embedding=table["embedding"].map(tuple, na_action="ignore"))
            for table in (one, other)
        )
    both, same_rows = len(one[keys].merge(other[keys])), len(one.merge(other))
    return {
        "only_before": len(one) - both,
        "only_after": len(other) - both,
        "changed": both - same_rows,
        "same": same_rows,
    }


def _guidelines(one: dict[str, Any], other: dict[str, Any]) -> pd.DataFrame:
    """See `Comparison.guidelines`."""
    scores = one["scores"], other["scores"]
    both = scores[0].merge(scores[1], "outer", "guideline_id", suffixes=SUFFIXES)
    words = ["verdict_before", "verdict_after", "text_before", "text_after"]
    both[words] = both[words].fillna("")
    old, new, rows = both["text_before"], both["text_after"], both.to_dict("records")
    changes = [_change(row["verdict_before"], row["verdict_after"]) for row in rows]
    moved = [not all(same(*(row[n + end] for end in SUFFIXES)) for n in NUMBERS) for row in rows]
    rules = one["the rule"], other["the rule"]
    both = both.astype({"n_ratings_before": "Int64", "n_ratings_after": "Int64"}).assign(
        text=new.where(new != "", old),
        text_before=old.where((old != new) & (new != ""), ""),
        change=changes,
        moved=moved,
        why=[_why(*rules, row, change) for row, change in zip(rows, changes, strict=True)],
        rank=[list(Comparison.HEADINGS).index(change) for change in changes],
    )
    both = both.sort_values(["rank", "text", "guideline_id"], kind="stable", ignore_index=True)
    return both.drop(columns=["rank", "failed_before", "failed_after", "text_after"])


def _change(before: str, after: str) -> str:
    """What became of a guideline: a key of `Comparison.HEADINGS`."""
    if not before or not after:
        return "gone" if before else "new"
    if before == after:
        return "same"
    return "gained" if after == ACCEPTED else "lost" if before == ACCEPTED else "other"


def _why(old: Rule, new: Rule, row: dict[Any, Any], change: str) -> list[str]:
    """Which conditions hold in one run only, a sentence for each."""
    if change in ("new", "gone", "same"):
        return []
    before, differ = {c.name: c for c in old.conditions}, row["failed_before"] ^ row["failed_after"]
    reasons = [_reason(before.get(c.name, c), c, row) for c in new.conditions if c.name in differ]
    return reasons or ["no condition differs: the two versions judge differently"]


def _reason(old: Condition, new: Condition, row: dict[Any, Any]) -> str:
    """Such as `intercept 0.381 -> 0.372, needs more than 0.375`."""
    values = [(c, row[f"{new.column}_{s}"]) for c, s in ((old, "before"), (new, "after"))]
    numbers = ["none" if pd.isna(value) else c.shown(value) for c, value in values]
    bounds = [f"{c.bound:.15g}" for c in (old, new)]
    number, bound = (" -> ".join(dict.fromkeys(both)) for both in (numbers, bounds))
    needs = "limit" if old.bound != new.bound else f"needs {COMPARISONS[new.comparison][1]}"
    return f"{new.column.removeprefix('n_').replace('_', ' ')} {number}, {needs} {bound}"


# words


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [f"{title}:", *indented] if indented else [f"{title}: the same"]


def _told(pairs: Iterable[Pair]) -> list[str]:
    return [f"{_clear(p.key)}: {' -> '.join(map(_clear, p.shown()))}" for p in pairs]


def _counts(n: dict[str, int]) -> str:
    return ", ".join(f"{k:,} {word.replace('_', ' ')}" for word, k in n.items())


def _guideline(row: dict[Any, Any]) -> list[str]:
    """A guideline's lines on a terminal. The text comes last: it may run from right to left."""
    words = (row["verdict_before"], row["verdict_after"])
    verdicts = " -> ".join(_clear(word, MAX_ID_LENGTH) for word in words if word)
    head = f"{verdicts} [{_clear(row['guideline_id'], MAX_ID_LENGTH)}] {_clear(row['text'])}"
    why = [f"text changed, before: {_clear(row['text_before'])}"] if row["text_before"] else []
    return [head, *(f"  {sentence}" for sentence in [*row["why"], *why])]


def _word(value: Any) -> str:
    return "none" if value is None else json.dumps(_plain(value), ensure_ascii=False)


def _clear(text: str, longest: int = MAX_LINE_LENGTH) -> str:
    """The text in one line, cut, with nothing in it that steers a terminal."""
    line = BIDI.sub("\ufffd", clean_text(" ".join(text.split())))
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; a number that is not known is None."""
    text = json.dumps(value, default=lambda other: None if other is pd.NA else str(other))
    return json.loads(text, parse_constant=lambda _: None)
