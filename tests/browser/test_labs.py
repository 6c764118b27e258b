"""Every lab in Jupyter, in a real browser: opened, run, dragged, guessed at, done wrong and done right."""

import re
from pathlib import Path
from typing import ClassVar

import nbformat
import pytest

from tools.explorers import Explorer, explorers, widgets

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
UNDONE = "is not done yet"

# For each lab an exercise; a piece of its solution, and what a student may write in its place; and what the check says.
MISTAKES = {
    "00_start_here": ("storage_bytes", " + 7", "", "the last byte is lost"),
    "01_fundamentals": ("quantize_symmetric", "np.round", "np.floor", "floor instead of round"),
    "02_asymmetric": (
        "quantize_asymmetric", "min(x.min(), 0), max(x.max(), 0)", "x.min(), x.max()", "the range leaves 0 out",
    ),
    "03_per_channel": (
        "quantize_per_channel", "tuple(i for i in range(x.ndim) if i != axis % x.ndim)", "axis",
        "the axis is reduced, and should be kept",
    ),
    "04_group_int4": ("quantize_group", "[..., :length]", "", "the codes keep the padding"),
    "05_quantized_linear": (
        "quantized_matmul", "np.matmul(a_q, b_q, dtype=np.int32)", "np.matmul(a_q, b_q)", "accumulates in int8",
    ),
    "06_full_model": ("quantize_model", "copy.deepcopy(model)", "model", "quantizes the model in place"),
    "07_calibration": ("percentile_range", "np.abs(x)", "x", "the percentile of x instead of |x|"),
    "08_outliers": ("smooth_scales", "weight_max ** (1 - alpha)", "weight_max", "the weights without their exponent"),
    "09_gptq_and_awq": ("gptq_quantize", " / u[j, j]", "", "the error is not divided by the diagonal entry"),
    "10_training": ("fake_quantize_ste", ".detach()", "", "the gradient of round"),
    "11_grids": ("round_to_grid", "code + 1, code", "code, code", "ties towards zero"),
    "12_language_model": ("perplexity", "logits[:-1], tokens[1:]", "logits, tokens", "labels not shifted"),
    "13_ship_it": (
        "q4_0_blocks", "codes[..., :16] | codes[..., 16:]", "codes[..., ::2] | codes[..., 1::2]",
        "nibbles of neighbours",
    ),
}  # fmt: skip


