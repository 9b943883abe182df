"""Python code in processes of its own, each a fork of one that has imported what does not read the environment.

Importing numpy, pandas and Arrow takes most of the time of a process that does little. The Hub's packages read their
settings when they are imported, so each process imports those itself; and torch, which takes long to end, only where it
is needed. A process ends as any does, with all that follows.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def run(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process with this environment alone, where warnings are errors."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([code, dict(environment)]) + "\n")
    server.stdin.flush()
    status, out, err = json.loads(server.stdout.readline())
    return subprocess.CompletedProcess(code, status, out, err)


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks; it ends with this one."""
    start = [sys.executable, "-W", "error", "-m", "tests.kit.forks"]
    server = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    from submillion import config, data  # noqa: F401

    assert not {"huggingface_hub", "datasets", "transformers"} & set(sys.modules), "they have read the environment"
    gc.freeze()  # else each child goes through all of it when it collects, and when it ends
    for line in sys.stdin:
        code, environment = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.environ.clear()
                os.environ.update(environment)
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
                sys.exit()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said = [(file.seek(0), file.read())[1] for file in (out, err)]
        sys.stdout.write(json.dumps([status, *said]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
