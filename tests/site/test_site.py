"""The built site: links, what labs keep to themselves, and every page in a browser."""

import re
from itertools import pairwise, takewhile
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from labutils.labs.catalogue import EXERCISES
from tests.site.built import MOVE, MOVES
from tools.build_course import BEGIN, END, ROOT, colab_url, lessons
from tools.site.folder import MARKER
from tools.site.questions import LOOK, defines

STEMS = [path.stem for path in lessons()]
LOADED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}  # with a page, not clicked
CODE = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.DOTALL)
GIVEN_AWAY = {"01_fundamentals": "0.62", "12_language_model": "170", "13_ship_it": "4.5"}  # by an explorer below
PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}
LOOKED_AT = {
    "index.html": ["light", "dark"],
    "exercises.html": ["dark"],
    "search.html": ["light"],
    "docs/measured.html": ["light"],
    f"notebooks/{MOVES}.html": ["light", "dark"],
    f"solutions/{MOVES}.html": ["dark"],
}


def notebook(folder, stem):
    return nbformat.read(ROOT / folder / f"{stem}.ipynb", as_version=4)


# Links


def targets(page):
    """(what an element leads to or loads, whether it is loaded) of all elements of a page."""
    yield from ((link["href"], False) for link in page.find_all("a", href=True))
    for name, attribute in LOADED.items():
        elements = page.find_all(name, **{attribute: True})
        yield from ((element[attribute], True) for element in elements if element.get("rel") != ["canonical"])


def problem_with(target, loaded, path, places, site):
    """What is wrong with a link on the page at `path`, or nothing. `places` has the ids of every page."""
    address = urlsplit(target)
    if address.scheme == "data":
        return ""
    if address.scheme or address.netloc:
        return "from another host" if loaded else "" if address.scheme == "https" else "not https"
    linked = (site / path).parent.joinpath(unquote(address.path)).resolve() if address.path else site / path
    if not linked.is_relative_to(site) or not linked.is_file():
        return "not there"
    there = places.get(str(linked.relative_to(site)))
    if address.fragment and there is not None and unquote(address.fragment) not in there:
        return "no such place on the page"
    return ""


def test_links_lead_somewhere_and_nothing_comes_from_another_host(pages, site):
    places = {path: {element["id"] for element in page.find_all(id=True)} for path, page in pages.items()}
    found = {
        (path, target): problem
        for path, page in pages.items()
        for target, loaded in set(targets(page))
        if (problem := problem_with(target, loaded, path, places, site))
    }
    assert found == {}


def test_styles_and_fonts_are_served_with_the_site(site):
    addresses = [
        (style.name, address)
        for style in site.rglob("*.css")
        for address in re.findall(r"url\(\s*[\"']?((?:https?:)?//[^)\"']*)", style.read_text(encoding="utf-8"))
    ]
    assert addresses == []


@pytest.mark.parametrize("stem", STEMS)
def test_a_lab_can_be_opened_downloaded_and_compared_with_its_solution(pages, site, stem):
    lab, solution = pages[f"notebooks/{stem}.html"], pages[f"solutions/{stem}.html"]
    led, back = ({link.text: link["href"] for link in page.select(".with-the-lab a")} for page in (lab, solution))
    assert led["Open in Colab"] == colab_url(stem)
    assert led["The solution"] == f"../solutions/{stem}.html"
    assert "colab-badge" not in str(lab) + str(solution)
    download = (site / "notebooks" / led["Download the notebook"]).resolve()
    assert download.read_bytes() == (ROOT / "notebooks" / f"{stem}.ipynb").read_bytes()
    assert list(back) == ["Open the lab in Colab", "Download the lab", "The lab"]
    assert back["The lab"] == f"../notebooks/{stem}.html"


def test_beside_the_site_lies_nothing_that_it_does_not_need(site):
    assert {path.name for path in site.parent.iterdir()} == {MARKER, "source", "html", "doctrees", "states"}


