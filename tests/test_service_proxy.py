"""Laws of the service behind a real nginx: under a name and a path of the proxy's, with and without a token."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from submillion.serving.app import Options, create_app, listen, server_of
from submillion.serving.folders import opened
from tests.kit.untrained import make_run
from tests.served import finished

TOKEN = "a-token-of-many-characters"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on the path: `apt-get install nginx`")

# As docs/serving.md has it, but for the ports.
SITE = """
pid {folder}/pid; error_log {folder}/error.log; daemon off;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /models/ {{
            proxy_pass http://127.0.0.1:{upstream}{path};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


@contextmanager
def proxied(folder: Path, place: Path, path: str, **options: Any) -> Iterator[str]:
    """nginx before a server, below /models/, and its address; `path` is "/" where nginx takes the prefix off."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://box.localhost:{port}/models/"
    app = create_app(opened(folder), Options(public_url=url, **options))
    server, listener = server_of(app), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=asyncio.run, args=[listen(server, listener)])
    thread.start()
    site = place / "nginx.conf"
    site.write_text(SITE.format(folder=place, port=port, upstream=listener.getsockname()[1], path=path))
    nginx = subprocess.Popen(["nginx", "-p", str(place), "-c", str(site), "-e", str(place / "error.log")])
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert nginx.poll() is None, (place / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        nginx.terminate()
        nginx.wait(20)
        server.should_exit = True
        thread.join()


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def asked(url: str, method: str, path: str, **more: Any) -> httpx2.Response:
    """Ask by the proxy's name, which no resolver needs to know."""
    port = url.split(":")[2].split("/")[0]
    headers = {"host": f"box.localhost:{port}", **more.pop("headers", {})}
    return httpx2.request(method, f"http://127.0.0.1:{port}/models/{path}", headers=headers, timeout=60, **more)


@pytest.mark.parametrize("path", ["/", ""], ids=["nginx takes the prefix off", "the prefix stays"])
@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "token"])
def test_programs_are_answered_behind_a_proxy(
    encoders: dict[str, Path], tmp_path: Path, path: str, token: str | None
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "nginx").mkdir()
    run = make_run(tmp_path / "runs", encoders["bert"])
    shown = {} if token is None else {"authorization": f"Bearer {token}"}
    with proxied(tmp_path / "runs", tmp_path / "nginx", path, token=token) as url:
        assert asked(url, "GET", "healthz").status_code == 200
        origin = {"origin": url.removesuffix("/models/")}
        answer = asked(url, "POST", "v1/predict", json={"texts": ["a good film"]}, headers=shown | origin)
        assert answer.json()["run"] == run.name
        assert asked(url, "GET", "openapi.json", headers=shown).json()["servers"] == [{"url": "/models"}]
        assert asked(url, "GET", "", headers=shown).text.startswith("<!doctype html>")
        evil = shown | {"origin": "https://evil.example"}
        assert asked(url, "POST", "v1/predict", json={"texts": ["a"]}, headers=evil).status_code == 403
        if token is None:
            assert asked(url, "GET", "v1/models", headers={"host": "evil.example"}).status_code == 400
        else:
            assert asked(url, "GET", "v1/models").status_code == 401


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium on the path: `apt-get install chromium`")
@pytest.mark.parametrize("path", ["/", ""], ids=["nginx takes the prefix off", "the prefix stays"])
def test_the_page_works_in_a_browser_behind_a_proxy(served: Path, tmp_path: Path, path: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)))
    with proxied(served, tmp_path, path, token=TOKEN) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_context(http_credentials={"username": "me", "password": TOKEN}).new_page()
        wrong = list[str]()
        page.on("response", lambda answer: answer.status >= 400 and wrong.append(f"{answer.status} {answer.url}"))
        page.goto(url)
        expect(page.locator(".runs tbody tr", has_text=finished(served)[0])).to_be_visible(timeout=30_000)
        page.get_by_role("link", name="Planner", exact=True).click()
        expect(page.locator("#planned")).to_contain_text("submillion plan --classes 4", timeout=30_000)
        browser.close()
    assert wrong == []


def test_the_documentation_has_the_site_that_is_tested() -> None:
    text = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
    lines = [line.strip() for line in SITE.splitlines() if "proxy_set_header" in line]
    assert lines
    assert all(line in text for line in lines), json.dumps(lines)
