"""notebooks/ and solutions/ are what the lessons make of them, and no solution leaks."""

import ast
import json
import re
import subprocess
import symtable
import sys
from pathlib import Path

import nbformat
import pytest

from labutils.data import trained
from labutils.labs.catalogue import EXERCISES
from tools import build_course

ROOT = Path(__file__).resolve().parents[2]
LESSONS = build_course.lessons()
STEMS = [path.stem for path in LESSONS]


@pytest.fixture(params=LESSONS, ids=STEMS)
def lesson(request):
    return request.param


def student(lesson):
    return nbformat.read(ROOT / "notebooks" / f"{lesson.stem}.ipynb", as_version=4)


def solution(lesson):
    return nbformat.read(ROOT / "solutions" / f"{lesson.stem}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def without_magics(source):
    return re.sub(r"^(\s*)%.*$", r"\1pass", source, flags=re.MULTILINE)


def test_everything_is_in_step():
    assert build_course.find_stale(ROOT) == []


def test_what_is_stale_is_found(tmp_path):
    for kind in ("notebooks", "solutions"):
        (tmp_path / kind).mkdir()
        for stem in STEMS:
            (tmp_path / kind / f"{stem}.ipynb").write_bytes((ROOT / kind / f"{stem}.ipynb").read_bytes())
    assert build_course.find_stale(tmp_path) == []
    first, second = STEMS[:2]
    changed = (tmp_path / "notebooks" / f"{first}.ipynb").read_text(encoding="utf-8").replace("bytes", "byts", 1)
    (tmp_path / "notebooks" / f"{first}.ipynb").write_text(changed, encoding="utf-8")
    (tmp_path / "solutions" / f"{second}.ipynb").unlink()
    (tmp_path / "notebooks" / "99_left_over.ipynb").write_text("{}")
    stale = "\n".join(build_course.find_stale(tmp_path))
    assert f"notebooks/{first}.ipynb: differs" in stale
    assert f"solutions/{second}.ipynb: not built" in stale
    assert "notebooks/99_left_over.ipynb: no lesson" in stale


def test_building_again_gives_the_same_bytes(tmp_path):
    """By the command. That every lab's outputs are the same each time: solutions/conftest.py."""

    def built(folder):
        command = [sys.executable, "tools/build_course.py", STEMS[0], "--out", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
        return {file.relative_to(folder): file.read_bytes() for file in folder.glob("*/*")}

    once = built(tmp_path / "once")
    assert [file.stem for file in once] == [STEMS[0], STEMS[0]]
    if once != {file: (ROOT / file).read_bytes() for file in once}:  # on another machine: with its fonts, say
        assert once == built(tmp_path / "again")


def test_where_only_text_has_changed_the_outputs_stay_and_changed_code_is_refused():
    path = build_course.lessons()[1]
    solution = nbformat.read(ROOT / "solutions" / f"{path.stem}.ipynb", as_version=4)
    lesson = build_course.read(path)
    lesson.cells[0].source += " And more."
    kept = build_course.with_outputs_of(solution, lesson, path)
    assert kept.cells[0].source.endswith(" And more.")
    assert [cell.get("outputs") for cell in kept.cells] == [cell.get("outputs") for cell in solution.cells]
    lesson.cells[-1] = nbformat.v4.new_code_cell("1 + 1")
    with pytest.raises(SystemExit, match="code has changed"):
        build_course.with_outputs_of(solution, lesson, path)


@pytest.mark.parametrize("tag", trained.MODULES)
def test_a_solution_is_not_built_with_the_numbers_of_a_stand_in(tag, monkeypatch):
    monkeypatch.setattr(trained, "why_missing", lambda asked: "it is not here" if asked == tag else None)
    tagged = [path for path in LESSONS if f'"{tag}"' in path.read_text(encoding="utf-8")]
    for path in LESSONS:
        lesson = build_course.read(path)
        if path in tagged:
            with pytest.raises(SystemExit, match=f"need the trained {tag}: it is not here"):
                build_course.require_models(lesson, path)
        else:
            build_course.require_models(lesson, path)


def test_no_line_of_a_solution_is_in_the_students_notebook(lesson):
    text = lesson.read_text(encoding="utf-8")
    blocks = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", text, re.DOTALL)
    assert blocks
    sources = "\n".join(cell.source for cell in student(lesson).cells)
    outside = re.sub(r"### BEGIN SOLUTION\n.*?### END SOLUTION", "", text, flags=re.DOTALL)
    for line in "".join(blocks).splitlines():
        line = line.strip()
        if len(line) > 12 and line not in outside:
            assert line not in sources


def test_the_students_notebook_has_stubs_and_no_outputs(lesson):
    stubs = [cell for cell in code(student(lesson)) if "# YOUR CODE HERE" in cell.source]
    assert len(stubs) == sum(exercise.lab == lesson.stem for exercise in EXERCISES.values())
    for cell in stubs:
        assert "raise NotImplementedError()" in cell.source
    for cell in code(student(lesson)):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "SOLUTION" not in json.dumps(student(lesson))


def test_every_exercise_is_written_and_checked_in_its_lab(lesson):
    names = [name for name, exercise in EXERCISES.items() if exercise.lab == lesson.stem]
    defined = [cell.metadata.nbgrader.grade_id for cell in code(student(lesson)) if "# YOUR CODE HERE" in cell.source]
    checked = [c.metadata.nbgrader for c in code(student(lesson)) if c.metadata.get("nbgrader", {}).get("grade")]
    assert defined == names
    assert [cell.grade_id for cell in checked] == [f"check_{name}" for name in names]
    assert [cell.points for cell in checked] == [EXERCISES[name].points for name in names]
    assert all(cell.locked for cell in checked)


def test_only_the_learners_cell_gives_an_exercise_its_name(lesson):
    """Where the lab has it from elsewhere, too, a cell that is deleted or does not parse would pass its check."""
    names = {name for name, exercise in EXERCISES.items() if exercise.lab == lesson.stem}
    for cell in code(student(lesson)):
        if "# YOUR CODE HERE" not in cell.source:
            assert not given_by(cell) & names, cell.source


def test_stubs_fail_their_checks(lesson):
    names = {"__name__": "student"}
    if any(re.search(r"^class \w+\(nn\.Module\)", cell.source, re.MULTILINE) for cell in code(student(lesson))):
        names["nn"] = pytest.importorskip("torch").nn
    for cell in code(student(lesson)):
        if "# YOUR CODE HERE" in cell.source:
            scope = {}
            exec(cell.source, names, scope)
            (function,) = scope.values()
            from labutils import examine

            report = examine(function)
            assert report.undone and not report.passed


def test_a_solution_opened_without_a_kernel_shows_pictures_and_nothing_is_missing(lesson):
    for cell in code(solution(lesson)):
        assert "folded" not in cell.metadata
        for output in cell.outputs:
            data = output.get("data", {})
            assert build_course.WIDGET_VIEW not in data
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert not re.search(r"0x[0-9a-f]{6,}", str(data.get("text/plain", ""))), "an address"
            assert str(ROOT) not in json.dumps(output), "a path of the machine that built it"
    assert "widgets" not in solution(lesson).metadata


def test_in_a_solution_every_check_passes(lesson):
    checks = [cell for cell in code(solution(lesson)) if build_course.CHECK.fullmatch(cell.source)]
    assert checks and all(re.search(r"all \d+ cases pass", str(cell.outputs)) for cell in checks)
    assert "not done yet" not in str([cell.outputs for cell in code(solution(lesson))])


def test_what_may_be_undone_is_called_by_nothing_but_its_check_a_slider_or_a_function(lesson):
    """Cells take `or_reference` of it: else a notebook would not run to its end, perhaps only where MiniLM is."""
    names = {name for name, exercise in EXERCISES.items() if exercise.lab == lesson.stem}
    for cell in code(student(lesson)):
        if "# YOUR CODE HERE" not in cell.source:
            tree = ast.parse(without_magics(cell.source))
            may = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) or is_lent(node)]
            allowed = {inner for node in may for inner in ast.walk(node)}
            used = {node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names}
            assert used <= allowed, cell.source


