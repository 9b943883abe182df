"""Laws of the page, in a real Chromium: what it shows and does, by keyboard alone, on a phone, without other hosts."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts import pictures
from submillion.runs import Run, compared
from submillion.serving import folders
from submillion.serving.app import Options, create_app, listen, server_of
from submillion.text import interval
from tests.kit.untrained import make_run
from tests.served import TEXT, client_of, finished, with_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "a-token-of-many-characters"
expect.set_options(timeout=30_000)  # of machines with other work too
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: `apt-get install chromium`"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Served:
    """The server of a folder in a thread of this process."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.server = server_of(create_app(folders.opened(folder), Options(**options)))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=asyncio.run, args=[listen(self.server, self.listener)])

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    report = with_report(served / finished(served)[0])
    with Served(served) as found:
        yield found
    report.unlink()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, which must ask no other host, say nothing on the console, and never scroll sideways."""
    with opened(browser, url, 1280) as found:
        yield found


class opened:  # noqa: N801 - used as a function
    """A page at an address, of a width in pixels, watched until it is closed."""

    def __init__(self, browser: Browser, address: str, width: int, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        self.context.set_default_timeout(30_000)
        self.page, self.address, self.wrong = self.context.new_page(), address, list[str]()
        self.context.on("request", self._asked)
        self.page.on("console", self._said)
        self.page.on("response", self._answered)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:")):
            self.wrong.append(request.url)

    def _said(self, message: Any) -> None:
        if not message.text.startswith("Failed to load resource: the server responded"):  # `_answered` sees these
            self.wrong.append(message.text)

    def _answered(self, response: Any) -> None:
        """What the page asks may be refused, and said so; its own files are there."""
        if response.status >= 500 or (response.status >= 400 and not re.search("/api/|/compare", response.url)):
            self.wrong.append(f"{response.status} {response.url}")

    def __enter__(self) -> Page:
        self.page.goto(self.address)
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        wide = 0 if kind else self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.context.close()
        assert kind or (self.wrong, wide <= 0) == ([], True)


def rows_of(page: Page) -> list[str]:
    """The names of the runs that are shown, in their order."""
    return page.locator(".runs tbody th .name").all_inner_texts()


def show(page: Page, view: str) -> None:
    page.get_by_role("link", name=view, exact=True).click()


@pytest.mark.parametrize("password", [TOKEN, "wrong"])
def test_with_a_token_the_browser_asks_for_a_password_and_the_page_opens(
    browser: Browser, served: Path, password: str
) -> None:
    """Chromium answers what it knows as a challenge, and no other; the context stands for the person who types."""
    with Served(served, token=TOKEN) as url:
        context = browser.new_context(http_credentials={"username": "me", "password": password})
        page = context.new_page()
        answer = page.goto(url)
        assert answer is not None
        if password == TOKEN:
            expect(page.locator("#runs-count")).to_contain_text("runs")
            assert set(finished(served)) < set(rows_of(page))
        else:
            assert answer.status == 401
            expect(page.locator("body")).to_contain_text("requires its token")
        context.close()


# The list ------------------------------------------------------------------------------------------------------------


def test_each_run_is_listed_by_the_score_that_chose_it(browser: Browser, served: Path, tmp_path: Path) -> None:
    """Of one score the head names it; of several each cell does, and the best of each stands first."""
    values = {"a-00000001": 0.9, "b-00000002": 0.3, "c-00000003": 0.6}
    for name, value in values.items():
        shutil.copytree(served / finished(served)[0], tmp_path / name)
        _choose_by_log_loss(tmp_path / name, value)
    with Served(tmp_path) as address:
        with opened(browser, address, 1280) as page:
            expect(page.locator(".runs thead")).to_contain_text("Validation log loss")
            assert rows_of(page) == ["b-00000002", "c-00000003", "a-00000001"]
        shutil.copytree(served / finished(served)[0], tmp_path / "d-00000004")
        with opened(browser, address, 390) as page:
            expect(page.locator(".runs tbody tr", has_text="b-00000002")).to_contain_text(
                re.compile("0.3000.*log loss")
            )
            expect(page.locator(".runs tbody tr", has_text="d-00000004")).to_contain_text("accuracy")
            assert rows_of(page) == ["d-00000004", "b-00000002", "c-00000003", "a-00000001"]


def _choose_by_log_loss(run: Path, value: float) -> None:
    """Make a run one that was chosen by its log loss, which is `value`."""
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("metric: accuracy", "metric: log-loss"))
    scores = json.loads((run / "scores.json").read_text())
    for found in scores.values():
        found["log_loss"] |= {"value": value, "low": value - 0.1, "high": value + 0.1}
    (run / "scores.json").write_text(json.dumps(scores))


def test_the_list_shows_filters_and_sorts(page: Page, served: Path) -> None:
    expect(page.locator("#runs-count")).to_have_text(f"{len(client_of(served).get('/api/list').json()['runs'])} runs")
    names = rows_of(page)
    assert set(finished(served)) < set(names)
    # What has no value in a row is nothing on the page.
    assert not re.search(
        r"\b(false|true|undefined|null|NaN)\b", " ".join(page.locator(".runs td.score").all_inner_texts())
    )
    bad = page.locator(".runs tbody tr", has_text="bad-00000002")
    expect(bad).to_contain_text("damaged")
    expect(bad).to_contain_text("labels.json is damaged")
    expect(bad.get_by_role("checkbox")).to_be_disabled()
    page.get_by_role("button", name="Run", exact=True).click()
    assert rows_of(page) == sorted(names)
    page.get_by_role("button", name="Run", exact=True).click()
    assert rows_of(page) == sorted(names, reverse=True)
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Run ↓")
    page.get_by_label("Filter").fill("TINY rank=2")
    expect(page.locator("#runs-count")).to_have_text(f"2 of {len(names)} runs")
    page.get_by_label("Filter").fill("no such run")
    expect(page.locator("#runs-count")).to_have_text(f"0 of {len(names)} runs")
    page.get_by_role("link", name="Show the runs of tiny").click()
    expect(page.locator("#runs-count")).to_have_text(f"4 of {len(names)} runs")


def test_what_users_wrote_is_text(page: Page) -> None:
    row = page.locator(".runs tbody tr", has_text="old-00000004")
    expect(row).to_contain_text("unknown key gone")
    assert page.locator("main img:not(#live-curves), main script").count() == 0
    page.goto(page.url.partition("#")[0] + "#playground/%3Cimg%20src=x%3E")
    expect(page.locator("#play-problems")).to_contain_text("there is no run '<img src=x>'")
    assert page.locator("main img:not(#live-curves)").count() == 0


def test_an_empty_folder_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with Served(tmp_path) as address, opened(browser, address, 1280) as page:
        expect(page.locator("#runs-count")).to_contain_text(f"submillion train --out {tmp_path}")
        show(page, "Playground")
        expect(page.locator("#play-run")).to_have_text("no finished run here")
        expect(page.get_by_role("button", name="Classify")).to_be_disabled()
        page.goto(f"{address}compare")
        expect(page.locator("main")).to_contain_text("Tick at least two")


def test_a_report_leads_back_and_to_its_study(page: Page, served: Path) -> None:
    name = finished(served)[0]
    page.get_by_label(f"Report of {name}").click()
    expect(page.locator("header .run")).to_have_text(name)
    assert page.locator("body").evaluate("body => getComputedStyle(body).maxWidth") == "1344px"
    page.get_by_role("link", name="Its study").click()
    expect(page.locator("header .run")).to_have_text("tiny")
    heads = page.locator("#trials table.sortable")
    first = heads.locator("tbody th").first
    before = first.inner_text()
    heads.get_by_role("button", name="accuracy").click()  # the policy of the answer lets the one script run
    heads.get_by_role("button", name="trial").click()
    expect(heads.locator("th[aria-sort=descending]")).to_have_text("trial")
    assert first.inner_text() != before
    page.locator("#trials a", has_text=name).first.click()
    expect(page.locator("header .run")).to_have_text(name)
    page.get_by_role("link", name="Try this run").click()
    expect(page.locator("#play-run")).to_have_value(name)
    page.goto(page.url.partition("#")[0] + "runs/tiny/report.html")
    page.get_by_role("link", name="Its runs").click()
    expect(page.get_by_label("Filter")).to_have_value("tiny")


def test_a_report_runs_nothing(browser: Browser, served: Path, tmp_path: Path) -> None:
    name = finished(served)[0]
    shutil.copytree(served / name, tmp_path / name)
    attack = "<title>safe</title><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    (tmp_path / name / "report.html").write_text(f"<body>{attack}<form action=/api/list><button>go</button></form>")
    with Served(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"{address}runs/{name}/report.html")
        page.get_by_role("button").click()
        assert page.title() == "safe"
        assert page.url.endswith("/report.html")
        page.get_by_role("link", name="Runs").click()
        expect(page.locator("#runs-count")).to_have_text("1 run")
        page.close()


def test_a_training_is_followed(browser: Browser, served: Path, tmp_path: Path) -> None:
    """Its step, the time that is left and its curves come without a reload, and the table stays where it is."""
    run = Run(tmp_path / "cut-00000001")
    shutil.copytree(served / run.name, run.path)
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text(lines[0])
    with run.lock(), Served(tmp_path) as address, opened(browser, address, 1280) as page:
        state = page.locator(".runs .state")
        expect(state).to_contain_text("step 1 of ")
        expect(state).to_contain_text("left")
        image = page.locator("#live-curves")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        top = page.locator("#runs-table").evaluate("box => box.offsetTop")
        page.get_by_label("Filter").fill("cut")
        (run.path / "metrics.jsonl").write_text("".join(lines))
        expect(state).to_contain_text("validation accuracy")
        assert page.locator("#runs-table").evaluate("box => box.offsetTop") == top
        expect(page.get_by_label("Filter")).to_be_focused()
        page.get_by_role("link", name=f"Report of {run.name}").click()
        expect(page.locator("main")).to_contain_text("A process is training it now")


def test_the_address_holds_what_is_set(page: Page) -> None:
    page.get_by_label("Filter").fill("tiny rank=2")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#runs-count")).to_contain_text("2 of")
    shown = rows_of(page)
    show(page, "Planner")
    page.get_by_label("Budget, in trainable parameters").fill("500000")
    page.get_by_label("Layers", exact=True).select_option("top")
    page.get_by_label("Number of layers").fill("4")
    expect(page.locator("#plan-command")).to_contain_text("top:4")
    command = page.locator("#plan-command").inner_text()
    page.reload()
    expect(page.locator("#plan-command")).to_have_text(command)
    page.go_back()
    expect(page.get_by_label("Filter")).to_have_value("tiny rank=2")
    expect(page.locator(".runs tbody th .name")).to_have_text(shown)
    expect(page.locator("th[aria-sort=descending], th[aria-sort=ascending]")).to_contain_text("Run")


# Comparison ----------------------------------------------------------------------------------------------------------


def test_ticked_runs_are_compared(page: Page, served: Path) -> None:
    names = finished(served)
    for name in names:
        page.get_by_label(f"Compare {name}").check()
    expect(page.locator("#ticked-count")).to_have_text("4 runs ticked")
    page.get_by_role("button", name="Compare", exact=True).click()
    best = compared.compare([served / name for name in names]).settings[0].scores["accuracy"]
    expect(page.locator("main")).to_contain_text(interval(best))
    expect(page.locator("#curves svg")).to_have_count(1)
    page.get_by_role("button", name="Compare on test").click()
    expect(page.locator("#answer")).to_contain_text("has no predictions of its test split")  # all but one of a study


def test_a_run_that_is_gone_is_a_sentence(browser: Browser, served: Path, tmp_path: Path) -> None:
    names = finished(served)[:2]
    for name in names:
        shutil.copytree(served / name, tmp_path / name)
    with Served(tmp_path) as address, opened(browser, address, 1280) as page:
        for name in names:
            page.get_by_label(f"Compare {name}").check()
        shutil.rmtree(tmp_path / names[0])
        page.get_by_role("button", name="Reload the list").click()
        expect(page.locator("#runs-count")).to_have_text("1 run")
        expect(page.locator("#ticked-count")).to_have_text("1 run ticked: tick one more")


# The planner ---------------------------------------------------------------------------------------------------------


def planned(page: Page, served: Path, **wish: Any) -> dict[str, Any]:
    """What `/api/plan` says of a wish; tests/test_serving.py says that it is what the command says."""
    usual = {"model": "roberta-base", "n_classes": 4, "method": "lora", "layers": None, "rank": None, "head": "full"}
    answer = client_of(served).post("/api/plan", json=usual | wish)
    assert answer.status_code == 200, answer.text
    return answer.json()


def expect_plan(page: Page, found: dict[str, Any]) -> None:
    expect(page.locator("#plan-command")).to_have_text(found["command"])
    expect(page.locator("#plan-total")).to_have_text(f"{found['total']:,}")
    expect(page.locator("#plan-reasons li")).to_have_text(found["reasons"])
    for part in found["per_site"]:
        row = page.locator(".parts-table tbody tr", has=page.get_by_text(part["name"], exact=True))
        expect(row).to_contain_text(f"{part['params']:,}")
        if part["rank"] is not None:
            expect(row.locator("td").first).to_have_text(f"{part['rank']:,}")


def test_the_slider_and_the_fields_show_what_plan_says(page: Page, served: Path) -> None:
    show(page, "Planner")
    every = ["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
    expect_plan(page, planned(page, served, sites=every, budget=1_000_000))
    for site in every[3:]:
        page.locator("#plan-site-boxes").get_by_label(site).uncheck()
    slider = page.get_by_label("Budget, slider")
    for place, budget in ((250, 316_000), (375, 5_620_000), (300, 1_000_000)):
        slider.fill(str(place))
        expect(page.get_by_label("Budget, in trainable parameters")).to_have_value(str(budget))
        if budget > 600_000:
            expect_plan(page, planned(page, served, sites=every[:3], budget=budget))
        else:
            expect(page.locator("#plan-problems")).to_contain_text("over the budget of 316,000")
            expect(page.locator("#plan-status")).to_contain_text("over the budget by")
    page.get_by_label("Layers", exact=True).select_option("top")
    page.get_by_label("Number of layers").fill("4")
    page.get_by_label("Head", exact=True).select_option("linear")
    page.get_by_label("Encoder", exact=True).select_option("bert-base-uncased")
    wish = {"sites": every[:3], "budget": 1_000_000, "layers": "top:4", "head": "linear", "model": "bert-base-uncased"}
    expect_plan(page, planned(page, served, **wish))
    page.get_by_role("button", name="take sites query+value, layers all, head full").click()
    taken = wish | {"sites": ["query", "value"], "layers": None, "head": "full"}
    expect_plan(page, planned(page, served, **taken))
    expect(page.locator("#plan-status")).to_be_focused()  # what was pressed is gone, and focus must not be lost with it
    page.get_by_label("Method", exact=True).select_option("none")
    expect(page.locator("#plan-status")).to_contain_text("the budget does not apply")


def test_fields_that_cannot_be_are_sentences(page: Page) -> None:
    show(page, "Planner")
    expect(page.locator("#plan-command")).to_be_visible()
    page.get_by_label("Budget, in trainable parameters").fill("")
    expect(page.locator("#plan-problems")).to_contain_text("Budget, in trainable parameters: ")
    page.get_by_label("Budget, in trainable parameters").fill("100000")
    for box in page.locator("#plan-site-boxes input").all():
        box.uncheck()
    with page.expect_response(lambda answer: answer.status == 400):
        page.get_by_label("Classes").fill("3")
    expect(page.locator("#plan-problems")).to_contain_text("sites")


# The playground ------------------------------------------------------------------------------------------------------


def test_typed_text_has_probabilities_words_and_changes(page: Page, served: Path) -> None:
    name = finished(served)[1]
    page.get_by_label(f"Playground of {name}").click()
    expect(page.locator("#play-model")).to_contain_text("ready: 3 classes (art, money, sport)")
    page.get_by_label("Text (text)").fill(f"{TEXT} <b>bold</b>")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#played-changes table")).to_be_visible()
    client, body = client_of(served), {"text": f"{TEXT} <b>bold</b>"}
    classes = client.post(f"/api/runs/{name}/predict", json=body).json()["classes"]
    expect(page.locator(".classes tbody tr")).to_have_text([f"{c['label']}{c['prob']:.4f}" for c in classes])
    expect(page.locator("#play-status")).to_have_text(f"{classes[0]['label']}, probability {classes[0]['prob']:.4f}")
    words = client.post(f"/api/runs/{name}/words", json=body).json()["texts"][0]
    signs = [f"{each['word']}{'−' if each['effect'] < 0 else '+'}{abs(each['effect']):.3f} " for each in words]
    assert page.locator(".words > span").all_text_contents() == signs
    assert page.locator("#played-changes tbody tr").count() == 9
    page.get_by_label("Text (text)").fill("")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#play-problems")).to_have_text("the text is empty: type at least one word")
    page.get_by_label("Text (text)").fill("w " * 500_000)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#play-problems")).to_contain_text("has 1,000,000 characters: at most 20,000")


def test_each_of_several_labels_has_its_bar_and_its_threshold(
    browser: Browser, encoders: dict[str, Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path, encoders["bert"], ("art", "money", "sport"), thresholds=(0.0, 0.4, 1.0))
    with Served(tmp_path) as url, opened(browser, url, 390) as page:
        page.goto(f"{url}#playground/{run.name}")
        expect(page.locator("#play-model")).to_contain_text("ready: 3 labels (art, money, sport)")
        page.get_by_label("Text (text)").fill(TEXT)
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#played-changes table")).to_be_visible()
        classes = client_of(tmp_path).post(f"/api/runs/{run.name}/predict", json={"text": TEXT}).json()["classes"]
        said = {each["label"]: each["prob"] >= each["threshold"] for each in classes}
        assert said["art"]
        assert not said["sport"]
        rows = [
            f"{c['label']}{c['prob']:.4f}{c['threshold']:.3f}{'yes' if said[c['label']] else 'no'}" for c in classes
        ]
        expect(page.locator(".classes tbody tr")).to_have_text(rows)
        marks = page.locator(".classes .bar i").evaluate_all(
            "all => all.map((one) => one.style.getPropertyValue('--at'))"
        )
        assert marks == [f"{100 * c['threshold']:g}%" for c in classes]
        names = ", ".join(c["label"] for c in classes if said[c["label"]])
        expect(page.locator("#play-status")).to_have_text(f"predicted: {names}")


def test_pairs_have_two_fields(page: Page, served: Path) -> None:
    (name,) = (path.name for path in served.glob("pairs-*"))
    show(page, "Playground")
    expect(page.get_by_label("Second text")).to_be_hidden()
    page.get_by_label("Run", exact=True).select_option(name)
    expect(page.locator("#play-model")).to_contain_text("ready")
    page.get_by_label("Text (text)").fill(TEXT)
    page.get_by_label("Second text (id)").fill("r7")
    page.get_by_label("Second text (id)").press("Control+Enter")
    expect(page.locator("#played-changes table")).to_be_visible()
    assert page.locator("#played-words .words").count() == 2


# Keyboard and phone --------------------------------------------------------------------------------------------------


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on what has this name, which must be seen to have it."""
    for _ in range(150):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.ariaLabel || e.labels?.[0]?.firstChild?.textContent?.trim() || e.textContent.trim(),"
            " s.outlineStyle, parseFloat(s.outlineWidth)] })()"
        )
        assert focus[1] != "none", focus
        assert focus[2] >= 1, focus
        if focus[0] == name:
            return
    raise AssertionError(f"Tab never comes to {name}")


