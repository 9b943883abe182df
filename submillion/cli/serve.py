"""The `serve` command: a folder of runs as a page in the browser and as a service for programs."""

from __future__ import annotations

import ipaddress
import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.options import JsonOption
from submillion.config import Precision
from submillion.errors import ConfigError, install_line
from submillion.serving import folders
from submillion.serving.queue import Limits

DirArgument = Annotated[str, typer.Argument(metavar="DIR", help="A folder of run folders, or one run folder.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 picks any free port.")]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on; set a token unless it is loopback.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file with the token to require; default: $SUBMILLION_TOKEN, if set."),
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="Instead of each run's own, which `predict` uses too.")
]
EncodersOption = Annotated[
    int, typer.Option("--encoders", min=1, help="Maximum encoders in memory; runs on the same encoder share it.")
]
BatchOption = Annotated[int, typer.Option("--batch-tokens", min=1, help="Maximum tokens computed together.")]
WaitOption = Annotated[
    float, typer.Option("--wait-ms", min=0, help="How long a batch waits for clients that were in the last one.")
]
QueueOption = Annotated[
    int, typer.Option("--queue-texts", min=256, help="Maximum texts waiting for an answer; more are refused (503).")
]
PublicOption = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="The address of a proxy in front of the server.")
]


def serve(  # noqa: PLR0913
    folder: DirArgument = "runs",
    port: PortOption = 8000,
    host: HostOption = "127.0.0.1",
    open_page: OpenOption = False,
    token_file: TokenOption = None,
    precision: PrecisionOption = None,
    encoders: EncodersOption = 2,
    batch_tokens: BatchOption = 4096,
    wait_ms: WaitOption = 5.0,
    queue_texts: QueueOption = 1024,
    public_url: PublicOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a web page (runs, comparisons, planner, playground), and predictions under /v1.

    Runs until Ctrl-C. Without a token, anyone who reaches the port can read and use the runs.
    """
    try:
        from submillion.serving import app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"serve needs {error.name}: {install_line('serve')}") from None
    served, token = folders.opened(folder), app.read_token(token_file)
    limits = Limits(batch_tokens, wait_ms / 1000, queue_texts)
    options = app.Options(token, precision, encoders, limits, (host, f"[{host}]"), public_url)
    if token is None and not _is_loopback(host):
        typer.echo(f"warning: anyone who reaches {host} can read and use the runs: give --token-file FILE", err=True)

    def announce(url: str) -> None:
        typer.echo(json.dumps({"url": url, "folder": str(served.path)}) if as_json else f"{url}  ({served.path})")
        if open_page:
            webbrowser.open(url)

    app.serve(served, host, port, announce, options)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
