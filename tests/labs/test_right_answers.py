"""Every exercise has at least five right answers in tests/labs/labNN/test_<exercise>.py, where they are run."""

import runpy
from collections import defaultdict
from pathlib import Path

import pytest

from labutils.labs.catalogue import EXERCISES
from tests.labs.right_answers import passes

FILES = [file for file in sorted(Path(__file__).parent.glob("lab*/test_*.py")) if "\nRIGHT = " in file.read_text()]
RIGHT, UNTESTED = defaultdict(list), []
for file in FILES:
    right = runpy.run_path(str(file))["RIGHT"]
    if isinstance(right, list):
        RIGHT[file.stem.removeprefix("test_")] += right
    else:  # a lab's test_right_answers.py: exercises that have no file of their own yet, by name
        for name, answers in right.items():
            RIGHT[name] += answers
            UNTESTED += [(name, answer) for answer in answers]


@pytest.mark.parametrize(("name", "answer"), UNTESTED)
def test_a_right_answer_passes(name, answer):
    passes(name, answer)


def test_every_exercise_has_at_least_five_right_answers():
    assert {name: len(answers) for name, answers in RIGHT.items() if len(answers) < 5} == {}
    assert RIGHT.keys() == EXERCISES.keys()
