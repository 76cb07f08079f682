"""One small run that the tests of runs share, executed in this process."""

from pathlib import Path

import inprocess
import pyarrow.parquet
import pytest
from inprocess import quietly

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 40}
train: {starts: 2, max_starts: 2, moves: false}
"""


@pytest.fixture(scope="session")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("params") / "p.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory, params):
    """The folder of a finished run, and the stages that read ratings.parquet, one for each read."""
    real, reads, at = pyarrow.parquet.read_table, [], []

    def read_table(path, *args, **options):
        reads.extend(at[-1:] if Path(path).name == "ratings.parquet" else [])
        return real(path, *args, **options)

    def execute(stage, *args, **options):
        at.append(stage)
        return inprocess.execute(stage, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyarrow.parquet, "read_table", read_table)
        _, folder = quietly(params, tmp_path_factory.mktemp("finished"), execute=execute)
    return folder, reads


@pytest.fixture(scope="session")
def finished(made):
    """The folder of a finished run. Tests copy it before they change anything."""
    return made[0]
