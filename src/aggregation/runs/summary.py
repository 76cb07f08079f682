"""Run card: what a run's folder says of itself, from its small files, whatever state it is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aggregation.data.cards import Card, many

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a file raises that is damaged, or that is of another version."""

Told = tuple[list[tuple[str, str]], list[str]]
"""Facts and doubts."""


def state(path: Path) -> str:
    """How far the run came: it writes manifest.json last."""
    try:
        stages = list(json.loads((path / "manifest.json").read_text("utf-8"))["stages"])
    except UNREADABLE:
        return "not finished"
    return "finished" if stages[-1:] == ["publish"] else f"done up to {(stages or ['nothing'])[-1]}"


def headline(path: Path) -> str:
    """The run's name and whether it is finished."""
    return f"Run {path.name or path.resolve().name}: {state(path)}"


def brief(path: Path) -> Card:
    """In one line."""
    return Card(headline(path), doubts=(f"in {path}",))


def card(path: Path) -> Card:
    """With title, numbers and verdicts, of as many stages as are there. Raises nothing."""
    facts, doubts = [("title", title(path)), ("folder", str(path))], []
    if state(path) == "not finished":
        doubts.append(
            "there is no manifest.json, which a run writes last: it stopped, is still at work, or "
            "was done or changed by hand"
        )
    for name, (tell, stage) in PARTS.items():
        file = path / name
        try:
            found, against = tell(json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            found, against = [(stage, "not done")], []
        except UNREADABLE:
            found, against = [], [f"{name} cannot be read: run the {stage} notebook again"]
        facts += found
        doubts += against
    return Card(
        headline(path),
        tuple((name, value) for name, value in facts if value),
        tuple(doubts),
        (".dataset()", ".fit()", ".constitution()"),
    )


def title(path: Path) -> str:
    """As in the parameters; else the source's own."""
    try:
        given = YAML(typ="safe", pure=True).load((path / "params.yaml").read_text("utf-8"))
        if given.get("title"):
            return str(given["title"])
        own = json.loads((path / "data" / "ingest.json").read_text("utf-8"))
        return str(own["about"]["title"])
    except (YAMLError, *UNREADABLE):
        return ""


def _data(values: dict[str, Any]) -> Told:
    kept = {c["table"]: int(c["n"]) for c in values["counts"] if c["action"] == "kept"}
    dropped = sum(int(c["n"]) for c in values["counts"] if c["action"] == "dropped")
    numbers = ", ".join(many(kept[f"{noun}s"], noun) for noun in ("rating", "user", "guideline"))
    simulated = ["simulated: nobody said any of this"] if values["about"]["simulated"] else []
    return [("data", f"{numbers}; {many(dropped, 'row')} dropped")], simulated


def _model(values: dict[str, Any]) -> Told:
    loss = f"loss {values['objective']:.8f}, from {many(len(values['starts']), 'start')}"
    if values["method"] == "gradient-descent":
        return [("model", loss)], ["the fit is by gradient descent, which certifies nothing"]
    standing = "converged" if values["converged"] else "not converged"
    settled = "settled" if values["settled"] else "not settled"
    doubt = "the fit is not settled: a lower loss may exist, with another constitution"
    return [("model", f"{loss}; {standing}, {settled}")], [] if values["settled"] else [doubt]


def _evidence(values: dict[str, Any]) -> Told:
    verdicts = ("accepted", "undecided", "rejected")
    return [("verdicts", ", ".join(f"{values['verdicts'][v]:,} {v}" for v in verdicts))], []


PARTS: dict[str, tuple[Callable[[Any], Told], str]] = {
    "data/ingest.json": (_data, "ingest"),
    "model/fit.json": (_model, "train"),
    "evidence/summary.json": (_evidence, "diagnostics"),
}
"""The small file of each stage, who reads it, and the stage."""
