"""Small finished runs, and how to edit one and forge its hashes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
from inprocess import execute

from aggregation import RunFolder
from aggregation.data.fingerprint import fingerprints
from aggregation.files import sha256, with_checksum
from aggregation.runs.runner import run
from aggregation.verify.checks import SIDES, _model, decide, read_data
from aggregation.verify.reference_solver import descend, loss, residual

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 40}
train: {starts: 2, max_starts: 2, moves: false}
"""


def finished(place, *changes):
    """The folder of a small run in `place`."""
    (place / "p.yaml").write_text(PARAMS)
    out = place / "outputs"
    path = run(place / "p.yaml", changes=changes, out=out, say=lambda _: None, execute=execute)
    return RunFolder(path)


def copy_of(folder, path):
    return RunFolder(shutil.copytree(folder.path, path))


def read_json(folder, name):
    return json.loads((folder.path / name).read_text("utf-8"))


def write_json(folder, name, value):
    (folder.path / name).write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def edit_json(folder, name, edit):
    value = read_json(folder, name)
    edit(value)
    write_json(folder, name, value)


def edit_table(folder, name, edit):
    edit(pd.read_parquet(folder.path / name)).to_parquet(folder.path / name)


def forge(folder):
    """Make every hash and checksum anew, as somebody would who wants an edit to pass."""

    def again(manifest):
        for record in manifest["stages"].values():
            record["outputs"] = {n: sha256(folder.path / n) for n in record["outputs"]}
        made = {n: h for r in manifest["stages"].values() for n, h in r["outputs"].items()}
        for record in manifest["stages"].values():
            record["input"] = {n: made.get(n, h) for n, h in record["input"].items()}
        manifest["parameters"] = sha256(folder.path / "params.yaml")
        manifest["tables"] = fingerprints(folder.dataset())

    edit_json(folder, "manifest.json", again)
    write_json(folder, "manifest.json", with_checksum(read_json(folder, "manifest.json")))


def remodel(folder, x):
    """Write the point `x` as the run's model, with all that follows from it, and forge it."""
    data = read_data(folder)
    body = {"mu": float(x.mu)}
    for k, (name, key) in enumerate(SIDES):
        intercepts = dict(zip(data.ids[k], x.intercepts[k].tolist(), strict=True))
        embeddings = dict(zip(data.ids[k], x.embeddings[k].tolist(), strict=True))
        edit_table(
            folder,
            f"model/{name}.parquet",
            lambda t, key=key, i=intercepts, f=embeddings: t.assign(
                intercept=t[key].map(i), embedding=t[key].map(f)
            ),
        )
        body |= {f"{name[:-1]}_intercepts": intercepts, f"{name[:-1]}_embeddings": embeddings}
    measured = {"objective": loss(data.problem, x), "kkt_residual": residual(data.problem, x)}
    measured["mu"] = float(x.mu)
    edit_json(
        folder,
        "model/fit.json",
        lambda fit: fit.update(measured, minima=[fit["minima"][0] | measured]),
    )
    found = decide(data, x)
    found.scores.to_parquet(folder.path / "evidence/guidelines.parquet")
    summary = {"rule": found.rule.as_json(), "verdicts": found.verdicts()}
    write_json(folder, "evidence/summary.json", summary)
    accepted = found.accepted.set_index("guideline_id")["consensus_score"].sort_index().to_dict()
    body |= {"accepted_guideline_ids": list(accepted), "guideline_scores": accepted}
    write_json(folder, "constitution.json", body)
    forge(folder)


def point_of(folder):
    """The model of a run."""
    return _model(read_data(folder), folder.path, read_json(folder, "model/fit.json")["mu"])


def without_embeddings(folder):
    """The stationary point at which all embeddings are 0."""
    x = point_of(folder)
    zeros = tuple(np.zeros_like(f) for f in x.embeddings)
    return descend(read_data(folder).problem, replace(x, embeddings=zeros), 1e-10, 20000)
