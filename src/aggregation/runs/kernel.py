"""Kernel: the process that runs a notebook's code, alike on every machine and from every folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from aggregation.runs.provenance import jax_platforms

COMMON = "import aggregation.params.loading, aggregation.runs.folder, aggregation.report.display"
IMPORTS = {
    "ingest": f"{COMMON}, aggregation.sources",
    "train": f"{COMMON}, aggregation.model.alternating, scipy.sparse",
    "diagnostics": f"{COMMON}, aggregation.report.figures, scipy.optimize, sklearn.cluster",
    "publish": f"{COMMON}, aggregation.report.index, aggregation.services.delivery, scipy.optimize",
}
"""What a stage's notebook loads: a kernel that is started ahead has it ready."""

MAIN = "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"

OPTIONS = [
    "--log-level=CRITICAL",  # else it says that it is being shut down
    "--InteractiveShellApp.ignore_cwd=True",  # no module from where the run was begun
]

MAX_SOCKET_FOLDER = 60
"""Characters of the folder for sockets: a socket's whole path may have about a hundred."""


class Kernel:
    """A kernel of this Python that talks over sockets in a folder of its own.

    Ports could be taken by another run between their choice and their use. It gets ready by itself
    once it is started; `close` ends it, whatever it is doing.
    """

    def __init__(self, ahead: str = "") -> None:
        """`ahead`: the stage for which it is started before it is needed."""
        imports = IMPORTS.get(ahead, "")
        near = tempfile.gettempdir()
        short = near if len(near) <= MAX_SOCKET_FOLDER else "/tmp"  # noqa: S108
        self.folder = tempfile.TemporaryDirectory(
            prefix="aggregation-", dir=short, ignore_cleanup_errors=True
        )
        self.manager = manager = AsyncKernelManager(
            transport="ipc", connection_file=f"{self.folder.name}/k.json"
        )
        words = [sys.executable, "-c", f"{imports}\n{MAIN}", "-f", "{connection_file}", *OPTIONS]
        manager._kernel_spec = KernelSpec(argv=words, display_name="Python 3")  # noqa: SLF001

        class Manager(AsyncKernelManager):
            def __new__(cls, **_: object) -> AsyncKernelManager:  # type: ignore[misc]
                return manager

        self.manager_class = Manager
        """A class that makes this kernel's manager and no other, as nbclient wants it."""

    async def start(self) -> None:
        """Start the process, if that was not done yet."""
        if not self.manager.has_kernel:
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            await self.manager.start_kernel(**silent, env=environment(self.folder.name))

    def close(self) -> None:
        """End the process, if it still runs, and remove its sockets.

        Not by `shutdown_kernel`, which fails where Ctrl-C came while the kernel started.
        """
        process = getattr(self.manager.provisioner, "process", None)
        if process is not None:
            process.kill()
            process.wait()
        run_sync(self.manager.cleanup_resources)()
        self.folder.cleanup()


def environment(folder: str) -> dict[str, str]:
    """A kernel's environment: what changes results, or what is said beside them, is fixed.

    It sees no start-up files of the user's and no modules of the working directory; its texts are
    UTF-8 whatever the locale. `folder` is its own.
    """
    caches = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")
    memory = "XLA_PYTHON_CLIENT_"  # how much of a GPU's JAX takes
    others = ("JAX_", "XLA_", "PYTHONWARNINGS", "PYTHONSTARTUP")
    passed = (*caches, memory)
    kept = {n: v for n, v in os.environ.items() if n.startswith(passed) or not n.startswith(others)}
    kept |= {"IPYTHONDIR": folder, "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    kept |= {"PYTHONSAFEPATH": "1", "JAX_PLATFORMS": jax_platforms()}
    home = os.path.expanduser("~")  # noqa: PTH111  # raises nothing for a user without a home
    if not os.access(home, os.W_OK):  # else Matplotlib says where else it writes
        kept["MPLCONFIGDIR"] = folder
    return kept
