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

DirArgument = Annotated[str, typer.Argument(metavar="DIR", help="A folder of run folders, or one run's.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on; others than loopback want a token.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="A file with the token to ask for; else $SUBMILLION_TOKEN, if set.")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="In place of each run's own, in which `predict` works too.")
]
EncodersOption = Annotated[
    int, typer.Option("--encoders", min=1, help="Most encoders in memory; runs on the same one share it.")
]
BatchOption = Annotated[int, typer.Option("--batch-tokens", min=1, help="Most tokens of texts computed together.")]
WaitOption = Annotated[
    float, typer.Option("--wait-ms", min=0, help="How long a batch waits for those who were in the last one.")
]
QueueOption = Annotated[
    int, typer.Option("--queue-texts", min=256, help="Most texts taken and not answered yet; more are refused (503).")
]
PublicOption = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="The address that a proxy in front of it has.")
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
    """Serve a page (runs, comparisons, the planner, a playground), and predictions under /v1.

    Until Ctrl-C. Without a token everybody who reaches the port can read the runs and use them.
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
        typer.echo(f"warning: whoever reaches {host} can read the runs and use them: give --token-file FILE", err=True)

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
