"""The installed wheel works in an empty folder, without a checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RATINGS = [
    (f"user{u}", f"guideline{g}", "yes" if (u * 7 + g * 3) % 4 or g < 2 else "no")
    for u in range(12)
    for g in range(6)
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, *words, folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_a_run_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for stage in ("ingest", "train", "diagnostics", "demographics", "publish"):
        assert f"aggregation/notebooks/{stage}.ipynb" in names
    assert {
        "aggregation/requirements.lock",
        "aggregation/py.typed",
        "aggregation/params/demo.yaml",
    } <= names


def test_an_installed_wheel_runs_a_csv_in_an_empty_folder(wheel, tmp_path):
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    # Dependencies come from this environment, the package only from the wheel: Python searches a
    # path named in a .pth file, but reads no .pth files there, such as the editable install's.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*install, wheel], check=True, capture_output=True)
    empty.mkdir()
    rows = ["who,what,vote", *(",".join(row) for row in RATINGS)]
    (empty / "ratings.csv").write_text("\n".join(rows) + "\n")
    # nbconvert looks for its templates below the environment's own folder
    env = os.environ | {"JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")}
    for words in (["init", "ratings.csv"], ["run"]):
        command = [environment / "bin" / "aggregation", *words]
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    run = empty / "outputs" / "ratings"
    assert json.loads((run / "model" / "fit.json").read_text())["n_ratings"] == len(RATINGS)
    assert (run / "report" / "index.html").is_file()
    where = [python, "-c", "import aggregation; print(aggregation.__file__)"]
    assert str(environment) in subprocess.check_output(where, cwd=empty, text=True)
