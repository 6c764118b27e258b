"""torch for processors where no NVIDIA driver is, if an index of such builds answers; else as pip finds it."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import torch_index

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOL = Path(torch_index.__file__)


class Index(BaseHTTPRequestHandler):
    """A stand-in for an index of packages: /whl answers, /empty has no torch, /slow says nothing for a while."""

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(5)
        self.send_response(200 if self.path == "/whl/torch/" else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def without_card(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch_index, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch_index.shutil, "which", lambda name: None)


def test_without_a_card_processor_builds_are_asked_for(without_card, address):
    assert torch_index.pip_options(f"{address}/whl") == ["--extra-index-url", f"{address}/whl"]


@pytest.mark.parametrize("where", ["/empty", ""])
def test_an_index_without_torch_is_left_out(without_card, address, where):
    assert torch_index.pip_options(address + where) == []


def test_an_index_that_nobody_serves_or_that_is_no_address_is_left_out(without_card):
    assert torch_index.pip_options("http://127.0.0.1:9/whl") == []
    assert torch_index.pip_options("no address") == []


def test_an_index_that_is_slow_is_given_up(address):
    assert not torch_index.answers(f"{address}/slow", patience=0.2)


def test_uv_is_told_the_same_index():
    settings = tomllib.loads((TOOL.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    index = next(index for index in settings["index"] if index["url"] == torch_index.CPU_INDEX)
    assert index["explicit"]
    assert settings["sources"]["torch"] == [{"index": index["name"], "marker": "sys_platform == 'linux'"}]


def test_with_a_driver_the_card_gets_its_build(without_card, address):
    torch_index.DRIVER.write_text("NVRM version")
    assert torch_index.pip_options(f"{address}/whl") == []


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_the_ordinary_build_has_no_cuda(without_card, address, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert torch_index.pip_options(f"{address}/whl") == []


@pytest.mark.skipif(
    sys.platform != "linux" or not torch_index.wants_processor_build(), reason="for Linux without a card"
)
def test_it_prints_what_pip_reads(address):
    def printed(index):
        environment = {**os.environ, "TORCH_CPU_INDEX": index}
        run = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, env=environment, check=True)
        return run.stdout.split()

    assert printed(f"{address}/whl") == ["--extra-index-url", f"{address}/whl"]
    assert printed("http://127.0.0.1:9/whl") == []
