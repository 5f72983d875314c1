"""The whole path in a browser, as a person goes it: the packaged model, real jobs, one of them killed and taken up again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langslice.studio.jobs import Jobs

pytestmark = pytest.mark.robustness
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DONE = "#state[data-status=done]"
PATIENCE_MS = 300_000


@pytest.fixture
def studio(tmp_path):
    """Start the command `langslice studio mini`; kills it, and gives its address, as often as it is called."""
    started: list[subprocess.Popen[str]] = []

    def start() -> str:
        for process in started:
            process.kill()
            process.wait()
        command = [sys.executable, "-m", "langslice", "studio", "mini", "--port", "0", "--work", str(tmp_path / "work")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return re.match(r"(http://127\.0\.0\.1:\d+)/", process.stderr.readline())[1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
    for job in Jobs(tmp_path / "work/jobs").all():
        Jobs(tmp_path / "work/jobs").stop(job.name)


@pytest.fixture
def page():
    """A page of headless Chromium, in which nothing may be written to the console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        here = opened.new_page(viewport={"width": 1280, "height": 900})
        here.set_default_timeout(PATIENCE_MS)
        said: list[str] = []
        here.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        here.on("pageerror", lambda error: said.append(str(error)))
        yield here
        opened.close()
    # The page asks for a job's progress while there is no server, which the test kills.
    assert [text for text in said if "net::ERR_CONNECTION_" not in text] == []


def look(page, name: str) -> None:
    """Both widths and themes: nothing wider than the window, and no violation that axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    shots = os.environ.get("LANGSLICE_SHOTS")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{name}, {width}, {theme}\n{found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} overflows at {width}"
            if shots:
                page.screenshot(path=Path(shots) / f"{name}-{width}-{theme}.png", full_page=True)


def press_until(page, selector: str) -> None:
    """Move the focus by Tab until it is there; a person without a mouse has no other way."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")


def test_from_a_model_to_its_report(studio, page, tmp_path):
    page.goto(studio() + "/")
    look(page, "home")
    press_until(page, "a[href^='/model']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#languages")
    look(page, "model")
    press_until(page, "#languages")
    page.keyboard.press("Enter")  # what is suggested: ko,en
    page.wait_for_selector("text=has not been measured")
    look(page, "size-before")
    press_until(page, "main button")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    look(page, "job-running")
    page.wait_for_selector(DONE)
    page.click("text=Size against loss")
    look(page, "size")
    press_until(page, "#slide")
    page.keyboard.press("ArrowRight")
    rows = page.input_value("input[name=rows]:checked")
    assert rows == page.get_attribute("input[name=rows] >> nth=1", "value")
    assert page.inner_text("#shown").startswith(f"rows {int(rows):,}")
    press_until(page, "#sizes button")
    page.keyboard.press("Enter")

    page.fill("#text", "The weather is nice. Guten Tag!")
    page.click("text=Read it")
    page.wait_for_selector("#answers")
    assert page.locator("#answers ~ .sides h3").all_inner_texts() == [
        "Before, 12,288 rows",
        f"After, {int(rows):,} rows",
    ]
    assert page.locator("#spelled ~ h3").count() == 7  # the original and six sizes
    look(page, "sentence")
    page.click("text=On to layers and heads")
    press_until(page, "input[name=layer][value='1']")
    page.keyboard.press("Space")
    press_until(page, "input[name=head][value='3:0']")
    page.keyboard.press("Space")
    press_until(page, "input[name=head][value='3:1']")
    page.keyboard.press("Space")
    look(page, "parts")
    page.click("text=See the command")
    command = page.inner_text("pre >> nth=0")
    assert (
        command
        == f"langslice slice mini --languages ko,en --max-vocab {rows} --drop-layers 1 --drop-heads 3:0,1 -o OUT"
    )
    look(page, "start")
    page.click("text=Start the job")
    page.wait_for_url("**/jobs/*")
    job = page.url.rsplit("/", 1)[1]
    kill_amid(tmp_path / "work/jobs" / job)

    address = studio()  # the server was killed, too; the next one knows the job
    page.goto(f"{address}/jobs/{job}")
    page.wait_for_selector("#state[data-status=stopped]")
    look(page, "job-stopped")
    page.click("button:text('Go on')")
    page.wait_for_selector("#state[data-status=running]")
    page.goto("about:blank")  # the tab is closed
    page.goto(f"{address}/jobs/{job}")
    page.wait_for_selector(DONE)
    look(page, "job-done")
    log = (tmp_path / "work/jobs" / job / "log.txt").read_text()
    assert re.search(r"measure +kept", log) and re.search(r"slice +done", log)
    page.click("text=Open the report")
    assert "a slice of mini" in page.title()
    assert "12,288" in page.inner_text("body")


def kill_amid(folder: Path) -> None:
    """Kill a job once its first step is done."""
    progress = folder / "progress.jsonl"
    for _ in range(PATIENCE_MS // 50):
        if progress.is_file() and "[2/5]" in progress.read_text():
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder}: no second step")
