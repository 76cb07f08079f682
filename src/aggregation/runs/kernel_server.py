"""Kernel server: loads what notebooks need once; each kernel is a fork of it.

A kernel that starts by itself loads pandas, JAX and IPython anew, which takes a second. The server
has no JAX backend and no thread of Python's, so a fork of it is a new process that has them loaded.
"""

from __future__ import annotations

import json
import os
import socket

from ipykernel.kernelapp import launch_new_instance


def serve(control: socket.socket) -> None:
    """Fork a kernel for each socket that comes over `control`, until that is closed.

    Such a socket brings a line of JSON: the kernel's `arguments`, changes of its environment, and
    `imports`, code to run before the fork and after it. The kernel says its process id there. It
    ends when this process does.
    """
    server = os.getpid()
    while received := socket.recv_fds(control, 1, 1)[1]:
        channel = socket.socket(fileno=received[0])
        with channel.makefile(encoding="utf-8") as file:
            asked = json.loads(file.readline())
        before, after = asked["imports"]
        exec(before, {})  # noqa: S102
        if os.fork():
            channel.close()
            exec(after, {})  # noqa: S102
            continue
        control.close()
        # Only the kernel's own end closes the channel, not that of a process which it starts.
        channel.set_inheritable(False)
        os.register_at_fork(after_in_child=channel.close)
        os.setsid()
        os.environ |= asked["environment"]
        channel.sendall(str(os.getpid()).encode())
        launch_new_instance([*asked["arguments"], f"--IPKernelApp.parent_handle={server}"])
        return  # the kernel was told to end


if __name__ == "__main__":
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a cell starts may read its input
    serve(control)
