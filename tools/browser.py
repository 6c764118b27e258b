"""Open notebooks in Jupyter in a headless browser, for the browser tests and the README's pictures.

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

from playwright.sync_api import BrowserContext, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as TimedOut

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
APPLICATIONS = {  # module, application class, path of a notebook's page
    "lab": ("jupyterlab", "LabApp", "lab/workspaces/{0.stem}/tree/{0.name}"),
    "notebook": ("notebook", "JupyterNotebookApp", "notebooks/{0.name}"),
}
BLANK = "about:blank"
BUSY = "[role=status][aria-busy=true]"  # an explorer that computes in steps
# The only picture that a notebook loads from the network is replaced with an empty one.
BADGE, EMPTY = "**/colab-badge.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>'


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def notebook_in_browser(source: Path, dark: bool = False, size: tuple[int, int] = (1280, 900)) -> Iterator[Notebook]:
    """Open a copy of the notebook `source` in JupyterLab, and wait until its kernel is ready."""
    with jupyter_in_browser(dark=dark, size=size) as jupyter, jupyter.open(source) as notebook:
        yield notebook


@contextlib.contextmanager
def jupyter_in_browser(
    application: str = "lab",
    startup: str = "",
    dark: bool = False,
    size: tuple[int, int] = (1280, 900),
    scale: float = 1.5,
) -> Iterator[Jupyter]:
    """Start a server, and a browser in which to open notebooks, one after another.

    application  "lab", JupyterLab, or "notebook", Notebook 7
    startup      code that every kernel runs before the first cell
    scale        pixels of a screenshot for each of the window's: more take longer to draw
    """
    window = {"viewport": dict(zip(("width", "height"), size)), "device_scale_factor": scale}
    with (
        tempfile.TemporaryDirectory() as scratch,
        _server(Path(scratch), application, startup, dark) as address,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=FLAGS) as browser,
        browser.new_context(**window) as context,  # one for all pages: each keeps its 10 MB of scripts for the next
    ):
        yield Jupyter(context, address, application, _work(Path(scratch)))


@contextlib.contextmanager
def _server(scratch: Path, application: str, startup: str, dark: bool) -> Iterator[str]:
    """Start a server on the loopback address, with its own settings and progress; yield its address as a pattern."""
    work, profile = _work(scratch), scratch / "ipython" / "profile_default" / "startup"
    work.mkdir()
    profile.mkdir(parents=True)
    (profile / "startup.py").write_text(startup, encoding="utf-8")
    settings = scratch / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    theme = "JupyterLab Dark" if dark else "JupyterLab Light"
    (settings / "themes.jupyterlab-settings").write_text(f'{{"theme": "{theme}"}}', encoding="utf-8")
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    module, app, address = APPLICATIONS[application]
    command = [
        sys.executable, "-m", module, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}",
        f"--{app}.user_settings_dir={scratch / 'settings'}", f"--{app}.workspaces_dir={scratch / 'workspaces'}",
        f"--{app}.expose_app_in_browser=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
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
            yield f"http://127.0.0.1:{port}/{address}?token={token}"
        finally:
            process.terminate()
            process.wait(20)


def _work(scratch: Path) -> Path:
    """The folder whose notebooks the server opens."""
    return scratch / "work"


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    """Wait until the server answers; RuntimeError with the end of its log if it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"The server did not start:\n{log.read_text()[-3000:]}")


class Jupyter:
    """A running server and a browser."""

    def __init__(self, context: BrowserContext, address: str, application: str, work: Path):
        self._context, self._address, self._application, self._work = context, address, application, work
        self._idle: list[Page] = []  # pages of JupyterLab in which no notebook is open

    @contextlib.contextmanager
    def open(self, source: Path) -> Iterator[Notebook]:
        """Open a copy of `source`, and wait until its kernel is ready."""
        shutil.copy(source, self._work)
        page = self._idle.pop() if self._idle else self._new_page()
        complaints: list[str] = []
        listeners = {
            "console": lambda message: complaints.append(message.text) if message.type == "error" else None,
            "pageerror": lambda error: complaints.append(str(error)),
        }
        for event, listener in listeners.items():
            page.on(event, listener)
        if page.url == BLANK:
            page.goto(self._address.format(source))
        else:  # JupyterLab needs seconds to load, and is there already
            page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}); }", source.name)
        yield Notebook(page, source, self._application, complaints)
        page.evaluate("() => { window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")  # not waited for
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        if self._application == "lab":
            page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")
            self._idle.append(page)
        else:
            page.close()

    def _new_page(self) -> Page:
        page = self._context.new_page()
        page.route(BADGE, lambda route: route.fulfill(content_type="image/svg+xml", body=EMPTY))
        return page


