"""Everything that the course shows, looked at by axe, in a light and a dark theme, and in a narrow window; and what its
solutions store, looked at before a kernel has run them.
"""

from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labutils.labs import catalogue
from tools.browser import jupyter_in_browser
from tools.build_course import KERNEL

pytestmark = pytest.mark.browser

PREPARED = """
import numpy as np
from labutils import *
from labutils import data
from labutils.course import doctor
from labutils.data.stand_in import untrained_language_model
from labutils import *

small = untrained_language_model()

w = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

def quantize_symmetric(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
    print("scale", scale)
    return np.floor(x / scale).astype(np.int8), scale
"""
EXPLORERS = {
    "explore_sentence": "explore_sentence()",
    "explore_digit": "explore_digit(7)",
    "explore_bits": "explore_bits(w)",
    "explore_clipping": "explore_clipping(w)",
    "explore_zero_point": "explore_zero_point(w)",
    "explore_granularity": "explore_granularity(w)",
    "explore_groups": "explore_groups(w)",
    "explore_linear": "explore_linear(256, 256)",
    "explore_model": "explore_model(data.digits_model())",
    "explore_calibration": "explore_calibration(w)",
    "explore_smoothing": "explore_smoothing(w, w)",
    "explore_gptq": "explore_gptq(w, w.T @ w)",
    "explore_training": "explore_training(bits=(2,), epochs=1)",
    "explore_grids": "explore_grids(w)",
    "explore_text": "explore_text(small)",
    "explore_cache": "explore_cache(small)",
    "explore_block": "explore_block(w)",
}
PANELS = {
    "a wrong answer": "check(quantize_symmetric)",
    "the reference steps in": "_ = or_reference(quantize_symmetric)",
    "a broken function under a slider": "explore_bits(w, quantize=lambda x, num_bits: None)",
    "a prediction": "predict('How many codes has a 4-bit grid?', 16)",
    "progress": "board()",
    "the doctor": "doctor.diagnose()",
}
SHOWN = EXPLORERS | PANELS
# What ipywidgets draws and gives no place to name. Beside each handle stands its label, and the readout, which is read
# out at each change, says the control's new value in words.
NOT_OURS = {"aria-input-field-name": "noUi-handle", "svg-img-alt": 'viewBox="0 0 48 48"'}
THEMES = ("JupyterLab Light", "JupyterLab Dark")
SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
NARROW = 520  # pixels: half a small laptop's screen


@pytest.fixture(scope="module")
def jupyter(chromium):
    with jupyter_in_browser() as jupyter:
        yield jupyter


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory, jupyter):
    cells = [new_code_cell(source) for source in SHOWN.values()]
    for cell in cells:
        cell.metadata["tags"] = ["raises-exception"]
    notebook = new_notebook(metadata=KERNEL)
    notebook.cells = [new_markdown_cell("# Everything"), new_code_cell(PREPARED), *cells]
    path = tmp_path_factory.mktemp("looks") / "everything.ipynb"
    nbformat.write(notebook, path)
    with jupyter.open(path) as opened:
        # JupyterLab's body has no height of its own, which axe takes for a page on which nothing is seen.
        opened.page.add_style_tag(content="body { min-height: 100vh; min-width: 100vw; }")
        opened.run_all()
        opened.output(cells[-1].source).get_by_text("digits network").wait_for(timeout=120_000)
        yield opened


@pytest.fixture(params=THEMES, scope="module")
def themed(page_of_all, request):
    page_of_all.page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", request.param
    )
    page_of_all.page.locator(f"body[data-jp-theme-name='{request.param}']").wait_for(state="attached")
    page_of_all.page.wait_for_timeout(500)  # the style sheet follows the name
    return page_of_all


def test_before_they_are_run_solutions_show_the_pictures_that_they_store(jupyter, tmp_path):
    """All of them in one notebook, as each is stored: to open each takes longer, and shows no more."""
    notebooks = [nbformat.read(path, as_version=4) for path in sorted(SOLUTIONS.glob("*.ipynb"))]
    stored = [[cell for cell in notebook.cells if "image/png" in str(cell.get("outputs"))] for notebook in notebooks]
    assert all(stored)
    path = tmp_path / "pictures.ipynb"
    nbformat.write(new_notebook(metadata=KERNEL, cells=[cell for cells in stored for cell in cells]), path)
    with jupyter.open(path) as opened:
        for cell in opened.cells():
            image = opened.output(cell["index"]).locator("img").first
            assert image.evaluate("async (image) => {await image.decode(); return image.naturalWidth}") > 600


def test_every_explorer_is_looked_at():
    assert set(EXPLORERS) == set(catalogue.EXPLORERS)


@pytest.mark.parametrize("shown", SHOWN)
def test_axe_finds_nothing(themed, shown):
    """Names for pictures, fields and buttons; contrast of text; roles that exist: axe's rules, WCAG 2.1 among them."""
    themed.output(SHOWN[shown])
    cell = f".jp-Cell[data-windowed-list-index='{themed.index_of(SHOWN[shown])}']"
    looked = Axe().run(themed.page, context=f"{cell} .jp-OutputArea").response
    assert {"color-contrast"} <= {rule["id"] for rule in looked["passes"]}
    found = [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in looked["violations"]
        for node in rule["nodes"]
        if NOT_OURS.get(rule["id"], "nothing") not in node["html"]
    ]
    assert found == []


@pytest.mark.parametrize("shown", EXPLORERS)
def test_a_picture_is_named_and_its_numbers_are_read_out_at_each_change(page_of_all, shown):
    area = page_of_all.output(EXPLORERS[shown])
    assert len(area.locator("img").first.get_attribute("title")) > 20
    readout = area.locator("[role=status]").last
    assert readout.get_attribute("aria-live") == "polite"
    assert readout.inner_text().strip()


@pytest.fixture(scope="module")
def narrow(page_of_all):
    page_of_all.page.set_viewport_size({"width": NARROW, "height": 900})
    page_of_all.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    page_of_all.page.wait_for_timeout(500)
    return page_of_all


@pytest.mark.parametrize("shown", SHOWN)
def test_in_a_narrow_window_nothing_is_cut_off(narrow, shown):
    area = narrow.output(SHOWN[shown]).locator(".jp-OutputArea").first
    beyond = area.evaluate(
        """area => [...area.querySelectorAll('*')]
            .filter(e => e.getClientRects().length)
            .filter(e => e.getBoundingClientRect().right > area.getBoundingClientRect().right + 1)
            .map(e => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 40)}`)"""
    )
    assert beyond == []
