"""A course played with nbgrader: labs are released, five students hand them in, marks and feedback come back.

One lab is played, to keep `make test` short. The environment variable CLASSROOM names others: CLASSROOM=all plays
every lab, CLASSROOM="03_per_channel 08_outliers" these two.
"""

import ast
import copy
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.nbgraderformat import SchemaTooOldError
from nbgrader.preprocessors import CheckCellMetadata, DeduplicateIds

from labutils.course.copied_cells import release_copies
from labutils.labs.catalogue import EXERCISES
from tests.classroom.course import ENDLESS, SETTINGS, Course, copied

pytestmark = pytest.mark.classroom
ROOT = Path(__file__).resolve().parents[2]
EVERY = sorted({exercise.lab for exercise in EXERCISES.values()})
FAST = ["04_group_int4"]
NAMED = os.environ.get("CLASSROOM", "").split()
PLAYED = EVERY if NAMED == ["all"] else NAMED or FAST
# Each lab that is played is an assignment of its own; the others are one, since each assignment takes two seconds.
ASSIGNMENTS = {lab: [lab] for lab in PLAYED} | ({"others": sorted({*EVERY} - {*PLAYED})} if PLAYED != EVERY else {})
RELEASED = {lab: assignment for assignment, labs in ASSIGNMENTS.items() for lab in labs}
CELL_TIMEOUT = 20 if PLAYED == FAST else 60  # seconds: what README says, or less where every cell of the lab is fast

MISTAKE = """from labutils.labs.catalogue import EXERCISES

def {name}(*args, **kwargs):
    return EXERCISES["{name}"].misconceptions[0].wrong(*args, **kwargs)
"""
MISTAKEN_CLASS = """from labutils.labs.catalogue import EXERCISES

class {name}:
    from_float = EXERCISES["{name}"].misconceptions[0].wrong
"""
UNDEFINED = "NameError: name '{name}' is not defined"
HEAD = "def {name}(*args, **kwargs):\n"
EDITS = (  # what a student leaves in a cell (None: the cell is deleted), and what the feedback then says
    (HEAD + "    raise RuntimeError('no idea')", "it raised RuntimeError: no idea"),
    (HEAD + "    while True:\n        pass", "it gave no answer within 5 seconds"),
    ("def {name}(x:\n    return x", UNDEFINED),
    (ENDLESS, UNDEFINED),
    (HEAD + "    print('ha' * 5_000_000)", "hahahaha"),
    (HEAD + "    import sys\n    sys.exit()", "it raised SystemExit"),
    (None, UNDEFINED),
    ("for _ in range(200_000):\n    print('all work and no play')", UNDEFINED),
    ("import sys\nsys.exit()", UNDEFINED),
)


def exercises(lab):
    return {name: exercise for name, exercise in EXERCISES.items() if exercise.lab == lab}


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def solved(lab):
    """What the solution has in the cell of each exercise."""
    notebook = nbformat.read(ROOT / "solutions" / f"{lab}.ipynb", as_version=4)
    return {grading(cell).grade_id: cell.source for cell in notebook.cells if grading(cell).get("solution")}


def mistaken(lab):
    return {name: (MISTAKEN_CLASS if name[0].isupper() else MISTAKE).format(name=name) for name in exercises(lab)}


def careless(lab, student):
    """Some exercises edited, the others right."""
    return solved(lab) | {name: edit(source, name) for name, (source, _) in edits(student, lab).items()}


def edits(student, lab):
    """exercise -> which of EDITS a student makes there. Where there is more than one exercise, one stays right."""
    names, half = list(exercises(lab)), len(EDITS) // 2
    some = max(1, len(names) - 1)
    places = {"careless": (names[:some], EDITS[:half]), "careless_too": (names[::-1][:some], EDITS[half:])}
    return dict(zip(*places[student])) if student in places else {}


def edit(source, name):
    """What stands in the cell of the exercise `name`, which may be a class."""
    if source and source.startswith(HEAD) and name[0].isupper():
        return source.format(name="make") + f"\n\nclass {name}:\n    from_float = staticmethod(make)"
    return source and source.format(name=name)


STUDENTS = {  # each writes this into the cells of exercises
    "right": solved,
    "untouched": lambda lab: {},
    "mistaken": mistaken,
    "careless": lambda lab: careless(lab, "careless"),
    "careless_too": lambda lab: careless(lab, "careless_too"),
}

COPIES = "right"  # this one has also copied each cell that nbgrader knows


def rewriting(student, lab):
    written = STUDENTS[student](lab)

    def rewrite(cell):
        if student == "mistaken" and grading(cell).get("locked"):
            return "pass"  # and would rather not be checked
        return written.get(grading(cell).get("grade_id"), cell.source)

    return rewrite


def names(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def stand_ins(lab):
    """Names that the lab gives to `or_reference(exercise)`: there unless the exercise's name is not even defined."""
    text = (ROOT / "lessons" / f"{lab}.py").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+) = or_reference\((\w+)\)", text, re.MULTILINE))


