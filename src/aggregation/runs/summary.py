"""Summary: what the small files of a run's folder say, whatever state it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aggregation.data.cards import Card, many
from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED
from aggregation.files import read_json

VERDICTS = (ACCEPTED, UNDECIDED, REJECTED)

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What the reading of a file raises that is damaged, or of another version."""


def state(path: Path) -> str:
    """How far the run came: it writes manifest.json last."""
    try:
        last = list(read_json(path / "manifest.json")["stages"])[-1]
    except UNREADABLE:
        return "not finished"
    return "finished" if last == "publish" else f"done up to {last}"


def summary(path: Path) -> dict[str, Any]:
    """The run's name, state, title and numbers, as far as they are known. Raises nothing.

    `not_done`: stages whose small file is not there; `damaged`: files that cannot be read.
    """
    found: dict[str, Any] = {"run": path.name or path.resolve().name, "state": state(path)}
    found |= {"title": "", "not_done": [], "damaged": []}
    for name, (tell, stage) in PARTS.items():
        try:
            found |= tell(read_json(path / name))
        except FileNotFoundError:
            found["not_done"].append(stage)
        except UNREADABLE:
            found["damaged"].append(f"{name} cannot be read: run the {stage} notebook again")
    try:
        given = YAML(typ="safe", pure=True).load((path / "params.yaml").read_text("utf-8"))
        found["title"] = str(given["title"] or found["title"])
    except (YAMLError, *UNREADABLE):
        pass
    return found


def headline(path: Path) -> str:
    """The run in one line."""
    name = path.name or path.resolve().name
    return Card(f"Run {name}: {state(path)}", doubts=(f"in {path}",)).line()


def card(path: Path) -> Card:
    """The run with title, numbers and verdicts."""
    found, facts = summary(path), {"folder": str(path)}
    doubts = list(found["damaged"])
    if found["state"] == "not finished":
        doubts.append("there is no manifest.json, which a run writes last")
    if "ratings" in found:
        numbers = (many(found[f"{noun}s"], noun) for noun in ("rating", "user", "guideline"))
        facts["data"] = ", ".join(numbers)
        doubts += ["simulated: nobody said any of this"] if found["simulated"] else []
    if "loss" in found:
        facts["model"] = f"loss {found['loss']:.8f}, from {many(found['starts'], 'start')}"
        if found["method"] == "gradient-descent":
            doubts.append("the fit is by gradient descent, which certifies nothing")
        elif not found["settled"]:
            doubts.append("the fit is not settled: a lower loss may exist")
    if "accepted" in found:
        facts["verdicts"] = ", ".join(f"{found[v]:,} {v}" for v in VERDICTS)
    facts |= dict.fromkeys(found["not_done"], "not done")
    title = {"title": found["title"]} if found["title"] else {}
    calls = (".load()", ".dataset()", ".fit()", ".constitution()")
    head = f"Run {found['run']}: {found['state']}"
    return Card(head, tuple((title | facts).items()), tuple(doubts), calls)


def _data(values: dict[str, Any]) -> dict[str, Any]:
    kept = {c["table"]: int(c["n"]) for c in values["counts"] if c["action"] == "kept"}
    about = {"simulated": bool(values["about"]["simulated"]), "title": values["about"]["title"]}
    return {name: kept[name] for name in ("ratings", "users", "guidelines")} | about


def _model(values: dict[str, Any]) -> dict[str, Any]:
    names = {"method": values["method"], "settled": bool(values["settled"])}
    return names | {"loss": float(values["objective"]), "starts": len(values["starts"])}


def _verdicts(values: dict[str, Any]) -> dict[str, Any]:
    return {verdict: int(values["verdicts"][verdict]) for verdict in VERDICTS}


PARTS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "data/ingest.json": (_data, "ingest"),
    "model/fit.json": (_model, "train"),
    "evidence/summary.json": (_verdicts, "diagnostics"),
}
"""The small file of each stage, who reads it, and the stage."""
