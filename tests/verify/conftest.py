"""Finished runs that the tests of this folder share."""

import json

import pytest
from forgery import copy_of, edit_json, finished, forge, read_json

import aggregation as ag


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def descended(honest, tmp_path):
    """A run that says it was made by gradient descent, which takes seconds to compile."""
    folder, path = copy_of(honest, tmp_path / "descended"), "params.yaml"
    text = (folder.path / path).read_text("utf-8")
    text = text.replace("method: alternating", "method: gradient-descent")
    (folder.path / path).write_text(text, "utf-8")
    edit_json(folder, "model/fit.json", lambda fit: fit.update(method="gradient-descent"))
    forge(folder)
    return folder


@pytest.fixture(scope="session")
def fixed(honest, tmp_path_factory):
    """A run from an export file, whose users are those of the model that `honest` found."""
    place = tmp_path_factory.mktemp("fixed")
    export, body = ag.simulate(7, ag.World(40)).export, read_json(honest, "constitution.json")
    export["mu"] = body["mu"]
    for name, word in (("guidelines", "guideline"), ("users", "user")):
        for record in export[name]:
            record["intercept"] = body[f"{word}_intercepts"][record["id"]]
            record["embeddings"] = body[f"{word}_embeddings"][record["id"]]
    (place / "export.json").write_text(json.dumps(export))
    source = f"source={{kind: platform-file, path: '{place}/export.json'}}"
    return finished(place, source, "train.hold=users")


@pytest.fixture
def copy(honest, tmp_path):
    return copy_of(honest, tmp_path / "small")