def earned(student, lab):
    """The points of each exercise: all of them if its cell is right, and if what it uses of other cells works."""
    right, written = solved(lab), STUDENTS[student](lab)
    well = {name for name in right if written.get(name) == right[name]}
    there = right.keys() - {name for name, (_, said) in edits(student, lab).items() if said == UNDEFINED}
    broken = (right.keys() - well) | {given for given, name in stand_ins(lab).items() if name not in there}
    return {
        name: exercise.points if name in well and not names(right[name]) & broken else 0
        for name, exercise in exercises(lab).items()
    }


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    place = tmp_path_factory.mktemp("classroom")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JUPYTER_CONFIG_DIR", str(place))
        # nbgrader calls alembic by its bare name: the programs beside this Python must be found, as when activated.
        environment.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        course = Course(place, CELL_TIMEOUT)
        for assignment, labs in ASSIGNMENTS.items():
            course.release(assignment, *labs)
        yield course


@pytest.fixture(scope="module", params=PLAYED)
def lab(request, course):
    for student in STUDENTS:
        course.hand_in(student, request.param, rewriting(student, request.param), copies=student == COPIES)
    course.grade(request.param)
    return request.param


@pytest.fixture(params=STUDENTS)
def student(request):
    return request.param


@pytest.mark.parametrize("lab", EVERY)
def test_the_release_is_the_students_notebook(course, lab):
    released = course.released(RELEASED[lab], lab)
    ours = nbformat.read(ROOT / "notebooks" / f"{lab}.ipynb", as_version=4)
    header, lesson = released.cells[: -len(ours.cells)], released.cells[-len(ours.cells) :]
    assert [cell.source for cell in lesson] == [cell.source for cell in ours.cells]
    assert "NAME" in header[1].source  # quickstart's own first cells
    assert released.metadata.kernelspec == ours.metadata.kernelspec


@pytest.mark.parametrize("lab", EVERY)
def test_the_gradebook_knows_every_exercise_and_its_points(course, lab):
    with course.gradebook() as book:
        notebook = book.find_notebook(lab, RELEASED[lab])
        assert {cell.name for cell in notebook.solution_cells} == exercises(lab).keys()
        points = {cell.name: cell.max_score for cell in notebook.grade_cells}
        assert points == {f"check_{name}": exercise.points for name, exercise in exercises(lab).items()}
        assert notebook.max_score == sum(points.values())


def test_every_edit_is_made_in_the_lab_that_is_always_played():
    (lab,) = FAST
    assert [*edits("careless", lab).values(), *edits("careless_too", lab).values()] == list(EDITS)


def test_each_exercise_earns_its_points_or_none(course, lab, student):
    assert course.points(student, lab) == earned(student, lab)


def test_full_marks_zero_marks_and_partial_marks_are_among_them(course, lab):
    sums = {student: sum(course.points(student, lab).values()) for student in STUDENTS}
    total = sum(exercise.points for exercise in exercises(lab).values())
    assert sums["right"] == total
    assert sums["untouched"] == sums["mistaken"] == 0
    assert len(exercises(lab)) == 1 or 0 < sums["careless"] < total


def test_nothing_is_left_to_be_graded_by_hand(course, lab, student):
    with course.gradebook() as book:
        submission = book.find_submission(lab, student)
        assert not submission.needs_manual_grade
        assert submission.max_score == sum(exercise.points for exercise in exercises(lab).values())


def test_feedback_shows_the_hint_of_each_mistake(course, lab):
    page = course.feedback("mistaken", lab)
    for exercise in exercises(lab).values():
        mistake = exercise.misconceptions[0]
        assert f"It looks like this: {mistake.name}. {mistake.hint}".replace("`", "") in page


def test_feedback_says_what_an_edit_came_to(course, lab):
    for student in ("careless", "careless_too"):
        page, made = course.feedback(student, lab), edits(student, lab)
        assert made
        for name, (_, said) in made.items():
            assert said.format(name=name) in page


def test_feedback_of_an_undone_lab_says_so(course, lab):
    assert course.feedback("untouched", lab).count("not done yet") >= len(exercises(lab))


def test_feedback_shows_explorers_as_pictures(course, lab):
    page, graded = course.feedback_page("right", lab), course.graded("right", lab)
    drawn = [each for cell in graded.cells for each in cell.get("outputs", []) if "image/png" in each.get("data", {})]
    assert page.count('src="data:image/png') == len(drawn) > 0
    assert "widget-view" not in page


def test_what_is_printed_without_end_does_not_fill_the_disk(course, lab, student):
    assert sum(len(str(cell)) for cell in course.graded(student, lab).cells) < 5e6


def test_a_copied_cell_stops_nbgrader_and_not_with_our_line_in_its_configuration():
    """Where the first half fails, nbgrader has learnt it: then release_copies, and what says so, can go."""
    resources, path = {}, ROOT / "notebooks" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = copied(notebook)
    emptied, _ = DeduplicateIds().preprocess(copy.deepcopy(notebook), resources)
    with pytest.raises(SchemaTooOldError):
        CheckCellMetadata().preprocess(emptied, resources)
    ours, _ = release_copies(notebook, resources)
    CheckCellMetadata().preprocess(ours, resources)
    assert [grading(cell).grade_id for cell in ours.cells if grading(cell)] == ["storage_bytes", "check_storage_bytes"]


def test_the_instructor_is_told_the_settings():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    assert f"cat ../quantization-labs/{SETTINGS.relative_to(ROOT)} >> nbgrader_config.py" in page


def test_an_emptied_check_is_put_back(course, lab):
    checks = {cell.source for cell in course.graded("mistaken", lab).cells if grading(cell).get("locked")}
    assert checks == {f"check({name})" for name in exercises(lab)}
