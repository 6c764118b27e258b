"""Explorers on a page, opened as a file in Chromium: every control by mouse and by keys, what it shows, its looks."""

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.site.recorded_labs import EXPLORERS, data_of, lab, picture
from tools.browser import FLAGS, find_browser
from tools.site.pictures import pixels_of
from tools.site.placeholder import placeholder
from tools.site.script import script

pytestmark = pytest.mark.browser
STATIC = Path(__file__).resolve().parents[2] / "tools" / "site" / "static"
AXE = {"preload": False}  # of style sheets, which a file may not do
DARK = "html[data-theme=dark] body { background: #121212; color: #e6e6e6 }"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A file with every explorer, and beside it what it loads."""
    folder, body = tmp_path_factory.mktemp("page"), ""
    for number in EXPLORERS:
        explorers, recorded = lab(number)
        (folder / f"{number}_states.js").write_text(script(number, recorded, 400))
        for name, explorer in explorers.items():
            body += placeholder(name, recorded[name].start(), explorer.title)
    for name in ("explorer.js", "explorer.css"):
        shutil.copy(STATIC / name, folder)
    (folder / "page.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>Explorers</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="explorer.css">'
        f'<script src="explorer.js"></script><style>{DARK}</style><main><h1>Explorers</h1>{body}</main></html>'
    )
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=find_browser(), args=FLAGS) as it:
        yield it


@pytest.fixture(scope="module")
def complaints():
    return []


@pytest.fixture(scope="module")
def opened(browser, address, complaints):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto(address)
    return page


@pytest.fixture
def page(opened, complaints):
    """After each test there is no error in the console, and nothing was asked of another host."""
    yield opened
    assert complaints == []


def explorer(page, name):
    """An explorer's element, moved into view and ready."""
    found = page.locator(f'[data-explorer="{name}"]')
    found.scroll_into_view_if_needed()
    page.locator(f'[data-explorer="{name}"][data-ready]').wait_for()
    return found


def seen(found):
    """What a reader sees: where it stands, the picture's pixels, its alt text, and the numbers; when it is drawn."""
    stands = found.locator("input").evaluate_all(
        "inputs => [...Map.groupBy(inputs, (input) => input.name || input.id).values()].map((of) =>"
        " of.length > 1 ? of.findIndex((input) => input.checked) : of[0].value).join(' ')"
    )
    found.page.wait_for_function(
        "([root, stands]) => root.dataset.state === stands", arg=[found.element_handle(), stands]
    )
    png = found.locator("canvas").evaluate("canvas => canvas.toDataURL('image/png')")
    words = found.locator("img").get_attribute("alt"), found.locator(".explorer-readout").inner_text()
    return tuple(map(int, stands.split())), pixels_of(base64.b64decode(png.split(",")[1]))[..., :3], *words


def place(data, name, at):
    """The index of the state at these places of its controls."""
    return int(np.ravel_multi_index(at, [len(control["texts"]) for control in data["explorers"][name]["controls"]]))


NAMES = [f"{number}-{place}" for number, of in EXPLORERS.items() for place in range(1, len(of) + 1)]


@pytest.mark.parametrize("name", NAMES)
def test_every_control_moves_what_is_seen_by_mouse_and_by_keys(page, name):
    found, data = explorer(page, name), data_of(name[:2])
    for slider in found.locator("input[type=range]").all():
        for move in (by_key, by_mouse):
            before = seen(found)
            move(page, slider)
            after = seen(found)
            differ(before, after)
            np.testing.assert_array_equal(after[1], picture(data, name, place(data, name, after[0])))
            assert slider.get_attribute("aria-valuetext") == slider.locator("+ output").inner_text()
    for buttons in found.locator("fieldset").all():
        before = seen(found)
        buttons.locator("label").nth(1).click()
        clicked = seen(found)
        differ(before, clicked)
        buttons.locator("input").nth(1).press("ArrowRight")
        differ(clicked, seen(found))


def by_key(page, slider):
    slider.press("ArrowLeft" if at_end(slider) else "ArrowRight")


def by_mouse(page, slider):
    box, across = slider.bounding_box(), 0.03 if at_end(slider) else 0.97
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()


def at_end(slider):
    return slider.evaluate("slider => slider.value === slider.max")


def differ(before, after):
    assert after[0] != before[0]
    assert (after[1] != before[1]).any()
    assert after[2] != before[2]
    assert after[3] != before[3]


@pytest.mark.parametrize("name", NAMES)
def test_what_moves_nowhere_is_the_page_without_scripts(page, name, browser, address):
    plain = browser.new_page(java_script_enabled=False)
    plain.goto(address)
    found = plain.locator(f'[data-explorer="{name}"]')
    assert found.locator("input, canvas").count() == 0
    assert found.locator("img").get_attribute("alt").startswith(lab(name[:2])[0][name].title)
    assert found.locator(".explorer-readout").inner_text()
    plain.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, theme):
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    for name in NAMES:
        explorer(page, name)
    looked = Axe().run(page, options=AXE).response
    assert {"color-contrast", "label"} <= {rule["id"] for rule in looked["passes"]}
    assert [f"{rule['id']}: {node['html'][:200]}" for rule in looked["violations"] for node in rule["nodes"]] == []


def test_on_a_phone_nothing_is_cut_off_and_a_wide_picture_is_scrolled_by_keys(page):
    page.set_viewport_size({"width": 375, "height": 800})
    try:
        for name in NAMES:
            explorer(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        card = page.locator(".explorer-picture").first
        assert [card.get_attribute(name) for name in ("tabindex", "role")] == ["0", "group"]
        card.press("ArrowRight")
        page.wait_for_function("card => card.scrollLeft > 0", arg=card.element_handle())
        assert [rule["id"] for rule in Axe().run(page, options=AXE).response["violations"]] == []
    finally:
        page.set_viewport_size({"width": 1200, "height": 900})
    page.wait_for_function("card => !card.hasAttribute('tabindex')", arg=card.element_handle())


def test_a_labs_states_are_loaded_when_the_reader_comes_near(browser, address):
    page = browser.new_page(viewport={"width": 1200, "height": 200})
    page.goto(address)
    page.locator('[data-explorer="00-1"][data-ready]').wait_for()
    assert page.locator('script[src*="04_states"]').count() == 0
    explorer(page, "04-1")
    assert page.locator('script[src*="04_states"]').count() == 1
    page.close()
