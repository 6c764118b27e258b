"""A solution executed for the site: its explorers are HTML, their states a file, and the rest is as it was."""

import copy

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.site.recorded_labs import loaded
from tools.build_course import KERNEL
from tools.site import execution

STEM = "00_start_here"
LIMIT = "from labutils.course.explorer import TIME_LIMIT\nprint(TIME_LIMIT)"


@pytest.fixture(scope="module")
def lesson():
    shows = "from labutils import explore_digit, predict\nprint('now')\nexplore_digit(7)"
    asks = "print('now')\npredict('How many codes?', 16)"
    cells = [new_code_cell(source, id=f"cell-{place}") for place, source in enumerate((shows, shows, LIMIT, asks))]
    cells[1].metadata.tags = [execution.VARIES, "other"]
    cells[3].metadata.tags = [execution.VARIES]
    return new_notebook(metadata=KERNEL, cells=cells)


@pytest.fixture(scope="module")
def ran(lesson, tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "read", lambda path: copy.deepcopy(lesson))
        return execution.site_notebook(STEM, folder, seconds=0), folder


def test_cells_are_the_lessons(ran, lesson):
    notebook, _ = ran
    assert [(cell.id, cell.source) for cell in notebook.cells] == [(cell.id, cell.source) for cell in lesson.cells]
    assert set(notebook.cells[1].metadata.tags) == {execution.VARIES, "other"}


def test_explorers_are_html_and_the_rest_is_as_it_was(ran):
    notebook, _ = ran
    printed, shown = notebook.cells[0].outputs
    assert printed.text == "now\n"
    assert set(shown.data) == {"text/html", "text/plain"}
    assert notebook.cells[2].outputs[0].text == "60.0\n", "on a busy machine a right answer is slow"


def test_of_a_cell_that_varies_only_explorers_and_questions_are_kept(ran):
    notebook, _ = ran
    (shown,) = notebook.cells[1].outputs
    (asked,) = notebook.cells[3].outputs
    assert 'data-explorer="00-2"' in shown.data["text/html"]
    assert asked.data["text/plain"] == "Predict: How many codes? (answer: 16)"


def test_the_states_of_all_are_in_one_file(ran):
    _, folder = ran
    assert [path.name for path in folder.iterdir()] == ["00_states.js"]
    explorers = loaded((folder / "00_states.js").read_text())["explorers"]
    assert {name: len(explorer["states"]) for name, explorer in explorers.items()} == {"00-1": 7, "00-2": 7}
