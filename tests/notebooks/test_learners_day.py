"""What a learner's day brings, in real kernels: the course goes on, says what to do, and forgets nothing."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

from labutils.course import progress

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """
from labutils.labs import answers
from labutils import check, explore_bits, or_reference
def storage_bytes(num_values, num_bits):
    return -(-num_values * num_bits // 8)
"""
PASSED = "storage_bytes: all 7 cases pass."


class Kernel:
    """A kernel, and what running a cell in it shows: texts, pictures, and an error's message."""

    def __init__(self, folder, **environment):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **environment})
        self._connect()

    def _connect(self):
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def restart(self):
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def run(self, code, on_output=lambda text: None):
        shown = []

        def hook(message):
            content = message["content"]
            for piece in (content.get("text"), content.get("data", {}).get("text/plain"), content.get("evalue")):
                if piece:
                    shown.append(piece)
                    on_output(piece)
            shown.extend("<picture>" for kind in content.get("data", {}) if kind.startswith("image/"))
            shown.extend("<traceback>" for _ in content.get("traceback", [])[1:])

        self.client.execute_interactive(code, output_hook=hook, timeout=120, allow_stdin=False)
        return "\n".join(shown)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One for all tests that leave it alive."""
    folder = tmp_path_factory.mktemp("kernel")
    kernel = Kernel(folder, LABUTILS_PROGRESS=str(folder / "progress"))
    kernel.run(RIGHT)
    yield kernel
    kernel.close()


# --- hostile cells ----------------------------------------------------------------------------------------------------

DEEDS = {
    "asks a person": ("input('bits? ')", "input() asks a person, and here nobody is asked"),
    "leaves": ("import sys; sys.exit()", "it raised SystemExit"),
    "leaves as in a terminal": ("exit()", "it raised SystemExit"),
    "waits in compiled code": ("import threading; threading.Event().wait()", "restart the"),
    "checks itself": ("check(storage_bytes)", "cannot itself ask for a check"),
    "explores itself": ("import numpy; explore_bits(numpy.arange(9.0), quantize=lambda x, b: x)", "cannot itself"),
}  # fmt: skip


@pytest.mark.parametrize("deed", DEEDS)
def test_a_hostile_function_is_told_in_one_line_and_the_kernel_lives(kernel, deed):
    code, sentence = DEEDS[deed]
    kernel.run(
        "from labutils.course import report\nfrom labutils.course.panel import show\nfrom labutils.labs import check as checks"
    )
    shown = kernel.run(
        f"def storage_bytes(num_values, num_bits):\n    {code}\n    return 0\n"
        "found = checks.examine(storage_bytes, 2.0)\n"
        "show(report.panel(found))\nraise report.CheckFailed(found)"
    )
    assert sentence in shown
    assert "<traceback>" not in shown
    assert kernel.run(RIGHT + "check(storage_bytes)").count(PASSED) == 1


def test_what_it_displays_dozens_of_times_is_not_shown(kernel):
    shown = kernel.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nfrom IPython.display import display\n"
        "def storage_bytes(num_values, num_bits):\n"
        "    plt.plot([1, 2]); plt.show(); plt.plot([2, 1]); display('unasked'); print('unasked')\n"
        "    return -(-num_values * num_bits // 8)\n"
        "check(storage_bytes)"
    )
    assert PASSED in shown
    assert "unasked" not in shown and "<picture>" not in shown


def test_a_message_that_arrives_during_a_check_is_handled(kernel):
    """As when a slider is moved meanwhile: ipykernel handles it in another thread, and begins with this call."""
    shown = kernel.run(
        "def storage_bytes(num_values, num_bits):\n"
        "    get_ipython().set_parent(get_ipython().get_parent())\n"
        "    return -(-num_values * num_bits // 8)\n"
        "check(storage_bytes)"
    )
    assert PASSED in shown


@pytest.mark.skipif(os.name == "nt", reason="Windows interrupts otherwise")
def test_the_stop_button_ends_a_check_and_the_kernel_lives(kernel):
    def press(text):
        if "begun" in text:
            threading.Timer(1.0, kernel.manager.interrupt_kernel).start()

    shown = kernel.run(
        "def storage_bytes(num_values, num_bits):\n    while True: pass\n"
        "from labutils import examine\nprint('begun', flush=True)\nexamine(storage_bytes, time_limit=60)",
        press,
    )
    assert "<traceback>" in shown
    assert PASSED in kernel.run(RIGHT + "check(storage_bytes)")


def test_what_holds_the_whole_interpreter_is_ended_by_a_restart_and_nothing_is_lost(tmp_path):
    """Compiled code that never lets another thread run: no check can end that, but the Restart button can."""
    kernel = Kernel(tmp_path, LABUTILS_PROGRESS=str(tmp_path / "progress"))
    with contextlib.closing(kernel):
        assert PASSED in kernel.run(RIGHT + "check(storage_bytes)")
        kernel.client.execute("def storage_bytes(n, b):\n    return sum(range(10**15))\ncheck(storage_bytes)")
        kernel.restart()
        assert "1 of 1" in kernel.run("from labutils import board\nprint(board())")


# --- order ------------------------------------------------------------------------------------------------------------


def test_after_a_restart_cells_below_say_what_is_missing_and_work_once_it_is_there(tmp_path):
    kernel = Kernel(tmp_path, LABUTILS_PROGRESS=str(tmp_path / "progress"))
    with contextlib.closing(kernel):
        # A check, and a slider of one's own function, before the function is written; then with its stub.
        assert "name 'check' is not defined" in kernel.run("check(storage_bytes)")
        kernel.run("from labutils import answers, check, explore_bits, or_reference\nimport numpy as np")
        assert "name 'quantize_symmetric' is not defined" in kernel.run(
            "explore_bits(np.arange(9.0), quantize=quantize_symmetric)"
        )
        kernel.run("def quantize_symmetric(x, num_bits=8):\n    raise NotImplementedError()")
        assert "is not done yet" in kernel.run("explore_bits(np.arange(9.0), quantize=quantize_symmetric)")
        assert "uses the reference" in kernel.run("or_reference(quantize_symmetric)(np.arange(9.0))")
        assert PASSED in kernel.run(RIGHT + "check(storage_bytes)")
        kernel.restart()
        assert "name 'check' is not defined" in kernel.run("check(storage_bytes)")
        assert "1 of 1" in kernel.run("from labutils import board\nprint(board())")
        assert PASSED in kernel.run(RIGHT + "check(storage_bytes)")


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["LABUTILS_PROGRESS", "HOME"])
def test_where_progress_cannot_be_kept_a_check_passes_and_says_so(kernel, tmp_path, where):
    (tmp_path / "file").write_text("")
    there = tmp_path / "file" / "below"
    shown = kernel.run(
        "import os, sys\nkept = dict(os.environ)\nos.environ.pop('LABUTILS_PROGRESS', None)\n"
        f"os.environ.pop('XDG_DATA_HOME', None)\nos.environ[{where!r}] = {str(there)!r}\n"
        + RIGHT
        + "check(storage_bytes)"
    )
    kernel.run("os.environ.update(kept)")
    assert PASSED in shown
    if where == "LABUTILS_PROGRESS" or sys.platform == "linux":  # elsewhere the data folder is not below HOME
        assert "progress could not be saved to" in shown and "The labs work without it" in shown


def without_rights(command):
    """The superuser may write anywhere, unless this right is given up."""
    if os.geteuid() != 0:
        return command
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not there to give up the superuser's rights")
    return [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search,-fowner",
        "--inh-caps=-dac_override,-dac_read_search,-fowner",
        *command,
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX rights")
def test_a_solution_runs_in_a_checkout_that_may_not_be_written(tmp_path):
    checkout = tmp_path / "checkout"
    for folder in ("labutils", "solutions"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    everything = [checkout, *checkout.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    script = """
