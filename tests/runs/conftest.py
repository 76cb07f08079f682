"""One small run that the tests of runs share, executed in this process."""

import inprocess
import pytest

from aggregation.runs.runner import run

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 60}
train: {starts: 2, max_starts: 2, moves: false}
"""


def quietly(params, out, **options):
    """A run in this process; gives the lines that it said and its folder."""
    said = []
    folder = run(params, out=out, say=said.append, **{"execute": inprocess.execute} | options)
    return said, folder


@pytest.fixture(scope="session")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("params") / "p.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, params):
    """The folder of a finished run. Tests copy it before they change anything."""
    return quietly(params, tmp_path_factory.mktemp("finished"))[1]
