"""Lab 03 in JupyterLab, in a real browser: buttons beside sliders, and a learner's function under both."""

import pytest

OWN = "explore_granularity(square, quantize=quantize_per_channel)"
REDUCED = """
def quantize_per_channel(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=axis) / (2 ** (num_bits - 1) - 1)
    return np.round(x / scales).astype(np.int8), scales
"""

pytestmark = pytest.mark.browser
NOTEBOOK = "03_per_channel.ipynb"


def test_a_button_pressed_by_mouse_or_keyboard_changes_picture_and_readout(lab):
    area = lab.output("explorer = explore_granularity(square)")
    readout = area.locator("[role=status]").last
    assert "1\n" in readout.inner_text().split("scales\n")[1]
    for press in (lambda button: button.click(), lambda button: button.press("Enter")):
        before = lab.picture(area)
        press(area.locator("button", has_text="axis 0"))
        lab.wait_for_another_picture(area, before)
        area.get_by_text("64", exact=True).wait_for(timeout=10_000)  # scales
        area.locator("button", has_text="tensor").click()
        area.get_by_text("2.05 kB").wait_for(timeout=10_000)


def test_the_reduced_axis_is_recognised(lab):
    lab.write("def quantize_per_channel", REDUCED)
    lab.run("def quantize_per_channel")
    lab.run("check(quantize_per_channel)")
    told = lab.output("check(quantize_per_channel)").inner_text()
    assert "It looks like this: the axis is reduced, and should be kept." in told
    assert "Traceback" not in told
    lab.run(OWN)
    assert "scales has shape (4096,)" in lab.output(OWN).inner_text()
