"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("here", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("here")


@pytest.fixture(scope="session")
def data() -> Path:
    """The real deliberations; tests that need them are skipped where they are not."""
    folder = Path(os.environ.get("AGGREGATION_DATA", ROOT.parent / "shared" / "data"))
    folder = folder if folder.is_absolute() else ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no real data at AGGREGATION_DATA={folder} (see CONTRIBUTING.md)")
    return folder
