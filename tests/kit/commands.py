"""Commands that meet a fault: each a child of one process that has imported torch once, in its own mount namespace.

`Commands.run` gives a command's exit code and what it printed. The child may be killed when a line appears, before it
changes a file, or when it takes too long. Folders may be small disks or read-only ones where the machine lets root
mount; `Commands.inside` is a path as the commands see it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent.parent
_UNSHARE = ["unshare", "--mount", "--propagation", "private", *(["--map-root-user"] if os.geteuid() else [])]


@dataclass(frozen=True)
class Done:
    """A command that ended: its code (negative: the signal that killed it), stdout and stderr."""

    code: int
    out: str
    err: str


class Commands:
    """The process that runs commands, with the environment given or its own; `can_mount`: it may mount folders."""

    def __init__(self, cache: Path, environment: dict[str, str] | None = None) -> None:
        self.cache = cache
        self.can_mount = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
        start = [*(_UNSHARE if self.can_mount else []), sys.executable, "-m", "tests.kit.commands"]
        self._process = subprocess.Popen(
            start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=environment
        )

    def run(self, *words: object, **fault: Any) -> Done:
        """Run `submillion words`; `fault`: the arguments of `_child`, and kill_at, a part of a line on stderr."""
        given = {"cache": self.cache, **fault}
        return Done(**self._ask("run", words=[str(word) for word in words], **given))

    def mount(self, *words: object) -> None:
        """Run `mount words` where the commands run."""
        self._ask("mount", words=[str(word) for word in words])

    def small_disk(self, folder: Path, size: str) -> None:
        """Make an empty folder a disk of its own."""
        folder.mkdir(exist_ok=True)
        self.mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)

    def read_only(self, folder: Path) -> None:
        """Let nothing be written in a folder."""
        self.mount("--bind", folder, folder)
        self.mount("-o", "remount,bind,ro", folder)

    def inside(self, path: Path) -> Path:
        """Return where a path of the commands' is seen from here."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def close(self) -> None:
        """End the process; its mounts end with it."""
        self._process.communicate()

    def _ask(self, what: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, given], default=str) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    from tests.kit.forks import import_training

    import_training()
    gc.freeze()  # else each child goes through all of it when it collects
    for line in sys.stdin:
        what, given = json.loads(line)
        answer = None
        if what == "mount":
            subprocess.run(["mount", *given["words"]], check=True, stdout=sys.stderr)
        else:
            answer = _run(**given)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(kill_at: str | None = None, **given: Any) -> dict[str, Any]:
    import tempfile
    from signal import SIGKILL

    with tempfile.TemporaryFile("w+") as out:
        source, target = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(target, 2)
            _child(**given)
        os.close(target)
        lines = []
        with os.fdopen(source) as err:
            for line in err:
                lines.append(line)
                if kill_at is not None and kill_at in line:
                    os.kill(child, SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        return {"code": code, "out": out.read(), "err": "".join(lines)}


def _child(
    words: list[str],
    cache: str,
    kill_before: str | None = None,
    kill_after: str | None = None,
    fill_at: str | None = None,
    fill_after: str | None = None,
    disk: str = "",
    limit_s: int = 0,
    token: str | None = None,
    patience_s: int = 0,
    python: str = "",
) -> None:
    """Run the command, or Python code in its place, in this process and end it.

    It is killed before or after a file of that name gets it (`os.replace`), or its disk is filled then, or when a
    training says a line; by SIGALRM after `limit_s` if that is not 0. `token` is the Hub's; `patience_s`, if not 0, is
    how long the user lets its client wait for a word.
    """
    from signal import SIGKILL, alarm

    from submillion.cli.progress import View

    alarm(limit_s)
    os.environ |= {"SUBMILLION_CACHE": cache, **({"HF_TOKEN": token} if token else {})}
    if patience_s:
        _wait_for_the_hub(patience_s)
    say = View.say

    def filling(view: View, text: str) -> None:
        say(view, text)
        if text == fill_at:
            _fill(Path(disk))

    View.say = filling
    replace = os.replace

    def killing(source: Any, target: Any) -> None:
        if Path(target).name == kill_before:
            os.kill(os.getpid(), SIGKILL)
        replace(source, target)
        if Path(target).name == kill_after:
            os.kill(os.getpid(), SIGKILL)
        if Path(target).name == fill_after:
            _fill(Path(disk))

    os.replace = killing
    code = 3
    try:
        from submillion import reports
        from submillion.cli import main

        if python:
            code = _executed(python)
        else:
            reports.write = reports.write_study = lambda *_: []  # longer than a tiny training
            main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _executed(python: str) -> int:
    try:
        exec(compile(python, "<code>", "exec"), {"__name__": "__main__"})
    except Exception:  # `main` prints what it meets
        traceback.print_exc()
        return 1
    return 0


def _wait_for_the_hub(patience_s: int) -> None:
    from huggingface_hub import constants

    os.environ |= dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), str(patience_s))
    importlib.reload(constants)  # it read the environment when this server began


def _fill(disk: Path) -> None:
    """Write a file until nothing more fits."""
    with suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while file.write(bytes(512)) == 512:
            pass


if __name__ == "__main__":
    _serve()