def test_labs_follow_one_another(pages):
    for stem, following in pairwise(STEMS):
        assert pages[f"notebooks/{stem}.html"].select_one("a.right-next")["href"] == f"{following}.html"
        assert pages[f"notebooks/{following}.html"].select_one("a.left-prev")["href"] == f"{stem}.html"


# What stands on a page


def test_a_page_has_its_own_title_and_description(pages):
    assert pages["index.html"].title.text == "Quantization labs"
    described = {path: page.find("meta", attrs={"name": "description"}) for path, page in pages.items()}
    assert [path for path, found in described.items() if not found] == ["search.html"]
    assert all(20 < len(found["content"]) <= 160 for found in described.values() if found)


def answers(stem):
    """The lines of a solution that the student's notebook does not have."""
    given = {line.strip() for cell in notebook("notebooks", stem).cells for line in cell.source.splitlines()}
    for cell in notebook("solutions", stem).cells:
        if BEGIN in cell.source:
            inside = cell.source.partition(BEGIN)[2].partition(END)[0]
            yield from {line.strip() for line in inside.splitlines()} - given


@pytest.mark.parametrize("stem", STEMS)
def test_a_lab_holds_no_line_of_its_solution_and_the_solution_holds_all(pages, stem):
    lines = {
        path: set(map(str.strip, pages[f"{path}/{stem}.html"].text.splitlines())) for path in ("notebooks", "solutions")
    }
    expected = set(answers(stem))
    assert expected and not expected & lines["notebooks"]
    assert expected <= lines["solutions"]
    assert not any("SOLUTION" in line for line in lines["solutions"])


