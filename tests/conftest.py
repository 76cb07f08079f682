"""What all tests share."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("here", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("here")


# JAX takes two seconds to compile a fit, in every kernel anew. Here all workers of a session share
# what they compiled: these processes and module-wide fixtures write; what a single test starts
# reads only, for it may be killed while it writes. With a size JAX locks the folder.

FOLDER, SIZE = "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"
WRITES = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
ALWAYS, NEVER = "0", "1e9"


def pytest_configure(config):
    # Ignored in the background and under nohup, and by all children then; these do not inherit it.
    taken = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}
    for number, handler in taken.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="aggregation-tests-")
        os.environ |= {FOLDER: config.stash[CACHE].name, SIZE: str(2**33), WRITES: NEVER}
        if getattr(config.option, "numprocesses", None):
            return  # the workers run the tests
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ[FOLDER])
    jax.config.update("jax_compilation_cache_max_size", int(os.environ[SIZE]))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(ALWAYS))


def pytest_unconfigure(config):
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()


LONGEST = (
    *("runs/test_runner", "runs/test_kernels", "report/test_pages", "services/test_platform_runs"),
    *("verify/test_rerun", "model/test_fit", "runs/test_batch", "runs/test_notebooks"),
    *("test_cli", "test_wheel", "verify/test_checks", "evidence/test_collect", "model/test_multi"),
)
"""Files that take longest: they begin, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.relative_to(ROOT / "tests").as_posix()
        return next((k for k, part in enumerate(LONGEST) if name.startswith(part)), len(LONGEST))

    items.sort(key=place)
    if not os.environ.get("AGGREGATION_SLOW"):
        skip = pytest.mark.skip(reason="takes long: set AGGREGATION_SLOW=1")
        for item in filter(lambda item: item.get_closest_marker("slow"), items):
            item.add_marker(skip)


CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    if fixturedef.scope == "function":
        return (yield)
    os.environ[WRITES] = ALWAYS
    try:
        return (yield)
    finally:
        os.environ[WRITES] = NEVER


@pytest.fixture(scope="session")
def data() -> Path:
    """The real deliberations; tests that need them are skipped where they are not."""
    folder = Path(os.environ.get("AGGREGATION_DATA", ROOT.parent / "shared" / "data"))
    folder = folder if folder.is_absolute() else ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no real data at AGGREGATION_DATA={folder} (see CONTRIBUTING.md)")
    return folder
