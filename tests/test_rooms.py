"""The structure of labutils: rooms that import downwards only, and labs whose files are found by their names."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import labutils
from labutils.labs.catalogue import EXERCISES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "labutils"
HEAVY = {"numpy", "torch", "matplotlib"}


def modules_of(room):
    """module name -> path, of all modules of a room."""
    paths = (PACKAGE / room).rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports_of(path):
    """The modules of labutils that a file imports, anywhere in it. A public name counts as labutils itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in found if name.partition(".")[0] == "labutils"}
    return {name if name in MODULES else name.rpartition(".")[0] or name for name in ours}


MODULES = {name: path for room in labutils.ROOMS for name, path in modules_of(room).items()}
IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


IS_LAB = re.compile(r"labutils\.labs\.lab\d\d").match


def loaded_by(statements):
    """The modules that statements load in a fresh interpreter."""
    script = f"{statements}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_every_folder_is_a_room():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(labutils.ROOMS)


@pytest.mark.parametrize("room", labutils.ROOMS)
def test_a_room_imports_only_from_rooms_below_it(room):
    allowed = labutils.ROOMS[: labutils.ROOMS.index(room) + 1]
    upwards = {
        name: wrong
        for name in modules_of(room)
        if (wrong := {used for used in IMPORTS[name] if used.partition(".")[2].partition(".")[0] not in allowed})
    }
    assert upwards == {}


def test_imports_have_no_circles():
    list(TopologicalSorter(IMPORTS).static_order())  # a CycleError names the modules of a circle


def test_import_labutils_loads_nothing_heavy():
    assert not HEAVY & loaded_by("import labutils")


def test_a_check_loads_neither_torch_nor_matplotlib():
    assert not {"torch", "matplotlib"} & loaded_by("from labutils import check")


def test_an_explorer_loads_its_own_lab_only():
    labs = {module.split(".")[2] for module in loaded_by("import labutils; labutils.explore_groups") if IS_LAB(module)}
    assert labs == {"lab04"}


# --- labs ---


def lesson_of(lab):
    return import_module(f"labutils.labs.{lab}").LESSON


CHECK = re.compile(r"^check\((\w+)\)$", re.M)


def checks_in(lesson):
    """The names in a lesson's `check(...)` cells, from top to bottom."""
    return CHECK.findall((ROOT / "lessons" / f"{lesson}.py").read_text(encoding="utf-8"))


LABS = sorted({file.partition(".")[0] for file in EXERCISES.files.values()})
LESSONS = sorted(path.stem for path in (ROOT / "lessons").glob("[0-9][0-9]_*.py"))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import labutils
from labutils.labs.catalogue import EXERCISES
for name in {names}:
    EXERCISES.load(name)
labutils.board()
"""


def test_labs_00_to_04_need_no_torch():
    names = [name for name, file in EXERCISES.files.items() if file < "lab05"]
    assert {"storage_bytes", "explore_groups"} <= set(names)
    loaded_by(WITHOUT_TORCH.format(names=names))


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_builds_on_earlier_labs_only(lab):
    used = {module.split(".")[2] for name in IMPORTS if lab in name for module in IMPORTS[name] if IS_LAB(module)}
    assert max(used, default=lab) <= lab


def test_no_two_labs_have_a_file_of_the_same_name():
    stems = Counter(path.stem for path in (PACKAGE / "labs").glob("lab*/[!_]*.py"))
    assert [name for name, count in stems.items() if count > 1] == []
    assert stems.keys() == EXERCISES.files.keys()


@pytest.mark.parametrize("name", EXERCISES.names)
def test_an_exercise_has_the_name_of_its_file_and_its_labs_lesson(name):
    exercise = EXERCISES[name]
    assert exercise.name == exercise.reference.__name__ == EXERCISES.load(name).__name__ == name
    assert exercise.lab == lesson_of(EXERCISES.files[name].partition(".")[0])


@pytest.mark.parametrize("lab", LABS)
def test_exercises_stand_in_the_order_in_which_their_lesson_checks_them(lab):
    placed = sorted((exercise.place, name) for name, exercise in EXERCISES.items() if exercise.lab == lesson_of(lab))
    assert [name for _, name in placed] == checks_in(lesson_of(lab))
    assert len({place for place, _ in placed}) == len(placed)


@pytest.mark.parametrize("lab", LABS)
def test_stretch_exercises_are_those_of_the_lessons_stretch_section(lab):
    text = (ROOT / "lessons" / f"{lesson_of(lab)}.py").read_text(encoding="utf-8")
    sections = re.split(r"^(?=# ## )", text, flags=re.M)
    there = {name for part in sections if part.startswith("# ## Stretch") for name in CHECK.findall(part)}
    exercises = [exercise for exercise in EXERCISES.values() if exercise.lab == lesson_of(lab)]
    assert {exercise.name for exercise in exercises if exercise.stretch} == there


def test_every_lesson_has_a_lab_of_its_number():
    assert {lab: lesson_of(lab) for lab in LABS} == {f"lab{lesson[:2]}": lesson for lesson in LESSONS}
