"""Colab: a student's notebook, alone in an empty folder, beside Colab's packages and without ours.

The notebook is the student's, byte for byte. Only git is led elsewhere: where the set-up cell names the project's
address, it finds this working tree.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement

from tools import build_course

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(__file__).with_name("packages.txt")
MISSING = {"array-api-compat"}  # what our package needs and Colab lacks


def test_colabs_packages_are_new_enough_for_ours():
    """One that is too old would be replaced; the kernel has imported ipywidgets by then, and wants a restart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = PACKAGES.read_text(encoding="utf-8").splitlines()
    colab = dict(line.split("==") for line in lines if not line.startswith("#"))
    needed = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    assert needed.keys() - colab.keys() == MISSING
    assert [name for name in needed.keys() - MISSING if colab[name] not in needed[name]] == []


def test_the_projects_address_is_written_once_for_programs_and_once_for_readers():
    folders = ["benchmarks", "labutils", "lessons", "tests", "tools", ".ci", ".github"]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    address = build_course.source_url().encode()
    assert sorted(path.name for path in files if address in path.read_bytes()) == ["README.md", "pyproject.toml"]
    assert f"git clone {build_course.source_url()} " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_fork_changes_that_one_address(monkeypatch):
    ours = build_course.source_url()
    monkeypatch.setattr(build_course, "source_url", lambda: "https://github.com/someone/their-course")
    first, *_ = build_course.lessons()
    notebook = build_course.student_version(build_course.read(first))
    links = notebook.cells[1].source
    assert f"https://colab.research.google.com/github/someone/their-course/blob/main/notebooks/{first.stem}" in links
    assert "git+https://github.com/someone/their-course" in setup_cell(notebook).source
    assert ours.removeprefix("https://github.com/") not in json.dumps(notebook)


@pytest.mark.network
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.skipif(not (3, 11) <= sys.version_info < (3, 14), reason="Colab's versions have no wheels for this Python")
class TestInItsEnvironment:
    """In this order: the package is missing, is installed by lab 01, is there for lab 05."""

    def test_without_git_the_setup_cell_says_what_is_needed(self, colab, tmp_path):
        with pytest.raises(CellExecutionError, match="needs a network and git"):
            colab.run("01_fundamentals", tmp_path, kernel="without_git")

    def test_the_setup_cell_installs_the_package_and_touches_nothing_else(self, colab, tmp_path):
        before = colab.installed()
        notebook = colab.run("01_fundamentals", tmp_path)
        after = colab.installed()
        assert before.items() <= after.items()
        new = {name.partition("-")[0].replace("_", "-") for name in after.keys() - before.keys()}
        assert new == {"quantization-labs"} | MISSING
        assert "See Read on the web, above" in setup_cell(notebook).outputs[-1].text
        assert "[Read on the web](https://" in notebook.cells[1].source
        assert colab.says("import labutils; print(labutils.__file__)").startswith(str(colab.site))
        assert ": not done yet." in text_of(notebook)

    def test_the_next_lab_has_nothing_to_install_and_finds_torch(self, colab, tmp_path):
        before = colab.installed()
        notebook = colab.run("05_quantized_linear", tmp_path)
        assert colab.installed() == before
        assert setup_cell(notebook).outputs == []
        assert ": not done yet." in text_of(notebook)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    try:
        return Colab(tmp_path_factory.mktemp("colab"))
    except subprocess.CalledProcessError as failed:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Colab's packages could not be had: {failed}")


class Colab:
    """An environment with PACKAGES and torch, and two kernels in it: one that finds git, and one that does not."""

    def __init__(self, folder):
        self.kernels = folder / "share" / "jupyter"
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # By our pip: the one that comes with Python 3.11 takes twice as long.
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", f"--python={self.python}"]
        subprocess.run([*pip, "install", "--no-compile", "--requirement", PACKAGES], check=True)
        (self.site,) = (folder / "lib").glob("python*/site-packages")
        lend("torch", self.site)
        repository = commit_the_working_tree(folder / "repository")
        self.add_kernel(
            "with_git",
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0=f"url.{repository.as_uri()}.insteadOf",
            GIT_CONFIG_VALUE_0=build_course.source_url(),
        )
        self.add_kernel("without_git", PATH=str(self.python.parent))

    def add_kernel(self, name, **environment):
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": name, "language": "python", "env": environment}
        (self.kernels / "kernels" / name).mkdir(parents=True)
        (self.kernels / "kernels" / name / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")

    def run(self, lab, folder, kernel="with_git"):
        """A lab copied into an empty folder, and executed there."""
        path = shutil.copy(ROOT / "notebooks" / f"{lab}.ipynb", folder)
        notebook = nbformat.read(path, as_version=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTHONPATH", raising=False)
            patch.setenv("JUPYTER_PATH", str(self.kernels))
            resources = {"metadata": {"path": str(folder)}}
            NotebookClient(notebook, timeout=300, kernel_name=kernel, resources=resources).execute()
        return notebook

    def says(self, code):
        """What its Python prints, asked outside of any checkout."""
        command = [self.python, "-I", "-c", code]
        return subprocess.run(command, cwd=self.site, check=True, capture_output=True, text=True).stdout

    def installed(self):
        """What is installed, and when it was put there."""
        return {path.name: path.stat().st_mtime_ns for path in self.site.glob("*.dist-info")}


def lend(name, site):
    """Link a package of our own environment, and what it needs: torch is too large to be installed twice."""
    if any(metadata.distributions(name=name, path=[str(site)])):
        return
    package = metadata.distribution(name)
    for top in {file.parts[0] for file in package.files} - {".."}:
        if not (site / top).exists():
            (site / top).symlink_to(package.locate_file(top))
    for need in map(Requirement, package.requires or []):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            lend(need.name, site)


def commit_the_working_tree(folder):
    """A repository with one commit: the files as they are here, committed or not."""
    git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT}", "-c", "user.name=A test", "-c", "user.email=@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=The working tree"]):
        subprocess.run([*git, *command], check=True)
    return folder


def setup_cell(notebook):
    return next(cell for cell in notebook.cells if "%pip install" in cell.source)


def text_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    return "\n".join(output.get("text") or output.data.get("text/plain", "") for output in outputs)
