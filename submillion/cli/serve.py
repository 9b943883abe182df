"""The `serve` command: a folder of runs as a page in the browser."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from submillion.cli.options import JsonOption

DirArgument = Annotated[str, typer.Argument(metavar="DIR", help="A folder of run folders, or one run's.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on; others than loopback are not safe.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def serve(
    folder: DirArgument = "runs",
    port: PortOption = 8000,
    host: HostOption = "127.0.0.1",
    open_page: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a page: the runs of a folder, comparisons, the planner, a playground.

    Until Ctrl-C. Everybody who reaches the port can read the runs: there is no password.
    """
    from submillion.serving import folders, server

    found = folders.opened(folder)

    def announce(url: str) -> None:
        typer.echo(json.dumps({"url": url, "folder": str(found.path)}) if as_json else f"{url}  ({found.path})")
        if open_page:
            import webbrowser

            webbrowser.open(url)

    server.serve(found, host, port, announce)
