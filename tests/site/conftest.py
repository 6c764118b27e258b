"""The site with all labs, built once, served on the loopback address, and open in a browser."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from tests.site.built import build_all
from tools.browser import FLAGS, find_browser


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return build_all(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def pages(site):
    """path -> parsed HTML of every page."""
    return {
        str(path.relative_to(site)): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts  # templates of the theme
    }


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Write nothing."""


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")  # tests in other files start their own, and a process may have one at a time
def browser(chromium, site):
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=FLAGS) as browser,
    ):
        yield browser
