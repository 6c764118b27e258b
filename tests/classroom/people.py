"""What an instructor and a student click on a hub, each in a browser of their own."""

import re

from playwright.sync_api import expect

SECONDS = 90  # for one click: a server starts, or a notebook runs, on a machine that does other things, too
expect.set_options(timeout=1000 * SECONDS)


class Person:
    """Somebody who logs in at `hub`, its address, and is led on to a page of the own server, START."""

    START = "lab"

    def __init__(self, browser, hub, name, password):
        self.name, self.hub = name, hub
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.open(self.START)
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def open(self, path):
        self.page.goto(f"{self.hub}/hub/user-redirect/{path}")


class Student(Person):
    """Fetches a lab, writes an answer, hands it in and reads what comes back."""

    def menu(self):
        """The entries of nbgrader's menu, which stays open."""
        self.page.get_by_role("menuitem", name="Nbgrader").click()
        entries = self.page.locator(".lm-Menu").get_by_role("menuitem")
        entries.first.wait_for()
        return [entry.strip() for entry in entries.all_inner_texts()]

    def open_assignments(self):
        self.menu()
        self.page.get_by_role("menuitem", name="Assignment List").click()

    def fetch(self, lab):
        """Fetch a lab and open its notebook."""
        self.page.get_by_role("button", name="Fetch", exact=True).click()
        fetched = self.page.locator("#fetched_assignments_list")  # the folder beside it has the same name
        fetched.get_by_role("button", name=lab).click()
        fetched.get_by_role("link", name=lab).click()
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def cell(self, piece):
        """The code cell in whose source `piece` stands, with the cursor in it."""
        cell = self.page.locator(".jp-CodeCell").filter(has=self.page.locator(".jp-Editor", has_text=piece))
        cell.locator(".cm-content").click()
        return cell

    def write(self, piece, source):
        """Write `source` into a cell instead of what it has."""
        self.cell(piece)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)

    def run(self, piece, says=""):
        """Run a cell, and wait until it has run and its output has the words `says`."""
        cell = self.cell(piece)
        self.page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-OutputArea")).to_contain_text(says)
        expect(cell.locator(".jp-InputArea-prompt")).to_have_text(re.compile(r"\[\d+\]"))

    def submit(self, lab):
        """Save the notebook and hand it in."""
        self.page.keyboard.press("Control+S")
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
        self.page.get_by_role("tab", name="Assignments").click()
        self.page.get_by_role("button", name="Submit").click()
        self.page.locator("#submitted_assignments_list").get_by_text(lab).first.wait_for()

    def feedback(self, lab):
        """The words of the page that came back."""
        self.page.get_by_role("button", name="Fetch Feedback").click()
        self.page.get_by_text("(view feedback)").click()
        self.page.get_by_role("listitem", name=f"{lab}.html").dblclick()
        page = self.page.frame_locator(".jp-HTMLViewer iframe").locator("body")
        expect(page).to_contain_text("Score")
        return " ".join(page.inner_text().split())


class Instructor(Person):
    """Works in nbgrader's formgrader. It opens in a tab of its own: a hub lets no page stand in a frame."""

    START = "formgrader"

    def press(self, name, column):
        """Press a button in the row of `name`, and wait until it is done."""
        self.page.get_by_role("row").filter(has_text=name).locator(f".{column} a").click()
        dialog = self.page.locator(".modal-dialog")
        expect(dialog.get_by_role("heading", name="Success")).to_be_visible()
        dialog.get_by_role("button", name="OK").click()
        dialog.wait_for(state="hidden")
        self.page.get_by_text("Please wait").wait_for(state="hidden")  # what the row says until it is drawn anew

    def column(self, name):
        """What a column of the table of submissions says of each student."""
        rows = self.page.locator("#main-table tr")
        cells = [row.locator(".student-id, ." + name).all_inner_texts() for row in rows.all()]
        return dict(cells)
