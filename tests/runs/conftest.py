"""One small run that the tests of runs share, executed in this process."""

import pytest
from inprocess import quietly

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 60}
train: {starts: 2, max_starts: 2, moves: false}
"""


@pytest.fixture(scope="session")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("params") / "p.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, params):
    """The folder of a finished run. Tests copy it before they change anything."""
    return quietly(params, tmp_path_factory.mktemp("finished"))[1]
