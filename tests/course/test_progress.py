"""Progress is recorded and read back; where the folder cannot be used, a warning says so and the labs go on."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labutils.course import progress

pytestmark = pytest.mark.filterwarnings("error")  # a warning where none is expected is a failure


@pytest.fixture
def folder():
    return progress.path()


# --- as it should be ---


def test_the_environment_variable_names_the_folder(folder):
    assert folder == Path(os.environ[progress.VARIABLE])


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_without_it_the_folder_lies_among_the_users_data(monkeypatch, value):
    if value is None:
        monkeypatch.delenv(progress.VARIABLE)
    else:
        monkeypatch.setenv(progress.VARIABLE, value)
    assert progress.path().name == "progress" and "quantization-labs" in progress.path().parts


def test_nothing_is_passed_at_first_and_asking_makes_no_folder(folder):
    assert progress.passed() == set()
    assert not folder.exists()


def test_what_is_recorded_is_passed():
    progress.record("quantize_symmetric")
    progress.record("dequantize_symmetric")
    progress.record("quantize_symmetric")
    assert progress.passed() == {"quantize_symmetric", "dequantize_symmetric"}


def test_a_person_can_read_it_and_take_one_back(folder):
    progress.record("a")
    progress.record("b")
    assert sorted(os.listdir(folder)) == ["a.passed", "b.passed"]
    (folder / "a.passed").unlink()
    assert progress.passed() == {"b"}


def test_missing_folders_are_made(monkeypatch, tmp_path):
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "one" / "two" / "progress"))
    progress.record("a")
    assert progress.passed() == {"a"}


def test_names_of_any_script_survive(folder):
    progress.record("größe 量化")
    assert progress.passed() == {"größe 量化"}


# --- starting again ---


def test_a_deleted_folder_is_a_new_beginning(folder):
    progress.record("a")
    shutil.rmtree(folder)
    assert progress.passed() == set()
    progress.record("b")
    assert progress.passed() == {"b"}


def test_forgetting_is_a_new_beginning(folder):
    progress.record("a")
    progress.forget()
    assert progress.passed() == set()
    progress.forget()  # and again, where there is nothing
    progress.record("b")
    assert progress.passed() == {"b"}


def test_in_a_folder_with_other_things_they_are_neither_counted_nor_removed(folder):
    """LABUTILS_PROGRESS may name any folder, a home for one."""
    (folder / "photos").mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    progress.record("a")
    assert progress.passed() == {"a"}
    progress.forget()
    assert sorted(os.listdir(folder)) == ["photos", "thesis.txt"]


# --- the file of earlier versions ---


@pytest.fixture
def earlier(folder):
    return folder.with_name("progress.json")


def test_what_an_earlier_version_kept_stays_passed(earlier):
    earlier.write_text(json.dumps({"passed": ["a", "b"]}), encoding="utf-8")
    progress.record("c")
    assert progress.passed() == {"a", "b", "c"}
    assert json.loads(earlier.read_text(encoding="utf-8")) == {"passed": ["a", "b"]}


def test_forgetting_forgets_it_too(earlier):
    earlier.write_text('{"passed": ["a"]}', encoding="utf-8")
    progress.forget()
    assert progress.passed() == set()


DAMAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "truncated": b'{"passed": ["a", "b',
    "another encoding": '{"passed": ["a"]}'.encode("utf-16"),
    "a list": b'["a"]',
    "null": b"null",
    "another key": b'{"done": ["a"]}',
    "null for a list": b'{"passed": null}',
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"passed": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
def test_where_that_file_is_damaged_it_is_left_alone(earlier, content):
    earlier.write_bytes(content)
    progress.record("a")
    assert progress.passed() == {"a"}
    assert earlier.read_bytes() == content


# --- places that cannot be written ---


def blocked_by_a_file(tmp_path):
    (tmp_path / "progress").write_text("")
    return tmp_path / "progress"


def below_a_file(tmp_path):
    return blocked_by_a_file(tmp_path) / "progress"


def deep_below_a_file(tmp_path):
    return below_a_file(tmp_path) / "folder" / "progress"


def with_too_long_a_name(tmp_path):
    return tmp_path / ("x" * 1000)


@pytest.mark.parametrize("place", [blocked_by_a_file, below_a_file, deep_below_a_file, with_too_long_a_name])
def test_where_nothing_can_be_kept_the_labs_go_on_and_say_so(monkeypatch, tmp_path, place):
    there = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv(progress.VARIABLE, str(there))
    with pytest.warns(UserWarning, match="progress could not be read from .* LABUTILS_PROGRESS name a folder"):
        assert progress.passed() == set()
    with pytest.warns(UserWarning, match="progress could not be saved to .* The labs work without it"):
        progress.record("a")
    with pytest.warns(UserWarning, match="progress could not be removed from"):
        progress.forget()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_on_a_full_or_locked_disk_what_was_passed_stays(monkeypatch, number):
    progress.record("a")

    def refuses(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", refuses)
    with pytest.warns(UserWarning, match=f"could not be saved to .*{os.strerror(number)}"):
        progress.record("b")
    assert progress.passed() == {"a"}


# --- several at once: nothing is lost ---


def test_threads_lose_nothing():
    def work(number):
        for i in range(20):
            progress.record(f"thread {number}, {i}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert progress.passed() == {f"thread {number}, {i}" for number in range(4) for i in range(20)}


def test_processes_lose_nothing():
    script = """
import sys
from labutils.course import progress
for i in range(20):
    progress.record(f"process {sys.argv[1]}, {i}")
"""
    root = str(Path(progress.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    workers = [subprocess.Popen([sys.executable, "-c", script, str(n)], env=environment) for n in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    assert progress.passed() == {f"process {number}, {i}" for number in range(3) for i in range(20)}