def is_lent(node):
    """Whether a call hands its arguments to what says "not done yet" of them, and goes on."""
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return called in ("check", "or_reference") or called.startswith("explore_")


def test_cell_ids_are_unique_and_stable_under_insertion(lesson):
    ids = [cell.id for cell in student(lesson).cells]
    assert len(set(ids)) == len(ids)
    assert ids == [cell.id for cell in solution(lesson).cells]


def test_lesson_names_of_exercises_are_the_labs():
    assert {exercise.lab for exercise in EXERCISES.values()} <= set(STEMS)


def test_cells_that_draw_are_folded_with_a_title_and_what_is_seen_needs_none_of_their_names(lesson):
    cells = code(student(lesson))
    drawings = [cell for cell in cells if cell.source.startswith("# @title Picture: ")]
    assert drawings == [cell for cell in cells if re.search(r"\bPicture\(|course\.(figures|palette) ", cell.source)]
    given = {name for cell in drawings for name in given_by(cell)}
    given -= {name for cell in cells if cell not in drawings for name in given_by(cell)}
    needed = {name for cell in cells if not folded(cell) for name in needed_by(symbols(cell))}
    assert not given & needed


def symbols(cell):
    return symtable.symtable(without_magics(cell.source), "cell", "exec")


def given_by(cell):
    return {symbol.get_name() for symbol in symbols(cell).get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def needed_by(table):
    """Names of the notebook that a cell's symbols, or those of a function in it, refer to."""
    own = {
        s.get_name()
        for s in table.get_symbols()
        if s.is_referenced() and (s.is_global() or table.get_type() == "module")
    }
    return own.union(*map(needed_by, table.get_children()))


def folded(cell):
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def test_what_has_a_title_is_folded_wherever_a_notebook_is_opened(lesson):
    """In JupyterLab and Notebook, in Colab, and on the site."""
    for cell in code(student(lesson)):
        titled = cell.source.startswith("# @title ")
        assert folded(cell) == (cell.metadata.get("cellView") == "form") == titled
        assert ("hide-input" in cell.metadata.get("tags", [])) == titled


def test_say_why_asks_and_folds_the_answer_and_a_lab_ends_in_practice(lesson):
    text = "\n\n".join(cell.source for cell in student(lesson).cells if cell.cell_type == "markdown")
    asked = re.findall(r"\*\*Say why\b.*(?:\n.+)*\n\n<details><summary>[^<]+\?</summary>", text)
    assert len(asked) == text.count("**Say why") > 0
    assert ("\n## In practice\n" in text) == (lesson != LESSONS[0])


def test_code_fits_a_notebook_column(lesson):
    for cell in code(student(lesson)):
        if not folded(cell):
            for line in cell.source.splitlines():
                assert len(line) <= 100, line


def test_code_parses_once_magics_are_gone(lesson):
    for cell in code(student(lesson)):
        ast.parse(without_magics(cell.source))


def test_every_exercise_has_graded_hints_that_hold_no_code(lesson):
    text = "\n".join(cell.source for cell in student(lesson).cells if cell.cell_type == "markdown")
    hints = re.findall(r"<summary>Hint (\d): (.*?)</summary>(.*?)</details>", text, re.DOTALL)
    exercises = sum(exercise.lab == lesson.stem for exercise in EXERCISES.values())
    assert [number for number, _, _ in hints].count("1") == exercises
    for _, _, body in hints:
        assert "return " not in body
        assert "```" not in body


def test_links_between_labs_lead_somewhere(lesson):
    text = "\n".join(cell.source for cell in student(lesson).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", text):
        assert (ROOT / "notebooks" / target).exists()
    assert f"notebooks/{lesson.stem}.ipynb)" in text, "the Colab badge"


def test_every_picture_has_a_text(lesson):
    for cell in code(solution(lesson)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.data["text/plain"]) > 20
                assert "<Figure" not in output.data["text/plain"]


def test_the_readme_lists_every_lab_with_a_link(lesson):
    title = build_course.heading(lesson).replace(" · ", " ").split(":")[0]
    assert f"[{title}](notebooks/{lesson.stem}.ipynb)" in (ROOT / "README.md").read_text(encoding="utf-8")
