"""Kills: a piece of code killed at every one of its steps, one after the other.

A step is what another process could see: a file made, written, renamed or removed, a connection, a
request. The code's imports are made once; each kill is a fork, so a hundred take seconds.
"""

import subprocess
import sys
from contextlib import contextmanager

NURSERY = """
import os, signal, sys
{setup}
def step(event, args):
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR))
    return event in ("os.rename", "os.remove", "os.mkdir", "os.chmod", "socket.connect",
                     "http.client.send")
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        left = int(line)
        def watch(event, args):
            global left
            if step(event, args):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@contextmanager
def killed_at(setup, *words):
    """Gives a function: runs `work()`, as `setup` defines it, up to the step of that number (from
    1), before which it is killed; whether it was: False, it came to its end before."""
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY.format(setup=setup), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        assert nursery.stdout.readline() == "ready\n"

        def killed(step):
            nursery.stdin.write(f"{step}\n")
            nursery.stdin.flush()
            code = int(nursery.stdout.readline())
            assert code in (0, -9), f"it failed by itself at step {step}"
            return code == -9

        yield killed
        nursery.stdin.close()
