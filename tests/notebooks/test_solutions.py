"""A solution comes out the same each time, pictures too, byte for byte; labs 00 to 04 do without torch.

That the numbers are those stored in solutions/ is for nbval to say. It compares no pictures.
"""

import os
import re
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell

from labutils.course import progress
from tools import build_course

LESSONS = build_course.lessons()
TWICE = ("05_quantized_linear", "07_calibration")  # the other labs with torch take a minute or two each
NO_MINILM = "from labutils.data import minilm\nminilm.PLACES = ()"
NO_TORCH = """
import sys
class _NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not installed here")
sys.meta_path.insert(0, _NoTorch())
"""


def executed(path, before):
    """The lesson, executed after the code `before`."""
    lesson = build_course.read(path)
    lesson.cells.insert(0, new_code_cell(before))
    return build_course.executed(lesson).cells[1:]


def assert_same(once, again):
    for one, two in zip(once, again, strict=True):
        assert one == two, f"another output each time:\n{one.source}"


@pytest.mark.parametrize("path", LESSONS[:5], ids=lambda path: path.stem)
def test_labs_00_to_04_come_out_the_same_where_torch_is_not_installed(path):
    once = executed(path, "pass")
    assert_same(once, executed(path, NO_TORCH))
    shown = str([cell.get("outputs") for cell in once])
    assert re.search(r"all \d+ cases pass", shown)
    assert "not done yet" not in shown


@pytest.mark.parametrize("path", [p for p in LESSONS if p.stem in TWICE], ids=lambda path: path.stem)
def test_a_lab_with_torch_comes_out_the_same_each_time(path):
    """With what stands in for MiniLM, whose weights take longer, and draw nothing at random."""
    assert_same(executed(path, NO_MINILM), executed(path, NO_MINILM))


def test_validating_a_solution_counts_as_nobodys_progress(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        f"solutions/{LESSONS[0].stem}.ipynb",
        "-p",
        "no:cacheprovider",
    ]
    environment = {name: value for name, value in os.environ.items() if name != progress.VARIABLE}
    subprocess.run(
        command, cwd=build_course.ROOT, env=environment | {"XDG_DATA_HOME": str(tmp_path)}, check=True, timeout=300
    )
    assert list(tmp_path.iterdir()) == []