def test_everything_by_keyboard(page: Page, served: Path) -> None:
    names = finished(served)
    expect(page.locator(".runs tbody")).to_be_visible()
    tab_to(page, "Filter")
    page.keyboard.type("tiny rank=2")
    tab_to(page, "Tick all shown")
    page.keyboard.press("Space")
    tab_to(page, "Compare")
    page.keyboard.press("Enter")
    expect(page.locator("#answer-title")).to_be_visible()
    tab_to(page, "Runs")
    page.keyboard.press("Enter")
    expect(page.locator(".runs tbody")).to_be_visible()
    tab_to(page, "Planner")
    page.keyboard.press("Enter")
    expect(page.locator("#plan-command")).to_be_visible()
    tab_to(page, "Budget, slider")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Budget, in trainable parameters")).not_to_have_value("1000000")
    page.reload()
    tab_to(page, "Playground")
    page.keyboard.press("Enter")
    expect(page.locator("#play-run option", has_text=names[0])).to_have_count(1)
    tab_to(page, "Run")
    page.keyboard.type(names[0])
    page.keyboard.press("Enter")
    expect(page.locator("#play-model")).to_contain_text("ready")
    tab_to(page, "Text (text)")
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#played-changes table")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways(browser: Browser, url: str, served: Path, scheme: Any) -> None:
    with opened(browser, url, 360, color_scheme=scheme, has_touch=True) as page:
        for view, shown in (
            ("#runs", ".runs tbody"),
            (f"compare?runs={','.join(finished(served))}", "#answer"),
            ("runs/tiny/report.html", "#answer"),
            (f"runs/{finished(served)[0]}/report.html", "#answer"),
            ("#planner", "#plan-command"),
            (f"#playground/{finished(served)[0]}", "#play-go:enabled"),
        ):
            page.goto(url + view)
            page.locator(shown).wait_for()
            if "playground" in view:
                page.get_by_label("Text (text)").fill(TEXT + " " + "x" * 300)
                page.get_by_role("button", name="Classify").tap()
                page.locator("#played-changes table").wait_for()
            for width in (800, 1280, 1920, 360):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") == width, view
                if view == "#runs":
                    table = page.locator("#runs-table .scrolls")
                    assert table.evaluate("box => box.scrollWidth - box.clientWidth") <= 1, (
                        f"a column is cut at {width}"
                    )
            assert contrast(page, "main p:visible, main label:visible, main td:visible, nav a") >= 4.5, view


