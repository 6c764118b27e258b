"""Lab 01 in JupyterLab, in a real browser, as a student meets it."""

import pytest

pytestmark = pytest.mark.browser
NOTEBOOK = "01_fundamentals.ipynb"

WRONG = """
def quantize_symmetric(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
    return np.floor(x / scale).astype(np.int8), scale
"""
RIGHT = """
def quantize_symmetric(x, num_bits=8):
    largest, quant_max = np.abs(x).max(), 2 ** (num_bits - 1) - 1
    scale = largest / quant_max if largest else 1.0
    return np.round(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale
"""
OWN = "explore_bits(weights, quantize=quantize_symmetric)"


def test_dragging_with_the_mouse_changes_picture_and_readout(lab):
    area = lab.output("explorer")
    handle = area.locator(".noUi-handle").first
    readout = area.locator("[role=status]").last
    before, text = lab.picture(area), readout.inner_text()
    box = handle.bounding_box()
    lab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] + 120, box["y"] + box["height"] / 2, steps=8)
    lab.page.mouse.up()
    lab.wait_for_another_picture(area, before)
    lab.page.wait_for_timeout(500)
    after = readout.inner_text()
    assert after != text
    bits = int(after.splitlines()[1])
    assert bits > 4
    assert f"of {2**bits - 1}" in after


def test_dragging_with_the_keyboard_changes_picture_and_readout(lab):
    area = lab.output("explorer")
    handle = area.locator(".noUi-handle").first
    readout = area.locator("[role=status]").last
    bits, before = int(readout.inner_text().splitlines()[1]), lab.picture(area)
    handle.focus()
    lab.page.keyboard.press("ArrowLeft")
    lab.wait_for_another_picture(area, before)
    lab.page.wait_for_timeout(300)
    assert int(readout.inner_text().splitlines()[1]) == bits - 1


def test_a_wrong_answer_is_told_its_mistake_and_a_right_one_is_praised(lab):
    assert "not done yet" in lab.output("check(quantize_symmetric)").inner_text()
    assert "is not done yet" in lab.output(OWN).inner_text()

    lab.write("def quantize_symmetric", WRONG)
    lab.run("def quantize_symmetric")
    lab.run("check(quantize_symmetric)")
    told = lab.output("check(quantize_symmetric)").inner_text()
    assert "It looks like this: floor instead of round." in told
    assert "Traceback" not in told

    lab.write("def quantize_symmetric", RIGHT)
    lab.run("def quantize_symmetric")
    lab.run("check(quantize_symmetric)")
    assert "all 16 cases pass" in lab.output("check(quantize_symmetric)").inner_text()


def test_the_sliders_then_run_the_students_function(lab):
    lab.run(OWN)
    area = lab.output(OWN)
    assert "not done yet" not in area.inner_text()
    before = lab.picture(area)
    area.locator(".noUi-handle").first.focus()
    lab.page.keyboard.press("ArrowRight")
    lab.wait_for_another_picture(area, before)


def test_a_prediction_hides_its_answer_until_there_is_a_guess(lab):
    area = lab.output("for one bit?")
    assert "6.02" not in area.inner_text()
    entry = area.locator("input[type=text]").first
    entry.fill("3")
    entry.press("Enter")
    area.get_by_text("The answer is 6.021 dB: you were 3.021 dB below.").wait_for(timeout=10_000)
