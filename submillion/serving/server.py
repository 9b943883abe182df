"""The server behind `submillion serve`: it takes the port, says where it listens, and serves until it is stopped."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from submillion.errors import ConfigError, install_line
from submillion.serving.folders import Folder
from submillion.serving.options import Options

# For answers that are being computed when the server is stopped; what takes longer gets a 503, in time: Kubernetes and
# Slurm kill after 30 s.
_PATIENCE_S = 25


def serve(
    folder: Folder, host: str, port: int, announce: Callable[[str], None], options: Options | None = None
) -> None:
    """Serve a folder until Ctrl-C or SIGTERM; what was taken by then is answered, or refused after `_PATIENCE_S`.

    `announce` is called with the URL once the port is taken (0 takes a free one).
    ConfigError if a package of the extra is missing, or the port cannot be taken.
    """
    try:
        import uvicorn

        from submillion.serving.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"serve needs {error.name}: {install_line('serve')}") from None
    with _listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{listener.getsockname()[1]}/")
        app = create_app(folder, (host, name), options)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_PATIENCE_S)
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # create_server appends the address to the system's own words; names that are not found have no such number
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        match error.errno:
            case errno.EADDRINUSE:
                remedy = "stop what holds it, or give another with --port (0: any free one)"
            case errno.EACCES:
                remedy = "give a port from 1024 up with --port"
            case _:
                remedy = "give an address of this machine with --host"
        raise ConfigError(f"port {port} of {host} cannot be taken ({reason}): {remedy}") from None
