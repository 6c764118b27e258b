"""A class on a JupyterHub: an instructor and a student in a browser, two students in a shell, from release to feedback.

The hub is set up with the commands of docs/teaching.md, on a copy of this machine (tests/classroom/machine.py).
"""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests.classroom.hub import hub, recipe
from tests.classroom.machine import ROOT, Machine, whats_missing
from tests.classroom.people import Instructor, Student
from tools.browser import FLAGS, find_browser

pytestmark = [pytest.mark.classroom, pytest.mark.browser]
LAB = "00_start_here"
HEAD = "def storage_bytes(num_values, num_bits):"
RIGHT = f"{HEAD}\n    return (num_values * num_bits + 7) // 8"
WRONG = f"{HEAD}\n    return num_values * num_bits"
MISTAKE = "It looks like this: bits taken for bytes."
IN_A_SHELL = {  # student -> what is done to the notebook between fetching it and handing it in
    "bob": f"sed -i 's/# YOUR CODE HERE/return num_values * num_bits/' {LAB}/{LAB}.ipynb",
    "carol": "true",
}
PASSWORDS = {name: f"the secret of {name}" for name in ("instructor", "alice", *IN_A_SHELL)}
EXCHANGE = "/srv/nbgrader/exchange"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def machine(place):
    """A copy of this machine. Where none can be made the tests are skipped, but fail where CI is root."""
    (place / "machine").mkdir()
    if missing := whats_missing(place / "machine"):
        (pytest.fail if os.environ.get("CI") and not os.getuid() else pytest.skip)(missing)
    if shutil.which("configurable-http-proxy") is None and not os.environ.get("CI"):
        pytest.skip(f"the hub's proxy is missing: {recipe()[0].splitlines()[-1]}")
    with Machine(place / "machine") as machine:
        yield machine


@pytest.fixture(scope="module")
def address(machine, place):
    with hub(machine, PASSWORDS, place / "hub.log") as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium, machine, place):
    """Chromium, on the machine's network."""
    inside = place / "chromium"
    inside.write_text(f'#!/bin/sh\nexec {" ".join(machine.entering("net"))} {find_browser()} "$@"\n')
    inside.chmod(0o755)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=inside, args=FLAGS) as browser:
        yield browser


@pytest.fixture(scope="module")
def instructor(browser, address):
    return Instructor(browser, address, "instructor", PASSWORDS["instructor"])


@pytest.fixture(scope="module")
def alice(browser, address):
    return Student(browser, address, "alice", PASSWORDS["alice"])


@pytest.fixture(scope="module")
def returned(machine, instructor, alice, place):
    """What comes back at the end: every student's mark, and the feedback that alice reads."""
    try:
        yield play(machine, instructor, alice)
    except Exception:
        for person in (instructor, alice):
            person.page.screenshot(path=place / f"{person.name}.png")
        print(f"What they saw is in {place}. The hub's last words:\n{(place / 'hub.log').read_text()[-3000:]}")
        raise


def play(machine, instructor, alice):
    instructor.press(LAB, "assign")  # Generate, as its column is called
    instructor.press(LAB, "release")
    alice.open_assignments()
    alice.fetch(LAB)
    alice.run("from labutils import check")
    alice.write(HEAD, WRONG)
    alice.run(HEAD)
    alice.run("check(storage_bytes)", says=MISTAKE)
    alice.write(HEAD, RIGHT)
    alice.run(HEAD)
    alice.run("check(storage_bytes)", says="all 7 cases pass")
    alice.submit(LAB)
    for name, edit in IN_A_SHELL.items():
        machine.run(f"nbgrader fetch_assignment {LAB} && {edit} && nbgrader submit {LAB}", user=name)
    instructor.press(LAB, "collect")
    instructor.open(f"formgrader/manage_submissions/{LAB}")
    for name in ("alice", *IN_A_SHELL):
        instructor.press(name, "autograde")
    marks = instructor.column("score")
    instructor.open("formgrader")
    instructor.press(LAB, "generate-feedback")
    instructor.press(LAB, "release-feedback")
    return marks, alice.feedback(LAB)


def test_each_answer_earns_what_it_should(returned):
    marks, _ = returned
    assert marks == {"alice": "1 / 1", "bob": "0 / 1", "carol": "0 / 1"}


def test_who_was_right_reads_it_in_the_hub(returned):
    _, feedback = returned
    assert "storage_bytes: all 7 cases pass" in feedback


def test_who_was_wrong_gets_the_name_of_the_mistake(returned, machine):
    machine.run(f"nbgrader fetch_feedback {LAB}", user="bob")
    assert MISTAKE in machine.run(f"cat {LAB}/feedback/*/{LAB}.html", user="bob")


def test_who_did_nothing_is_told_so(returned, machine):
    page = machine.run(f"cat ~/quantization/feedback/carol/{LAB}/{LAB}.html", user="instructor")
    assert "not done yet" in page and MISTAKE not in page


@pytest.mark.parametrize(
    "secret", [f"{EXCHANGE}/quantization/inbound", f"{EXCHANGE}/quantization/feedback", "~alice", "~instructor"]
)
def test_a_student_does_not_see_what_others_have(returned, machine, secret):
    assert "Permission denied" in machine.run(f"ls {secret}", user="bob", succeeds=False)


def test_a_student_cannot_take_the_exchange_away(returned, machine):
    said = machine.run(f"mv {EXCHANGE}/quantization {EXCHANGE}/mine", user="bob", succeeds=False)
    assert "Operation not permitted" in said


def test_students_are_offered_no_formgrader(alice):
    assert alice.menu() == ["Assignment List"]


def test_ci_installs_the_proxy_that_the_page_names():
    assert recipe()[0].splitlines()[-1] in map(str.strip, (ROOT / ".ci" / "run").read_text().splitlines())
