"""Kernels: where a notebook's code runs, the same on every machine and from every folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

OPTIONS = [
    "--log-level=CRITICAL",  # else it says that it is being shut down
    "--InteractiveShellApp.ignore_cwd=True",  # no module from where the run was begun
]

LONGEST = 60
"""Characters of the folder for sockets: a socket's whole path may have about a hundred."""


@contextmanager
def kernel_manager() -> Iterator[type[AsyncKernelManager]]:
    """A manager whose kernels are of this Python, and talk over sockets in a folder of their own.

    Ports could be taken by another run between their choice and their use.
    """
    near = tempfile.gettempdir()
    short = near if len(near) <= LONGEST else "/tmp"  # noqa: S108  # a folder of its own in it
    with tempfile.TemporaryDirectory(
        prefix="aggregation-", dir=short, ignore_cleanup_errors=True
    ) as place:

        class Manager(AsyncKernelManager):
            def __init__(self, **given: Any) -> None:
                file = str(Path(place) / "k.json")
                super().__init__(**given, transport="ipc", connection_file=file)
                words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                self._kernel_spec = KernelSpec(argv=words, display_name="Python 3")

            async def start_kernel(self, **given: Any) -> None:
                silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                await super().start_kernel(**given, **silent, env=environment(place))

        yield Manager


def environment(place: str) -> dict[str, str]:
    """A kernel's environment: what changes results, or what is said beside them, is fixed.

    It sees no start-up files of the user's and no modules of the working directory; its texts are
    UTF-8 whatever the locale. `place` is its own folder.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
        or not name.startswith(("JAX_", "XLA_", "PYTHONWARNINGS", "PYTHONSTARTUP"))
    }
    own = {"IPYTHONDIR": place, "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    own |= {"PYTHONSAFEPATH": "1", "JAX_PLATFORMS": "cpu"}
    home = os.path.expanduser("~")  # noqa: PTH111  # raises nothing for a user without a home
    if not os.access(home, os.W_OK):  # else Matplotlib says where else it writes
        own["MPLCONFIGDIR"] = place
    return kept | own