def contrast(page: Page, which: str) -> float:
    """The lowest contrast of text to the page's ground among elements (WCAG 2, section 1.4.3)."""
    colours = page.locator(which).evaluate_all("found => found.map(e => getComputedStyle(e).color)")
    ground = luminance(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
    found = [sorted((luminance(colour), ground)) for colour in set(colours)]
    return min((lighter + 0.05) / (darker + 0.05) for darker, lighter in found)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Pictures ------------------------------------------------------------------------------------------------------------


def test_pictures_of_the_documentation_can_be_made(browser: Browser, url: str, served: Path, tmp_path: Path) -> None:
    pictures.shoot_page(browser, url, tmp_path, "tiny", finished(served)[0])
    report = served / finished(served)[0] / "report.html"
    pictures.shoot_report(browser, report, tmp_path)
    pictures.shoot_study(browser, report, tmp_path)
    made = {file.name for file in tmp_path.iterdir()}
    assert made == {file.name for file in pictures.IMAGES.iterdir()} - {"robustness.png"}


def test_the_playground_says_in_what_it_computes_and_signs_stand_before_numbers_under_words_from_the_right(
    browser: Browser, url: str, served: Path
) -> None:
    name = finished(served)[0]
    with opened(browser, url, 390) as page:
        page.goto(f"{url}#playground/{name}")
        expect(page.locator("#view-playground")).to_contain_text(
            f"{Run(served / name).environment()['precision']} on cpu"
        )
        page.get_by_label("Text").first.fill("هذا good")
        page.get_by_role("button", name="Classify").click()
        effects = page.locator("#played-words .effect")
        expect(effects.first).to_be_visible()
        assert set(effects.evaluate_all("found => found.map(each => getComputedStyle(each).direction)")) == {"ltr"}
        page.get_by_label("Text").first.fill("\u200b\u200d")
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#played-classes")).to_contain_text("The encoder knows no token of this text")
        expect(page.locator("#played-classes")).not_to_contain_text("longer than the run reads")