class TestStudent:
    """In this order: nothing is done, one exercise is done wrong, then right, then all are."""

    APPLICATION = "lab"
    LABS: ClassVar = NOTEBOOKS

    def test_every_cell_runs_and_none_fails(self, lab):
        assert all(cell["count"] for cell in lab.cells())
        assert [output for cell in lab.cells() for output in cell["outputs"] if is_error(output)] == []

    def test_every_check_says_not_done_yet(self, lab):
        assert all("not done yet" in str(cell["outputs"]) for cell in checks(lab).values())
        assert "uses the reference" in str([cell["outputs"] for cell in lab.cells()])

    def test_a_prediction_hides_its_answer_until_there_is_a_guess(self, lab):
        for index, data in widgets(lab):
            if "image/png" in data:
                continue
            assert next(cell for cell in lab.cells() if cell["index"] == index)["folded"]
            answer = re.search(r"\(answer: (.+)\)", data["text/plain"])[1]
            area = lab.output(index)
            entry = area.locator("input[type=text]")
            for guess, reply, reveals in (("many", "'many' is not a number", False), ("-1", "The answer is", True)):
                entry.fill(guess)
                entry.press("Enter")
                lab.settle()
                told = area.inner_text()
                assert reply in told
                assert (f"The answer is {answer}: " in told) == reveals

    def test_sliders_over_an_undone_function_say_so_and_live_on(self, lab):
        for explorer in explorers(lab):
            if UNDONE in explorer.readout():
                explorer.controls()[0].drag(upwards=True)
                assert UNDONE in explorer.readout()

    def test_a_wrong_answer_is_told_its_mistake_and_no_traceback(self, lab):
        assert lab.source.stem in MISTAKES, "a lab needs an entry among MISTAKES"
        name, right, wrong, mistake = MISTAKES[lab.source.stem]
        source = solution_of(lab.source, name)
        assert right in source
        write(lab, name, source.replace(right, wrong))
        told = checked(lab, name)
        assert f"It looks like this: {mistake}" in told
        assert "Traceback" not in told
        for explorer in explorers_of(lab, name):
            assert f"{name} {UNDONE}" not in explorer.readout()

    def test_the_right_answer_passes_and_the_sliders_run_it(self, lab):
        name, *_ = MISTAKES[lab.source.stem]
        write(lab, name, solution_of(lab.source, name))
        assert re.search(r"all \d+ cases pass", checked(lab, name))
        for explorer in explorers_of(lab, name):
            start, control = seen(explorer), explorer.controls()[0]
            control.drag(not control.is_high())
            assert differ(start, seen(explorer)) or UNDONE in explorer.readout(), "another function may be left to do"

    def test_once_all_is_done_every_check_passes_and_no_slider_waits_for_a_function(self, lab):
        for name in checks(lab):
            write(lab, name, solution_of(lab.source, name))
        for name in checks(lab):
            assert re.search(r"all \d+ cases pass", checked(lab, name)), name
        for index, _ in widgets(lab):
            if UNDONE in lab.output(index).inner_text():
                lab.run(index)
        assert not any(UNDONE in explorer.readout() for explorer in explorers(lab))

    def test_mouse_and_keyboard_move_picture_and_readout(self, lab):
        """Every control: dragged fast from end to end, then by keys back and again to the end."""
        moved = 0
        for explorer in explorers(lab):
            for control in explorer.controls():
                start, up = seen(explorer), not control.is_high()
                control.drag(up)
                at_the_end = seen(explorer)
                assert control.position() in control.ends(), control.label()
                assert differ(start, at_the_end), control.label()
                control.step(not up)
                assert differ(at_the_end, seen(explorer)), control.label()
                control.step(up)
                assert seen(explorer) == at_the_end, control.label()
                moved += 1
        assert moved


class TestNotebook7(TestStudent):
    APPLICATION = "notebook"
    LABS: ClassVar = NOTEBOOKS[:1]


def seen(explorer):
    return explorer.readout(), explorer.picture()


def differ(before, after):
    """Whether both the readout and the picture are others now."""
    return all(a != b for a, b in zip(before, after))


def is_error(output):
    return output["output_type"] == "error" or output.get("name") == "stderr"


def solution_of(path, name):
    """The course's own answer, as it is in the solution's notebook."""
    cells = nbformat.read(ROOT / "solutions" / path.name, as_version=4).cells
    source = next(cell.source for cell in cells if re.search(rf"^(def|class) {name}\b", cell.source, re.MULTILINE))
    return re.sub(r" *### (BEGIN|END) SOLUTION\n?", "", source)


def checks(lab):
    """name of an exercise -> the cell that checks it"""
    found = {cell["source"][len("check(") : -1]: cell for cell in lab.cells() if cell["source"].startswith("check(")}
    assert found
    return found


def write(lab, name, source):
    """Give the exercise `name` this source, and run its cell."""
    piece = f"class {name}(" if name[0].isupper() else f"def {name}("
    lab.write(piece, source)
    lab.run(piece)


def checked(lab, name):
    """Run the check of an exercise; return what it shows."""
    lab.run(f"check({name})")
    return lab.output(f"check({name})").inner_text()


def explorers_of(lab, name):
    """The explorers that are handed the function `name`, made anew."""
    for cell in lab.cells():
        if "explore_" in cell["source"] and name in cell["source"]:
            lab.run(cell["source"])
            yield Explorer(lab, lab.output(cell["index"]))
