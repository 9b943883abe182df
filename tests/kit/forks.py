"""Python code in processes of its own, each a fork of one that has imported what takes long and does not read the
environment.

Importing is most of the time of a process that does little: one second for pandas and Arrow, five for PEFT. The Hub's
packages read their settings when they are imported: who has another Hub takes "rows", and each process imports those
itself. A process ends as any does, with all that follows.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, cast

Having = Literal["rows", "peft", "training"]
# What the Hub's packages and `datasets` import in turn; it does not read their settings.
_BELOW = (
    *("dill", "filelock", "fsspec.implementations.http", "httpcore2", "httpx2", "multiprocess.pool", "scipy.io"),
    *("scipy.sparse.csgraph", "scipy.sparse.linalg", "tqdm.auto", "unittest.mock", "xml.dom.minidom", "xxhash"),
)
_ROOT = Path(__file__).parent.parent.parent


def run(
    code: str,
    environment: Mapping[str, str],
    having: Having = "rows",
    folder: Path = _ROOT,
    words: Sequence[str] = (),
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process with this environment alone, the folder as its own, and words as its arguments.

    having: what is imported already. Where that is "rows", warnings are errors.
    """
    server = _server(having)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([code, dict(environment), str(folder), list(words), stdin]) + "\n")
    server.stdin.flush()
    status, out, err = json.loads(server.stdout.readline())
    return subprocess.CompletedProcess(code, status, out, err)


def command(*words: str) -> str:
    """Return the code that is `python -m submillion words`."""
    return f"import runpy, sys; sys.argv[1:] = {list(words)!r}; runpy.run_module('submillion', run_name='__main__')"


@cache
def _server(having: Having) -> subprocess.Popen[str]:
    """The process that forks; it ends with this one."""
    strict = ["-W", "error"] if having == "rows" else []
    start = [sys.executable, *strict, "-m", "tests.kit.forks", having]
    server = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    atexit.register(server.communicate)
    return server


def import_training() -> None:
    """Import what a training does, also on its way: else each fork does that again, which is most of its time."""
    import pandas  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401
    from peft.utils import transformers_weight_conversion  # noqa: F401
    from transformers import BertModel, RobertaModel  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from submillion.cli import predict, train  # noqa: F401
    from submillion.training import workflow  # noqa: F401

    get_checkpoint_conversion_mapping("bert")  # compiles a thousand patterns, once a process


def _import(having: Having) -> None:
    match having:
        case "rows":
            import pandas  # noqa: F401
            import pyarrow.dataset  # noqa: F401

            from submillion import config, data  # noqa: F401

            for name in _BELOW:
                with suppress(ImportError):
                    importlib.import_module(name)
            assert not {"huggingface_hub", "datasets", "transformers"} & set(sys.modules), "they read the environment"
        case "peft":
            from peft import PeftModel  # noqa: F401
            from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

            assert "submillion" not in sys.modules, "strangers do not have it"
        case "training":
            import_training()


def _serve(having: Having) -> None:
    _import(having)
    gc.freeze()  # else each child goes through all of it when it collects, and when it ends
    for line in sys.stdin:
        code, environment, folder, words, stdin = json.loads(line)
        with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            child = os.fork()
            if not child:
                for number, file in enumerate((given, out, err)):
                    os.dup2(file.fileno(), number)
                sys.stdin = os.fdopen(0, closefd=False)
                os.environ.clear()
                os.environ.update(environment)
                os.chdir(folder)
                sys.argv[:] = ["-c", *words]
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
                sys.exit()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
        sys.stdout.write(json.dumps([status, *said]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(cast("Having", sys.argv[1]))
