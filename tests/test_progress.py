"""Progress is a convenience and never a trap: whatever became of the file, the labs go on and say so."""

import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from labutils import progress

pytestmark = pytest.mark.filterwarnings("error")  # a warning where none is expected is a failure


@pytest.fixture
def file():
    return progress.path()


# --- as it should be ---


def test_the_environment_variable_names_the_file(file, tmp_path):
    assert file.parent == tmp_path


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_without_it_the_file_lies_in_the_users_data_folder(monkeypatch, value):
    if value is None:
        monkeypatch.delenv(progress.VARIABLE)
    else:
        monkeypatch.setenv(progress.VARIABLE, value)
    assert progress.path().name == "progress.json" and "quantization-labs" in progress.path().parts


def test_nothing_is_passed_at_first_and_asking_makes_no_file(file):
    assert progress.passed() == set()
    assert not file.exists()


def test_what_is_recorded_is_passed():
    progress.record("quantize_symmetric")
    progress.record("dequantize_symmetric")
    progress.record("quantize_symmetric")
    assert progress.passed() == {"quantize_symmetric", "dequantize_symmetric"}


def test_the_file_is_json_that_a_person_can_read(file):
    progress.record("b")
    progress.record("a")
    assert json.loads(file.read_text(encoding="utf-8")) == {"passed": ["a", "b"]}
    assert file.read_text(encoding="utf-8").count("\n") > 3


def test_passing_again_does_not_write_again(file):
    progress.record("a")
    os.utime(file, ns=(0, 0))
    progress.record("a")
    assert file.stat().st_mtime_ns == 0


def test_missing_folders_are_made(monkeypatch, tmp_path):
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "one" / "two" / "progress.json"))
    progress.record("a")
    assert progress.passed() == {"a"}


def test_recording_leaves_nothing_beside_the_file(file):
    progress.record("a")
    assert os.listdir(file.parent) == [file.name]


def test_names_of_any_script_survive(file):
    progress.record("größe 量化")
    assert progress.passed() == {"größe 量化"}


# --- starting again ---


def test_a_deleted_file_is_a_new_beginning(file):
    progress.record("a")
    file.unlink()
    assert progress.passed() == set()
    progress.record("b")
    assert progress.passed() == {"b"}


def test_forgetting_starts_again(file):
    progress.record("a")
    progress.forget()
    assert progress.passed() == set() and not file.exists()
    progress.forget()  # and again, where there is nothing


# --- damage ---

DAMAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "zeros": bytes(100),
    "truncated": b'{"passed": ["a", "b',
    "another encoding": '{"passed": ["a"]}'.encode("utf-16"),
    "a list": b'["a"]',
    "a number": b"5",
    "null": b"null",
    "a string": b'"passed"',
    "another key": b'{"done": ["a"]}',
    "a name for a list": b'{"passed": "ab"}',
    "a table for a list": b'{"passed": {"a": true}}',
    "null for a list": b'{"passed": null}',
    "numbers for names": b'{"passed": ["a", 1]}',
    "lists for names": b'{"passed": [["a"]]}',
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"passed": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(file, content):
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"progress\.json could not be understood .* kept as progress\.json\.damaged"):
        assert progress.passed() == set()
    assert file.with_name("progress.json.damaged").read_bytes() == content
    progress.record("a")
    assert progress.passed() == {"a"}


def test_recording_over_damage_warns_and_records(file):
    file.write_bytes(b"?")
    with pytest.warns(UserWarning, match="could not be understood"):
        progress.record("a")
    assert progress.passed() == {"a"}


def test_damage_that_cannot_be_set_aside_is_left(file):
    file.with_name("progress.json.damaged").mkdir()
    file.write_bytes(b"?")
    with pytest.warns(UserWarning, match="it is left as it is"):
        assert progress.passed() == set()
    assert file.read_bytes() == b"?"


# --- places that cannot be written ---


def blocked_by_a_folder(tmp_path):
    (tmp_path / "progress.json").mkdir()
    return tmp_path / "progress.json"


def below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "progress.json"


def deep_below_a_file(tmp_path):
    return below_a_file(tmp_path).parent / "folder" / "progress.json"


def with_too_long_a_name(tmp_path):
    return tmp_path / ("x" * 1000)


@pytest.mark.parametrize("place", [blocked_by_a_folder, below_a_file, deep_below_a_file, with_too_long_a_name])
def test_where_nothing_can_be_kept_the_labs_go_on_and_say_so(monkeypatch, tmp_path, place):
    there = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv(progress.VARIABLE, str(there))
    with pytest.warns(UserWarning, match="progress could not be read"):
        assert progress.passed() == set()
    with pytest.warns(UserWarning, match="progress could not be") as told:
        progress.record("a")
    assert any("saved" in str(warning.message) for warning in told)
    with pytest.warns(UserWarning, match="progress could not be removed"):
        progress.forget()
    assert sorted(tmp_path.rglob("*")) == before  # no half-written file is left behind


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_in_a_folder_that_may_not_be_written_the_labs_go_on_and_say_so(file):
    progress.record("a")
    file.parent.chmod(0o500)
    try:
        with pytest.warns(UserWarning, match="progress could not be saved"):
            progress.record("b")
        assert progress.passed() == {"a"}
    finally:
        file.parent.chmod(0o700)


# --- several at once ---
#
# There is no lock: of names recorded at the same moment, the last to be written wins, and another may have to be
# recorded again. What holds is that no one ever reads half a file, and that what was passed before stays passed.

EARLIER = {f"earlier {i}" for i in range(5)}


def all_that_holds(file, recorded):
    assert EARLIER < progress.passed() <= EARLIER | recorded
    assert os.listdir(file.parent) == [file.name]


def test_several_threads_leave_a_whole_file(file):
    for name in EARLIER:
        progress.record(name)
    trouble = []

    def work(number):
        try:
            for i in range(20):
                progress.record(f"thread {number}, {i}")
                if not progress.passed() >= EARLIER:
                    trouble.append("what was passed before is gone")
        except BaseException as error:
            trouble.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert trouble == []
    all_that_holds(file, {f"thread {number}, {i}" for number in range(4) for i in range(20)})


def test_several_processes_leave_a_whole_file(file):
    for name in EARLIER:
        progress.record(name)
    script = """
import sys, warnings
warnings.simplefilter("error")
from labutils import progress
for i in range(20):
    progress.record(f"process {sys.argv[1]}, {i}")
    assert len(progress.passed()) > 5
"""
    root = str(Path(progress.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    workers = [subprocess.Popen([sys.executable, "-c", script, str(n)], env=environment) for n in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    all_that_holds(file, {f"process {number}, {i}" for number in range(3) for i in range(20)})


def test_one_after_the_other_nothing_is_lost():
    def record(name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            progress.record(name)

    for i in range(10):
        worker = threading.Thread(target=record, args=(f"name {i}",))
        worker.start()
        worker.join()
    assert progress.passed() == {f"name {i}" for i in range(10)}
