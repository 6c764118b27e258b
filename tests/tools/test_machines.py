"""A number that another processor prints otherwise is found, and so is one that only luck keeps the same."""

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labutils.data import trained
from tools import machines
from tools.machines import Run, by_luck, differences, distance


@given(st.floats(-1e6, 1e6), st.sampled_from([".0f", ".2f", ".3g", ".1%", ".2e", ">8.3f"]))
def test_nothing_nearer_than_the_boundary_is_printed_otherwise(value, spec):
    away = distance(value, spec) * (1 - 1e-6)
    step = abs(value) * 1e-12  # float noise of the boundary itself
    if away > 10 * step and abs(value) > 1e-3:
        assert len({format(other, spec) for other in (value, value - away + step, value + away - step)}) == 1


@pytest.mark.parametrize(
    ("value", "spec", "away"),
    [(0.1249, ".2f", 0.0001), (0.1249, ".1%", 0.0004), (1234.0, ".2g", 16), (99.5, ".0f", 0), (-2.4, ".0f", 0.1)],
)
def test_distances_by_hand(value, spec, away):
    assert distance(value, spec) == pytest.approx(away, abs=1e-9)


def test_a_number_at_a_boundary_is_reported_although_it_is_printed_the_same():
    near = {
        "stored": Run({0: "1.00"}, printed={0: "1.00"}),
        "a": Run({0: "1.00"}, [(0, 0.9951, ".2f")]),
        "b": Run({0: ""}, [(0, 0.9953, ".2f")]),
    }
    assert "boundary" in next(by_luck(near))
    far = near | {"a": Run({}, [(0, 0.9971, ".2f")]), "b": Run({}, [(0, 0.9973, ".2f")])}
    assert list(by_luck(far)) == []


def test_a_cell_that_is_not_compared_may_vary():
    runs = {"stored": Run({}), "a": Run({}, [(0, 0.9951, ".2f")]), "b": Run({}, [(0, 0.9953, ".2f")])}
    assert list(by_luck(runs)) == []
    ignored = new_code_cell("1", metadata={"tags": ["nbval-ignore-output"]}, outputs=[new_output("stream", text="7")])
    assert machines.texts_of(new_notebook(cells=[ignored])) == {}


def test_a_label_in_a_picture_may_vary(tmp_path):
    bars = new_output("display_data", data={"text/plain": "Bars, 0.99 and 1", "image/png": ""})
    nbformat.write(new_notebook(cells=[new_code_cell("draw()", outputs=[bars])]), tmp_path / "picture.ipynb")
    stored = machines.stored(tmp_path / "picture.ipynb")
    assert stored.texts == {0: "Bars, 0.99 and 1"}
    runs = {"stored": stored, "a": Run({}, [(0, 0.9951, ".2f")]), "b": Run({}, [(0, 0.9949, ".2f")])}
    assert list(by_luck(runs)) == []


def test_what_another_machine_prints_is_shown_beside_what_is_stored():
    runs = {"stored": Run({3: "same\ncosine 1.000"}), "AVX2/1": Run({3: "same\ncosine 0.999"})}
    assert list(differences(runs)) == ["cell 3, on AVX2/1: 'cosine 1.000' is 'cosine 0.999'"]


def test_the_table_says_where_it_held():
    low, high = [(4, 0.9951, ".2f")], [(4, 0.9953, ".2f")]
    everything = {
        "05_a": {"stored": Run({3: "1", 4: "1.00"}), "AVX2/1": Run({3: "1", 4: "1.00"}, low), "AMX/2": Run({3: "2"})},
        "06_b": {
            "stored": Run({4: "1.00"}, printed={4: "1.00"}),
            "AVX2/1": Run({4: "1.00"}, low),
            "VNNI/1": Run({4: "1.00"}, high),
        },
    }
    assert machines.table(everything, ["AVX2/1", "AMX/2"]).splitlines() == [
        "| machine | 05 | 06 |",
        "| --- | --- | --- |",
        "| AVX2/1 | held | held |",
        "| AMX/2 | 3, 4 |  |",
        "| at a boundary | none | 4 |",
    ]


def test_a_machine_is_what_its_variables_say(tmp_path):
    """The kernel gets them; and what f-strings print is recorded before it is rounded."""
    cells = [
        new_code_cell("import os\nprint(os.environ['ONEDNN_MAX_CPU_ISA'], os.environ['OMP_NUM_THREADS'])"),
        new_code_cell("value = 2 / 3\nprint(f'{value:.2f} {7:>3} {value!r:.3}')"),
    ]
    path = tmp_path / "99_machine.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    run = machines.run(path, "AVX2/2")
    assert run.texts == {0: "AVX2 2\n", 1: "0.67   7 0.6\n"}
    assert run.numbers == [(1, 2 / 3, ".2f")]


@pytest.mark.slow
def test_a_solution_prints_the_same_on_another_processor():
    """One lab, and a processor without AVX-512; `make machines` takes all labs to fourteen machines."""
    path = machines.ROOT / "solutions" / "05_quantized_linear.ipynb"
    notebook = nbformat.read(path, as_version=4)
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    for model in tags & trained.MODULES.keys():
        if missing := trained.why_missing(model):
            pytest.skip(missing)
    assert list(differences({"stored": machines.stored(path), "AVX2/1": machines.run(path, "AVX2/1")})) == []
