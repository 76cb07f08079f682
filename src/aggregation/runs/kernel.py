"""Kernel: the process that runs a notebook's code, alike on every machine and from every folder."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
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


FORKS = sys.platform == "linux"
"""Whether kernels are forks of a server. Elsewhere the system's libraries do not survive a fork."""


class Server:
    """The process that forks kernels (`kernel_server`)."""

    def __init__(self) -> None:
        self.folder = _temporary_folder()
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aggregation.runs.kernel_server"],
                env=environment(self.folder.name),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def fork(
        self, imports: Sequence[str], arguments: list[str], changes: dict[str, str]
    ) -> socket.socket:
        """Ask for a kernel; a socket says its process id when it runs, and is closed at its end.

        `imports`: what is loaded before it is forked, and what afterwards, for the next one.
        """
        asked = {"imports": imports, "arguments": arguments, "environment": changes}
        ours, theirs = socket.socketpair()
        with suppress(BrokenPipeError):  # a server that died shows as a kernel that did
            with theirs:
                socket.send_fds(self.control, [b"k"], [theirs.fileno()])
            ours.sendall(json.dumps(asked).encode() + b"\n")
        return ours

    def close(self) -> None:
        """End the server, and with it its kernels."""
        self.process.kill()
        self.process.wait()
        self.control.close()
        self.folder.cleanup()


class _Forked:
    """A forked kernel, as jupyter_client knows processes: what it needs of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, channel: socket.socket) -> None:
        self.channel, self.pid, self.returncode = channel, 0, None

    def _hear(self) -> None:
        try:
            told = self.channel.recv(32)
        except ConnectionResetError:
            told = b""
        if told:
            self.pid = int(told)
        else:
            self.returncode = -signal.SIGKILL

    def poll(self) -> int | None:
        while self.returncode is None and select.select([self.channel], [], [], 0)[0]:
            self._hear()
        return self.returncode

    def wait(self) -> int:
        while self.returncode is None:
            self._hear()
        self.channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.poll()
        if self.pid:  # what it has started may outlive it
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        if not self.pid and self.returncode is None:  # not forked yet: it will find this closed
            self.channel.shutdown(socket.SHUT_RDWR)


class _Provisioner(LocalProvisioner):
    """Has the server fork a kernel where jupyter_client would start a process."""

    server: Server
    imports: Sequence[str]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        changes = {"IPYTHONDIR": kwargs["env"]["IPYTHONDIR"]}
        self.process = _Forked(self.server.fork(self.imports, cmd[3:], changes))
        return self.connection_info

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """End the kernel and wait for that here: jupyter_client looks for it every 0.1 s."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class _Client(AsyncKernelClient):
    """A client that goes on as soon as the kernel is ready; jupyter_client's waits 0.2 s longer."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # type: ignore[override]
        """Wait until a request is answered, and until what the kernel publishes is heard."""
        deadline = time.monotonic() + (timeout or float("inf"))
        while time.monotonic() < deadline:
            self.kernel_info()  # again and again, since messages can be lost
            with suppress(Empty):
                await self.get_shell_msg(timeout=1)
                await self.get_iopub_msg(timeout=0.05)  # any tells that outputs will be heard
                return
            if not await self.is_alive():
                raise RuntimeError("it died before it was ready")
        raise RuntimeError(f"it did not get ready within {timeout:g} s")


class Kernel:
    """A kernel of this Python that talks over sockets in a folder of its own.

    Ports could be taken by another run between their choice and their use. It gets ready by itself
    once it is started; `close` ends it, whatever it is doing.
    """

    def __init__(self, server: Server | None, stages: Sequence[str] = ()) -> None:
        """`stages`: the one for which it is started before it is needed, and those after it."""
        imports = [IMPORTS.get(stage, "") for stage in (*stages, "", "")[:2]]
        self.folder = _temporary_folder()
        self.manager = manager = AsyncKernelManager(
            transport="ipc",
            connection_file=f"{self.folder.name}/k.json",
            client_factory=_Client,
        )
        words = [sys.executable, "-c", f"{imports[0]}\n{MAIN}", "-f", "{connection_file}", *OPTIONS]
        manager._kernel_spec = KernelSpec(argv=words, display_name="Python 3")  # noqa: SLF001
        if server:
            manager.provisioner = _Provisioner(parent=manager, kernel_spec=manager.kernel_spec)
            manager.provisioner.server, manager.provisioner.imports = server, imports

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


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose path is short enough for sockets in it."""
    near = tempfile.gettempdir()
    short = near if len(near) <= MAX_SOCKET_FOLDER else "/tmp"  # noqa: S108
    return tempfile.TemporaryDirectory(prefix="aggregation-", dir=short, ignore_cleanup_errors=True)


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
    kept.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel does
    home = os.path.expanduser("~")  # noqa: PTH111  # raises nothing for a user without a home
    if not os.access(home, os.W_OK):  # else Matplotlib says where else it writes
        kept["MPLCONFIGDIR"] = folder
    return kept
