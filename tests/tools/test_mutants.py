"""Small changes of a solution: which they are, and that a check with too few cases lets some pass."""

import ast
from dataclasses import replace

import pytest

from labutils.course.exercise import Wrong
from labutils.labs.catalogue import EXERCISES
from tools import mutants

STORAGE = EXERCISES["storage_bytes"]
RIGHT = "return (num_values * num_bits + 7) // 8"


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x / 2", ["x", "2", "x * 2", "x // 2", "x / 3", "x / 1"]),
        ("x.max(axis=0)", ["pass", "x.min(axis=0)", "x.max()", "x", "x.max(axis=1)", "x.max(axis=-1)"]),
        ("np.clip(x, low)", ["pass", "np.clip(low)", "np.clip(x)", "np.clip(low, x)", "x", "np"]),
        ("a < 0.5 and b", ["a < 0.5 or b", "a < 0.5", "b", "a <= 0.5 and b", "a > 0.5 and b", "a < 1.0 and b",
                           "a < 0.0 and b"]),
        ("q = x[1:]", ["pass", "q = x[:]", "q = x[2:]", "q = x[0:]"]),
    ],
)  # fmt: skip
def test_one_thing_is_changed_at_a_time(source, changed):
    assert sorted(mutants.mutants(ast.parse(source))) == sorted(changed)


def test_a_solution_is_given_what_cells_before_it_define():
    _, scope = mutants.solution(EXERCISES["nvfp4_quantize"])
    assert scope["rounded"].__name__ == "round_to_grid"
    assert len(scope["E4M3_LEVELS"]) > len(scope["E2M1_LEVELS"])


def test_what_a_missing_case_would_show_passes_without_it():
    assert mutants.tried(STORAGE) == (13, [])
    without_odd_sizes = replace(STORAGE, cases=lambda: [case for case in STORAGE.cases() if case.args[1] % 4 == 0])
    _, accepted = mutants.tried(without_odd_sizes)
    assert f"- {RIGHT}\n  + return num_values * num_bits // 8" in accepted


def test_a_solution_that_fails_is_no_measure():
    def refuse(answer, case):
        raise Wrong("no")

    with pytest.raises(ValueError, match="storage_bytes: its own solution does not pass"):
        mutants.tried(replace(STORAGE, judge=refuse))


def test_what_passes_is_printed(capsys):
    mutants.main(["storage_bytes"])
    assert capsys.readouterr().out == "storage_bytes: 13 of 13 changes refused\n"
    with pytest.raises(SystemExit):
        mutants.main(["quantize_everything"])
    assert "no exercise, and no lab, is called quantize_everything" in capsys.readouterr().err
