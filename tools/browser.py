"""JupyterLab in a real, headless browser: for the browser tests and for the README's pictures.

>>> with notebook_in_browser(Path("notebooks/01_fundamentals.ipynb")) as notebook:
...     notebook.run_all()
...     notebook.screenshot("explore_bits(weights", "explorer.png")
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def notebook_in_browser(source: Path, dark: bool = False, size: tuple[int, int] = (1280, 900)) -> Iterator[Notebook]:
    """A copy of the notebook `source`, open in JupyterLab in a browser window, its kernel ready."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        _server(Path(scratch), source, dark) as address,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=FLAGS) as browser,
    ):
        width, height = size
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5)
        page.goto(address)
        yield Notebook(page)


@contextlib.contextmanager
def _server(scratch: Path, source: Path, dark: bool) -> Iterator[str]:
    """A JupyterLab server of our own on the loopback address, with settings and progress of its own."""
    work = scratch / "work"
    work.mkdir()
    shutil.copy(source, work)
    settings = scratch / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    theme = "JupyterLab Dark" if dark else "JupyterLab Light"
    (settings / "themes.jupyterlab-settings").write_text(f'{{"theme": "{theme}"}}', encoding="utf-8")
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}",
        f"--LabApp.user_settings_dir={scratch / 'settings'}", f"--LabApp.workspaces_dir={scratch / 'workspaces'}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    environment = os.environ | {
        "LABUTILS_PROGRESS": str(scratch / "progress"),
        "JUPYTER_CONFIG_DIR": str(scratch / "config"),
        "IPYTHONDIR": str(scratch / "ipython"),
    }
    with open(scratch / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={token}", process, scratch / "server.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{source.name}?token={token}"
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


class Notebook:
    """A notebook open in a browser. Cells are found by a piece of their source."""

    def __init__(self, page: Page):
        self.page = page
        page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 2", timeout=90_000
        )
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=90_000,
        )

    def run_all(self, seconds: float = 180) -> None:
        """Run every cell, and wait for the last one."""
        self.page.set_default_timeout(seconds * 1000)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.set_default_timeout(30_000)

    def index_of(self, piece: str) -> int:
        """The index of the code cell whose source is `piece`, or else of the first that holds it."""
        cells = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets"
            ".map(cell => cell.model.type === 'code' ? cell.model.sharedModel.source : '')"
        )
        return cells.index(piece) if piece in cells else next(i for i, source in enumerate(cells) if piece in source)

    def write(self, piece: str, source: str) -> None:
        """Replace the source of a cell, as a student would, and run it."""
        self.page.evaluate(
            """([index, source]) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.widgets[index].model.sharedModel.setSource(source);
            }""",
            [self.index_of(piece), source],
        )

    def run(self, piece: str) -> None:
        """Run one cell and wait for it."""
        self.page.evaluate(
            """async (index) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.deselectAll();
                notebook.activeCellIndex = index;
                await window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            self.index_of(piece),
        )

    def output(self, piece: str) -> Locator:
        """The output area of a cell, scrolled into view."""
        index = self.index_of(piece)
        self.page.evaluate(
            "(index) => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start')", index
        )
        cell = self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")
        cell.wait_for()
        area = cell.locator(".jp-Cell-outputWrapper")
        area.scroll_into_view_if_needed()
        return area

    def picture(self, area: Locator) -> str:
        """The address of the picture in an output: another picture has another."""
        return area.locator("img").first.get_attribute("src")

    def wait_for_another_picture(self, area: Locator, before: str) -> None:
        """Wait until the picture in an output is no longer the one whose address is `before`."""
        image = area.locator("img").first.element_handle()
        self.page.wait_for_function("([image, before]) => image.src !== before", arg=[image, before], timeout=10_000)

    def screenshot(self, piece: str, path: Path | str) -> None:
        """Save a picture of a cell's output."""
        area = self.output(piece).locator(".jp-OutputArea").first
        self.page.wait_for_timeout(400)  # images decode after they are attached
        area.screenshot(path=str(path))
