"""Listing: a page with all runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from aggregation.errors import RunError, unwritable
from aggregation.files import atomic_write
from aggregation.report.environment import TEMPLATES
from aggregation.runs.folder import RunFolder
from aggregation.runs.summary import state, title

FAILED = "*.failed.ipynb"

OWN = "<h1>Runs</h1>"
"""What the page holds, and hardly another."""


def write_listing(out: Path) -> Path:
    """Write `out`/index.html: every run folder in `out`, by name; return its path.

    Files of a run that cannot be read leave gaps. Raises RunError if the page cannot be written,
    or would take the place of something else.
    """
    check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        folders = sorted(p for p in out.iterdir() if (p / "params.yaml").is_file())
        page = TEMPLATES.get_template("listing.html").render(
            title="Runs", runs=[_row(RunFolder(folder)) for folder in folders]
        )
        with atomic_write(out / "index.html") as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise unwritable(out, error) from None
    return out / "index.html"


def check_place(out: Path) -> None:
    """Raise RunError where `out` is a run's own folder, or holds another index.html."""
    if (out / "params.yaml").is_file():
        raise RunError(f"{out} is a run's folder: give the one that holds it")
    try:
        found = (out / "index.html").read_text("utf-8", "replace")
    except OSError:  # it is not there; or it cannot be used, and that is said when it is
        return
    if OWN not in found:
        raise RunError(f"{out / 'index.html'}: lists no runs: move it, or give another folder")


def _row(folder: RunFolder) -> dict[str, Any]:
    path, fit = folder.path, folder.read_if_any("model/fit.json")
    verdicts = _section(folder.read_if_any("evidence/summary.json"), "verdicts")
    about = _section(folder.read_if_any("data/ingest.json"), "about")
    report = path / "report" / "index.html"
    return {
        "run": path.name,
        "title": title(path),
        "link": quote(f"{path.name}/report/index.html") if report.is_file() else "",
        "state": state(path),
        "failed": [_failed(f, path.name) for f in sorted((path / "notebooks").glob(FAILED))],
        "simulated": about.get("simulated", False),
        "unsettled": fit.get("settled") is False,
        "numbers": [
            *(_number(fit.get(name), "{:,}") for name in ("n_ratings", "n_users")),
            *(_number(verdicts.get(v), "{:,}") for v in ("accepted", "undecided", "rejected")),
            _number(fit.get("objective"), "{:.8f}"),
        ],
        "started": str(folder.read_if_any("timing.json").get("started", ""))[:16].replace("T", " "),
    }


def _failed(notebook: Path, run: str) -> dict[str, str]:
    """The stage whose notebook failed, and a link to it. Its error may name a user."""
    link = quote(f"{run}/notebooks/{notebook.name}")
    return {"stage": notebook.name.partition(".")[0], "link": link}


def _number(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}
