"""Pages: what a run's folder gives to the pages of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from aggregation.errors import RunError, unwritable
from aggregation.files import atomic_write, read_json
from aggregation.report.run_list import HEADING, run_list_page
from aggregation.runs.folder import RunFolder
from aggregation.runs.stages import STAGES, page
from aggregation.runs.summary import state, title


def write_page(path: Path, stage: str, stages: list[str]) -> None:
    """Render a stage's page in the run's folder `path`; it links to those of `stages`."""
    import nbformat

    from aggregation.report.notebook_pages import notebook_page  # loads nbconvert

    notebook = nbformat.read(path / "notebooks" / f"{stage}.ipynb", as_version=4)
    simulated = read_json(path / "data" / "ingest.json")["about"]["simulated"]
    html = notebook_page(notebook, stage, stages, run=path.name, simulated=simulated)
    with atomic_write(path / page(stage)) as partial:
        partial.write_text(html, encoding="utf-8")


def stages_shown(folder: RunFolder) -> list[str]:
    """Stages that have a page: those with an executed notebook, and publish, which is at work."""
    notebooks = folder.path / "notebooks"
    return [s for s in STAGES if s == "publish" or (notebooks / f"{s}.ipynb").is_file()]


def demographics_counts(folder: RunFolder) -> list[dict[str, Any]] | None:
    """The records of demographics/counts.json; None where there is none."""
    name = "demographics/counts.json"
    return folder.read_json(name) if (folder.path / name).exists() else None


def write_run_list(out: Path) -> Path:
    """Write `out`/index.html: every run folder in `out`, by name; return its path.

    Files of a run that cannot be read leave gaps. Raises RunError if the page cannot be written,
    or would take the place of something else.
    """
    check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        folders = sorted(p for p in out.iterdir() if (p / "params.yaml").is_file())
        page = run_list_page(_row(RunFolder(folder)) for folder in folders)
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
    if HEADING not in found:
        raise RunError(f"{out / 'index.html'}: lists no runs: move it, or give another folder")


def _row(folder: RunFolder) -> dict[str, Any]:
    path, fit = folder.path, folder.read_if_any("model/fit.json")
    verdicts = _section(folder.read_if_any("evidence/summary.json"), "verdicts")
    about = _section(folder.read_if_any("data/ingest.json"), "about")
    failed = sorted((path / "notebooks").glob("*.failed.ipynb"))
    numbers = {name: fit.get(name) for name in ("n_ratings", "n_users")} | {
        name: verdicts.get(name) for name in ("accepted", "undecided", "rejected")
    }
    numbers["loss"] = fit.get("objective")
    report = (path / "report" / "index.html").is_file()
    started = str(folder.read_if_any("timing.json").get("started", ""))
    return {
        "run": path.name,
        "title": title(path),
        "link": quote(f"{path.name}/report/index.html") if report else "",
        "state": state(path),
        "failed": [
            {"stage": f.name.partition(".")[0], "link": quote(f"{path.name}/notebooks/{f.name}")}
            for f in failed  # not the error itself, which may name a user
        ],
        "simulated": about.get("simulated", False),
        "unsettled": fit.get("settled") is False,
        "started": started[:16].replace("T", " "),
        **{name: n if isinstance(n, int | float) else None for name, n in numbers.items()},
    }


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}