import os, sys, nbformat
from nbclient import NotebookClient
assert not os.access(".", os.W_OK)
notebook = nbformat.read("00_start_here.ipynb", as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
assert not [output.text for output in outputs if output.get("name") == "stderr"]
print(sum("cases pass" in output.get("data", {}).get("text/plain", "") for output in outputs))
"""
    kept = tmp_path / "progress"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "LABUTILS_PROGRESS": str(kept)}
    try:
        done = subprocess.run(
            without_rights([sys.executable, "-c", script]),
            cwd=checkout / "solutions", env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(len(os.listdir(kept))) == "1"


# --- files of other times ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", [0, 4])
def test_a_notebook_saved_by_an_older_jupyter_runs(tmp_path, minor):
    """Without cell ids, with another kernel's name and version, and with widgets of a session that is long over."""
    notebook = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    notebook["nbformat_minor"] = minor
    state = {
        "0123": {
            "model_module": "@jupyter-widgets/base",
            "model_module_version": "1.2.0",
            "model_name": "LayoutModel",
            "state": {},
        }
    }
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "version": "3.7.3"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2}},
        "toc": {"base_numbering": 1},
    }  # fmt: skip
    for cell in notebook["cells"]:
        cell.pop("id", None)
        cell["metadata"] |= {"collapsed": True, "scrolled": False}
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    old = nbformat.read(path, as_version=4)
    NotebookClient(old, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = str([cell.get("outputs") for cell in old.cells])
    assert "storage_bytes: not done yet." in shown and "image/png" in shown
    assert progress.passed() == set()
