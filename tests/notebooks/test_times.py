"""What a lab says it takes follows from what is in it, and the README says the same."""

import re
from pathlib import Path

import nbformat
import pytest

from labutils.labs.catalogue import EXERCISES
from tools import build_course

ROOT = Path(__file__).resolve().parents[2]
STEMS = [path.stem for path in build_course.lessons()]

# Minutes. Folded hints are not counted, folded answers to interview questions are.
WORD = 1 / 150  # text with formulas, of a language that is not everybody's first
CODE_CELL = 0.5  # to run it, and to look at what it printed or drew
EXPLORER = 3  # a guess, a drag, a thought
TOLERANCE = 5  # times are stated in fives: half of that is rounding, the rest lets a paragraph come or go

CELL, SLIDERS = "\N{BLACK SQUARE}", "\N{BLACK DIAMOND}"  # what stands for a code cell and an explorer in the text
HEADING = re.compile(r"^### Exercise.*", re.M)
EXERCISE = re.compile(r"^### Exercise[^(]*\((\d+) minutes, (?:●○○|●●○|●●●)\)$", re.M)
EXPLORE = re.compile(r"\bexplore_\w+\(")


def lab(stem):
    """(core, stretch): a student's notebook as two texts, in which signs stand for code."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    pieces = [
        cell.source if cell.cell_type == "markdown" else CELL + SLIDERS * len(EXPLORE.findall(cell.source))
        for cell in notebook.cells
    ]
    sections = re.split(r"^(?=## )", "\n".join(pieces), flags=re.M)
    stretch = [section for section in sections if section.startswith("## Stretch")]
    return "".join(section for section in sections if section not in stretch), "".join(stretch)


def minutes(text):
    """What reading and doing takes."""
    exercises = sum(int(stated) for stated in EXERCISE.findall(text))
    without_hints = re.sub(r"<details><summary>Hint.*?</details>", "", text, flags=re.S)
    words = len(re.findall(r"\w+", re.sub(r"\$\$.*?\$\$|<[^>]*>|\]\([^)]*\)", " ", without_hints, flags=re.S)))
    return words * WORD + text.count(CELL) * CODE_CELL + text.count(SLIDERS) * EXPLORER + exercises


def stated(stem):
    """(core, stretch) in minutes, from the lab's first lines."""
    core, _ = lab(stem)
    time = re.search(r"^\*\*Time:\*\* (\d+) minutes(?:; stretch: (\d+) more)?\. ", core, flags=re.M)
    assert time, "a lab begins with its time: '**Time:** 60 minutes; stretch: 10 more.'"
    return int(time[1]), int(time[2] or 0)


@pytest.mark.parametrize("stem", STEMS)
def test_the_stated_time_is_what_reading_doing_and_dragging_take(stem):
    for text, promised in zip(lab(stem), stated(stem), strict=True):
        assert abs(minutes(text) - promised) <= TOLERANCE, f"{minutes(text):.0f} minutes, stated {promised}"


@pytest.mark.parametrize("stem", STEMS)
def test_every_exercise_says_how_long_and_how_hard(stem):
    text = "".join(lab(stem))
    assert len(EXERCISE.findall(text)) == len(HEADING.findall(text)) > 0


@pytest.mark.parametrize("stem", STEMS)
def test_the_readme_states_the_labs_time(stem):
    row = next(
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if f"{stem}.ipynb" in line
    )
    assert row.endswith(f"| {stated(stem)[0]} min |")


COURSE = [line.split(" | ") for line in (ROOT / "docs" / "course.md").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", build_course.lessons(), ids=lambda path: path.stem)
def test_the_plan_of_a_course_states_each_labs_minutes_and_points(path):
    row = next(row for row in COURSE if row[0] == f"| {build_course.heading(path)}")
    exercises = [exercise for exercise in EXERCISES.values() if exercise.lab == path.stem]
    points = [sum(e.points for e in exercises if e.stretch == stretch) for stretch in (False, True)]
    assert row[2:] == ["{} + {}".format(*stated(path.stem)), "{} + {} |".format(*points)]


@pytest.mark.parametrize("plan", ["an afternoon", "two days", "six weeks, two labs a week"])
def test_a_plan_states_the_minutes_of_its_labs(plan):
    _, labs, total = next(row for row in COURSE if row[0] == f"| {plan}")
    core = {stem[:2]: stated(stem)[0] for stem in STEMS}
    assert sum(core[lab] for lab in re.findall(r"\d\d", labs)) == sum(map(int, re.findall(r"\d+", total)))


def test_the_model_counts_words_cells_explorers_and_exercises():
    words = "word " * 300
    assert minutes(words) == pytest.approx(2)
    assert minutes(words + CELL + SLIDERS) == pytest.approx(2 + CODE_CELL + EXPLORER)
    assert minutes("### Exercise 1: `f` (12 minutes, ●●○)\n") == pytest.approx(12 + 5 * WORD)
    assert minutes("<details><summary>Hint 1</summary>\n\nMany words.\n\n</details>") == 0
