"""A function in a process of its own: its result, its limits, and nothing left behind."""

import os
import subprocess
import time

import psutil
import pytest

from labutils.course.grading.isolated import Ended, Limits, OutOfMemory, OutOfTime, isolated

ENOUGH = Limits(60, 2)


def child(seconds):
    return subprocess.Popen(["sleep", str(seconds)], start_new_session=True).pid


def daemon(seconds):
    """A process whose parent has ended."""
    return int(subprocess.check_output(f"setsid sleep {seconds} >/dev/null 2>&1 & echo $!", shell=True))


def never(path):
    """Write the ids of this process and of one that it started, and stay."""
    path.write_text(f"{os.getpid()} {child(1000)}")
    while True:
        time.sleep(1)


def fill(_):
    grown = []
    while True:
        grown.append(bytes([1]) * 10**7)


def test_the_result_comes_back_from_another_process():
    pid, argument = isolated(described, "ada", ENOUGH)
    assert pid != os.getpid() and argument == "ada"


def described(argument):
    return os.getpid(), argument


def test_time_is_limited_and_all_that_was_started_ends(tmp_path):
    with pytest.raises(OutOfTime, match="5 seconds"):
        isolated(never, tmp_path / "ids", Limits(5, 2))
    assert not any(map(alive, map(int, (tmp_path / "ids").read_text().split())))


def test_memory_is_limited():
    with pytest.raises(OutOfMemory, match=r"0\.5 GB"):
        isolated(fill, None, Limits(60, 0.5))


def test_a_process_that_ends_without_a_result_is_no_crash_of_ours():
    with pytest.raises(Ended):
        isolated(os._exit, 3, ENOUGH)


@pytest.mark.parametrize("start", [child, daemon])
def test_nothing_that_it_started_outlives_it(start):
    assert not alive(isolated(start, 1000, ENOUGH))


def alive(pid):
    """A process that has ended is there until its parent has looked."""
    end = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return True
        time.sleep(0.1)
    return False