@pytest.mark.parametrize("stem", STEMS)
def test_checks_have_passed_in_the_solution_and_have_not_been_run_in_the_lab(pages, stem):
    exercises = [name for name in EXERCISES.names if EXERCISES[name].lab == stem]
    passed = re.compile(r"\w+: all \d+ cases pass")
    assert len(passed.findall(pages[f"solutions/{stem}.html"].text)) == len(exercises)
    assert not passed.search(pages[f"notebooks/{stem}.html"].text)


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("stem", STEMS)
def test_answers_and_folded_code_are_folded(pages, stem, folder):
    page = pages[f"{folder}/{stem}.html"]
    cells = [
        cell for cell in notebook("solutions", stem).cells if cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    predictions = page.select(".prediction")
    folded = [summary.text for summary in page.select("details.folded > summary")]
    assert len(folded) - folded.count(LOOK) == sum(defines(cell.source) or not cell.outputs for cell in cells)
    assert bool(predictions) <= (LOOK in folded)
    assert len(predictions) == sum("\npredict(" in cell.source and bool(cell.outputs) for cell in cells)
    assert all(prediction.select_one("details > summary") for prediction in predictions)
    assert not page.select("details[open]")


@pytest.mark.parametrize("stem", GIVEN_AWAY)
def test_nothing_in_sight_answers_a_question(site, stem):
    page = BeautifulSoup((site / "notebooks" / f"{stem}.html").read_text(encoding="utf-8"), "html.parser")
    (box,) = (box for box in page.select(".prediction") if box["data-answer"].split()[0] == GIVEN_AWAY[stem])
    for folded in page.select("details"):
        folded.decompose()
    below = list(takewhile(lambda element: element.name not in ("h2", "h3"), box.find_all_next()))
    seen = " ".join([element.get("alt", "") + element.text for element in below])
    assert seen.count("\n") > 1
    assert not re.search(rf"(?<![\d.]){re.escape(GIVEN_AWAY[stem])}", seen)


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem not in MOVE])
def test_a_lab_shows_what_its_cells_draw(pages, stem):
    drawn = [
        output.metadata["image/png"]["alt"]
        for cell in notebook("solutions", stem).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    pictures = pages[f"notebooks/{stem}.html"].select(".cell_output img")
    assert [picture["alt"] for picture in pictures] == drawn != []


def test_mathematics_is_set(pages, site):
    formulas = 0
    for path in pages:
        page = CODE.sub("", (site / path).read_text(encoding="utf-8"))
        formulas += page.count("<math")
        assert "<merror" not in page, path
        assert not re.search(r"\$[^$\n]+\$|\\[a-zA-Z]{2,}", re.sub("<[^>]*>", "", page)), path
    assert formulas > 800


def test_the_list_of_exercises_names_them_all_in_order(pages):
    listed = pages["exercises.html"].select("table a")
    assert [link.text for link in listed] == list(EXERCISES)
    assert len({link["href"] for link in listed}) == len(EXERCISES)


# In a browser


@pytest.fixture(scope="module")
def visit(browser, address):
    """visit(path, **window) opens a page of the site and returns it, and what it complained of and asked elsewhere."""
    windows = {}

    def visit(path, **window):
        key = str(window)
        if key not in windows:
            windows[key] = browser.new_context(**window).new_page(), []
            page, complaints = windows[key]
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("response", lambda got: complaints.append(got.url) if got.status >= 400 else None)
            page.on(
                "request",
                lambda asked: None if asked.url.startswith((address, "data:")) else complaints.append(asked.url),
            )
        page, complaints = windows[key]
        complaints.clear()
        page.goto(f"{address}/{path}")
        return page, complaints

    return visit


def test_every_page_loads_in_silence_and_fits_a_phone(visit, pages):
    wide = {}
    for path in pages:
        page, complaints = visit(path, viewport=PHONE)
        assert complaints == [], path
        wide[path] = page.evaluate("document.documentElement.scrollWidth")
    assert {path: width for path, width in wide.items() if width > PHONE["width"]} == {}


@pytest.mark.parametrize(
    ("path", "scheme"), [(path, scheme) for path, schemes in LOOKED_AT.items() for scheme in schemes]
)
def test_axe_finds_nothing(visit, path, scheme):
    page, _ = visit(path, viewport=DESK, color_scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    looked = Axe().run(page).response
    assert "color-contrast" in {rule["id"] for rule in looked["passes"]}
    assert [f"{rule['id']}: {node['html'][:200]}" for rule in looked["violations"] for node in rule["nodes"]] == []


@pytest.mark.parametrize("path", ["index.html", f"notebooks/{MOVES}.html", f"solutions/{MOVES}.html"])
def test_explorers_move(visit, path):
    page, complaints = visit(path, viewport=DESK)
    for fold in page.locator("summary", has_text=LOOK).all():
        fold.click()
    explorer = page.locator(".explorer").first
    explorer.scroll_into_view_if_needed()
    slider = explorer.locator("input[type=range]").first
    slider.wait_for()
    before = explorer.locator("img").get_attribute("alt")
    slider.press("ArrowRight")
    assert explorer.locator("img").get_attribute("alt") != before
    assert complaints == []


def test_a_guess_is_compared_with_the_answer(visit):
    page, complaints = visit(f"notebooks/{MOVES}.html", viewport=DESK)
    box = page.locator(".prediction").first
    guess = box.get_by_label("Your guess")
    for typed, said in (("many", "Type a number"), ("9,5", "The answer is 8: you were 1.5 above."), ("8", "8: right.")):
        guess.fill(typed)
        guess.press("Enter")
        assert said in box.locator("output").inner_text()
    assert complaints == []


def test_search_finds_what_a_lab_is_about(visit):
    page, complaints = visit("search.html?q=zero+point", viewport=DESK)
    found = page.locator("#search-results a", has_text="02 · Asymmetric")
    found.first.wait_for()
    assert complaints == []


def test_formulas_are_set_in_the_font_of_the_site(visit):
    page, _ = visit("notebooks/01_fundamentals.html", viewport=DESK)
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px \"Site Mathematics\"'))")
    fraction = page.locator("mfrac").first.bounding_box()
    assert fraction["height"] > 1.3 * page.locator("mfrac mn, mfrac mi").first.bounding_box()["height"]
