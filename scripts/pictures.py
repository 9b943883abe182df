"""The pictures of docs/: `python -m scripts.pictures [FOLDER]` trains the runs that they show, and photographs them.

Some 5 minutes on two cores; needs Chromium. The runs are kept in FOLDER, runs/pictures unless another is named: with
them, a second call takes a minute. docs/images/robustness.png is not made here: `evaluate --perturb` writes it.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import submillion

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 150_000
_N_COLOURS = 256  # half the bytes of all colours
STUDY = {
    "name": "tweets",
    "kind": "grid",
    "base": {"recipe": "demo", "settings": {"train.epochs": 1}},
    "factors": [
        {"key": "adapter.sites", "values": [["query", "value"], ["query", "key", "value"], "all-linear"]},
        {"key": "train.learning_rate", "values": [0.0005, 0.002]},
    ],
}
REVIEWS = {"name": "reviews", "data.source": "packaged:amazon", "data.test": 0.2, "train.epochs": 3}
REVIEW = "The sound is good for the price, but it broke after a week and the manual is useless."


def main() -> None:
    """Train what is not there yet, and write every picture."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/pictures").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / "tweets.yaml"
    study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    runs = folder / "runs"
    submillion.sweep(study, {"out": str(runs)})
    overrides = [f"{key}={value}" for key, value in {**REVIEWS, "out": runs}.items()]
    run = submillion.train(overrides=overrides, model="all-MiniLM-L6-v2")
    with chromium() as browser, served(runs) as address:
        shoot_report(browser, run.path / "report.html", IMAGES)
        shoot_study(browser, runs / "tweets" / "report.html", IMAGES)
        shoot_page(browser, address, IMAGES, "tweets", run.name)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("no Chromium on the path: `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page of a folder of runs."""
    command = [sys.executable, "-m", "submillion", "serve", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


@contextmanager
def opened(browser: Browser, address: str, width: int, height: int, *, is_dark: bool = False) -> Iterator[Page]:
    """A page at an address, of a size in pixels."""
    scheme = "dark" if is_dark else "light"
    # Pages scroll smoothly, which a picture does not wait for.
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def shoot_report(browser: Browser, report: Path, images: Path) -> None:
    """Write the head of a run's report, and its first mistakes."""
    with opened(browser, report.as_uri(), 1000, 780) as page:
        shoot(page, images / "report.png")
        page.set_viewport_size({"width": 840, "height": 560})
        page.locator("#mistakes").evaluate("section => section.scrollIntoView()")
        shoot(page, images / "report-mistakes.png")


def shoot_study(browser: Browser, report: Path, images: Path) -> None:
    """Write the head of a study's report."""
    with opened(browser, report.as_uri(), 1100, 1420) as page:
        shoot(page, images / "sweep.png")


def shoot_page(browser: Browser, address: str, images: Path, study: str, run: str) -> None:
    """Write the views of the page: the runs of a study, their comparison, the planner, and a run's playground."""
    with opened(browser, address, 1280, 800) as page:
        page.locator(".runs tbody").wait_for()
        page.get_by_label("Filter").fill(study)
        page.get_by_label("Tick all shown").check()
        shoot(page, images / "serve-runs.png", _name_folder)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.locator("#answer").wait_for()
        page.set_viewport_size({"width": 1280, "height": 1160})
        shoot(page, images / "serve-compare.png", _name_folder)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"{address}#planner")
        page.locator("#plan-command").wait_for()
        shoot(page, images / "serve-planner.png", _name_folder)
    with opened(browser, address, 1280, 1160) as page:
        _play(page, address, run)
        shoot(page, images / "serve-playground.png", _name_folder)
    with opened(browser, address, 360, 800, is_dark=True) as page:
        _play(page, address, run)
        page.locator("#play-status").evaluate("status => scrollTo(0, status.offsetTop)")
        shoot(page, images / "serve-phone.png", _name_folder)


def _play(page: Page, address: str, run: str) -> None:
    page.goto(f"{address}#playground/{run}")
    page.locator("#play-go:enabled").wait_for(timeout=120_000)
    page.locator("#play-text").fill(REVIEW)
    page.get_by_role("button", name="Classify").click()
    page.locator("#played-changes table").wait_for(timeout=120_000)
    page.evaluate("scrollTo(0, 0)")


def _name_folder(page: Page) -> None:
    """Hide the name of this machine's folder from the page."""
    page.locator("header .run").evaluate("folder => { folder.textContent = '~/runs' }")


def shoot(page: Page, path: Path, prepare: Callable[[Page], None] = lambda _: None) -> None:
    """Write what is in view, small enough for the documentation."""
    page.evaluate("document.activeElement.blur()")
    prepare(page)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(_N_COLOURS).save(path, optimize=True)
    assert path.stat().st_size <= MOST_BYTES, f"{path.name} has {path.stat().st_size:,} bytes"


if __name__ == "__main__":
    main()