class Notebook:
    """A notebook open in a browser. Its methods find a cell by a piece of its source.

    source       path of the notebook of which this is a copy
    application  "lab" or "notebook"
    complaints   errors in the browser's console so far
    """

    def __init__(self, page: Page, source: Path, application: str, complaints: list[str]):
        self.page, self.source, self.application, self.complaints = page, source, application, complaints
        page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 1", timeout=90_000
        )
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=90_000,
        )
        page.evaluate(  # window.asked: the requests to the kernel that it has not finished
            """() => {
                const asked = window.asked = new Map();
                window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.anyMessage.connect(
                    (kernel, {msg, direction}) => {
                        window.spoken = performance.now();
                        if (direction === 'send' && msg.channel === 'shell')
                            asked.set(msg.header.msg_id, `${msg.header.msg_type} of ${msg.header.date}`);
                        else if (msg.header.msg_type === 'status' && msg.content.execution_state === 'idle')
                            asked.delete(msg.parent_header.msg_id);
                    });
            }"""
        )

    def run_all(self, seconds: float = 600) -> None:
        """Run every cell and wait for the last one. It stops at a cell that raises."""
        self.page.evaluate(
            """() => {
                window.ran = false;
                window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => window.ran = true);
            }"""
        )
        self.page.wait_for_function("() => window.ran", timeout=1000 * seconds, polling=100)
        self.settle()

    def settle(self, seconds: float = 120) -> None:
        """Wait until the kernel has finished all requests, has had no new one for 50 ms, and no explorer is busy."""
        self.page.evaluate("() => window.spoken = performance.now()")
        still = (
            f"() => !window.asked.size && performance.now() - window.spoken > 50 && !document.querySelector('{BUSY}')"
        )
        try:
            self.page.wait_for_function(still, timeout=1000 * seconds, polling=25)
        except TimedOut:
            asked = self.page.evaluate("() => [...window.asked.values()]")
            raise RuntimeError(f"after {seconds} seconds the kernel had not done what it was asked: {asked}") from None

    def cells(self) -> list[dict]:
        """Every code cell: index, source, whether its source is folded, execution count, and outputs as in the file.

        Only what is in pictures is left out: megabytes.
        """
        return self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets.map(({model, inputHidden}, index) => (
                {index, type: model.type, source: model.sharedModel.source, folded: inputHidden,
                 count: model.executionCount, outputs: model.outputs && JSON.parse(JSON.stringify(
                    model.outputs.toJSON(), (key, value) => key.startsWith('image/') ? '' : value))}
            )).filter(cell => cell.type === 'code')"""
        )

    def index_of(self, piece: str) -> int:
        """The index of the code cell whose source is `piece`, or else of the first that contains it."""
        sources = self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets.map(
                ({model}, index) => [index, model.type === 'code' ? model.sharedModel.source : null]
            ).filter(([index, source]) => source !== null)"""
        )
        exact = (index for index, source in sources if source == piece)
        return next(exact, None) or next(index for index, source in sources if piece in source)

    def write(self, piece: str, source: str) -> None:
        """Replace the source of a cell."""
        self.page.evaluate(
            """([index, source]) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.widgets[index].model.sharedModel.setSource(source);
            }""",
            [self.index_of(piece), source],
        )

    def run(self, piece: str | int) -> None:
        """Run one cell and wait for it. A cell may also be named by its index."""
        self.page.evaluate(
            """async (index) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.deselectAll();
                notebook.activeCellIndex = index;
                await window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            piece if isinstance(piece, int) else self.index_of(piece),
        )

    def output(self, piece: str | int) -> Locator:
        """The output area of a cell, scrolled into view. `piece` may also be the cell's index."""
        index = piece if isinstance(piece, int) else self.index_of(piece)
        self.page.evaluate(
            "(index) => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'start')", index
        )
        cell = self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")
        cell.wait_for()
        area = cell.locator(".jp-Cell-outputWrapper")
        area.scroll_into_view_if_needed()
        return area

    def screenshot(self, piece: str | int, path: Path | str) -> None:
        """Save a picture of a cell's output."""
        area = self.output(piece).locator(".jp-OutputArea").first
        self.page.wait_for_timeout(400)  # an image is decoded after it is in the page
        area.screenshot(path=str(path))
