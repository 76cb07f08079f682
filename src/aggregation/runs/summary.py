"""Summary: what the small files of a run's folder say, whatever state it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aggregation.data.cards import Card, many
from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED
from aggregation.files import read_if_any
from aggregation.runs.provenance import MANIFEST

VERDICTS = (ACCEPTED, UNDECIDED, REJECTED)

PARTS = {
    "ingest": "data/ingest.json",
    "train": "model/fit.json",
    "diagnostics": "evidence/summary.json",
}
"""Of each stage."""


def state(path: Path) -> str:
    """How far the run came: it writes manifest.json last."""
    stages = read_if_any(path / MANIFEST).get("stages")
    if not stages or not isinstance(stages, dict):
        return "not finished"
    return "finished" if "publish" in stages else f"done up to {list(stages)[-1]}"


def parameters(path: Path) -> dict[str, Any]:
    """What params.yaml says; nothing where it cannot be read."""
    try:
        return dict(YAML(typ="safe", pure=True).load((path / "params.yaml").read_text("utf-8")))
    except (YAMLError, OSError, ValueError, TypeError, RecursionError):
        return {}


def summary(path: Path) -> dict[str, Any]:
    """The run's name, state, title and numbers, None where they are not known. Raises nothing."""
    data, fit, evidence = (read_if_any(path / name) for name in PARTS.values())
    about, verdicts = (
        v if isinstance(v, dict) else {} for v in (data.get("about"), evidence.get("verdicts"))
    )
    numbers = {name: fit.get(name) for name in ("n_ratings", "n_users", "n_guidelines")}
    numbers |= {name: verdicts.get(name) for name in VERDICTS} | {"loss": fit.get("objective")}
    return {
        "run": path.name or path.resolve().name,
        "state": state(path),
        "title": str(parameters(path).get("title") or about.get("title") or ""),
        "simulated": bool(about.get("simulated")),
        "unsettled": fit.get("settled") is False,
        "method": fit.get("method"),
        **{name: n if isinstance(n, int | float) else None for name, n in numbers.items()},
    }


def headline(path: Path) -> str:
    """The run in one line."""
    return Card(
        f"Run {path.name or path.resolve().name}: {state(path)}", doubts=(f"in {path}",)
    ).line()


def card(path: Path) -> Card:
    """The run with title, numbers and verdicts."""
    found = summary(path)
    facts = {"title": found["title"], "folder": str(path)}
    facts |= {stage: "not done" for stage, name in PARTS.items() if not (path / name).exists()}
    doubts = [
        f"{name} cannot be read: run the {stage} notebook again"
        for stage, name in PARTS.items()
        if (path / name).exists() and not read_if_any(path / name)
    ]
    if found["state"] == "not finished":
        doubts.append("there is no manifest.json, which a run writes last")
    if found["simulated"]:
        doubts.append("simulated: nobody said any of this")
    if found["loss"] is not None:
        counts = (many(found[f"n_{noun}s"] or 0, noun) for noun in ("rating", "user", "guideline"))
        facts |= {"data": ", ".join(counts), "model": f"loss {found['loss']:.8f}"}
    if found["method"] == "gradient-descent":
        doubts.append("the fit is by gradient descent, which certifies nothing")
    elif found["unsettled"]:
        doubts.append("the fit is not settled: a lower loss may exist, with another constitution")
    if found[ACCEPTED] is not None:
        facts["verdicts"] = ", ".join(f"{found[v] or 0:,} {v}" for v in VERDICTS)
    calls = (".load()", ".dataset()", ".fit()", ".constitution()")
    shown = tuple((name, value) for name, value in facts.items() if value)
    return Card(f"Run {found['run']}: {found['state']}", shown, tuple(doubts), calls)


def closing(path: Path) -> list[str]:
    """What a run came to, in a few lines for the end of the command: read, decided, to doubt."""
    data, evidence = (read_if_any(path / PARTS[stage]) for stage in ("ingest", "diagnostics"))
    if not data or not evidence:
        return []
    counts = [c for c in data["counts"] if c["table"] == "ratings" and c["n"]]
    read = sum(c["n"] for c in counts if c["action"] == "read")
    gone = [c for c in counts if c["action"] in ("dropped", "merged")]
    why = "; ".join(f"{c['n']:,}: {c['reason']}" for c in sorted(gone, key=lambda c: -c["n"])[:3])
    lost = sum(c["n"] for c in gone)
    told = f", {lost:,} left out ({why})" if lost else ""
    verdicts = ", ".join(f"{evidence['verdicts'].get(v, 0):,} {v}" for v in VERDICTS)
    sure = ", ".join(f"{n:,} {word}" for word, n in evidence.get("confidence", {}).items() if n)
    lines = [
        f"Read:    {read:,} ratings{told}",
        f"Decided: {verdicts}" + (f"; of those accepted: {sure}" if sure else ""),
    ]
    return lines + [f"Doubt:   {warning}" for warning in evidence.get("warnings", ())[:3]]
