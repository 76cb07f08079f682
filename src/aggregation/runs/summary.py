"""Summary: what a run's folder says of itself, from its small files, whatever state it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aggregation.data.cards import Card, many
from aggregation.files import read_json
from aggregation.runs.provenance import MANIFEST

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a file raises that is damaged, or that another version wrote."""

Told = tuple[list[tuple[str, str]], list[str]]
"""Facts and doubts."""


def state(path: Path) -> str:
    """How far the run came: it writes manifest.json last."""
    try:
        stages = list(read_json(path / MANIFEST)["stages"])
    except UNREADABLE:
        return "not finished"
    return "finished" if stages[-1:] == ["publish"] else f"done up to {(stages or ['nothing'])[-1]}"


def headline(path: Path) -> str:
    """The run's name and whether it is finished."""
    return f"Run {path.name or path.resolve().name}: {state(path)}"


def card(path: Path) -> Card:
    """Title, numbers and verdicts, of as many stages as are there. Raises nothing."""
    facts, doubts = [("title", title(path)), ("folder", str(path))], []
    if state(path) == "not finished":
        doubts.append(
            f"there is no {MANIFEST}, which a run writes last: it was made or changed by hand"
        )
    for name, (tell, stage) in PARTS.items():
        try:
            found, against = tell(read_json(path / name))
        except FileNotFoundError:
            found, against = [(stage, "not done")], []
        except UNREADABLE:
            found, against = [], [f"{name} cannot be read: run the {stage} notebook again"]
        facts += found
        doubts += against
    shown = tuple((name, value) for name, value in facts if value)
    calls = (".dataset()", ".fit()", ".constitution()", ".load()")
    return Card(headline(path), shown, tuple(doubts), calls)


def title(path: Path) -> str:
    """As in the parameters; else the source's own."""
    try:
        given = YAML(typ="safe", pure=True).load((path / "params.yaml").read_text("utf-8"))
        own = read_json(path / "data" / "ingest.json")["about"]["title"]
        return str(given.get("title") or own)
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
    return [("verdicts", ", ".join(f"{n:,} {v}" for v, n in values["verdicts"].items()))], []


PARTS: dict[str, tuple[Callable[[Any], Told], str]] = {
    "data/ingest.json": (_data, "ingest"),
    "model/fit.json": (_model, "train"),
    "evidence/summary.json": (_evidence, "diagnostics"),
}
"""The small file of each stage, what it says, and the stage."""
