"""An explorer that computes in steps shows each of them, never blocks, and drops what is overtaken."""

import asyncio
from dataclasses import dataclass

import pytest

from labutils.course.controls import Slider
from labutils.course.exercise import Wrong
from labutils.course.stepped import SteppedExplorer

BUSY = 'aria-busy="true"'


@dataclass(frozen=True)
class Count:
    number: int
    reached: int


class Counting(SteppedExplorer):
    """Counts to the slider's number in steps, and refuses 13."""

    title = "Counting"

    def __init__(self):
        self.taken = []  # (number, step) of all steps
        super().__init__()

    def sliders(self):
        return {"number": Slider("count to", 1, 20, 3)}

    def steps(self, state):
        for step in range(1, state["number"] + 1):
            if step == 13:
                raise Wrong("13 is too much")
            self.taken.append((state["number"], step))
            yield Count(state["number"], step)

    def build(self, figure):
        (self._line,) = figure.subplots().plot([0], [0], "o")
        return [self._line]

    def draw(self, result):
        self._line.set_data([result.reached], [0])

    def describe(self, result):
        return [("reached", f"{result.reached} of {result.number}")]


@pytest.fixture
def explorer():
    return Counting()


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it never came")


def test_it_is_built_with_a_complete_result_even_where_a_loop_runs():
    async def build():
        return Counting()

    built = asyncio.run(build())
    assert built.result == Count(3, 3)
    assert repr(built) == "Counting: reached 3 of 3"
    assert built._repr_mimebundle_()[0]["text/plain"] == "Counting: reached 3 of 3"


def test_without_a_loop_a_moved_control_waits_for_the_complete_result(explorer):
    explorer.controls["number"].value = 5
    assert explorer.result == Count(5, 5)
    assert BUSY not in explorer.readout.value


def test_compute_is_the_last_step(explorer):
    assert explorer.compute({"number": 7}) == Count(7, 7)
    assert explorer.result == Count(3, 3)


def test_each_step_is_shown_and_only_the_last_is_not_busy(explorer):
    async def watch():
        seen = []
        explorer.readout.observe(lambda change: seen.append((explorer.result, BUSY in change["new"])), names="value")
        explorer.controls["number"].value = 4
        assert explorer.result == Count(4, 1), "setting a control shows the first step, and does not wait for more"
        await until(lambda: seen and not seen[-1][1])
        return seen

    assert asyncio.run(watch()) == [*((Count(4, step), True) for step in (1, 2, 3, 4)), (Count(4, 4), False)]


def test_a_moved_control_drops_the_steps_that_are_left(explorer):
    async def overtake():
        explorer.controls["number"].value = 12
        await until(lambda: explorer.result.reached >= 2 and explorer.result.number == 12)
        explorer.controls["number"].value = 5
        await until(lambda: explorer.result == Count(5, 5))
        await asyncio.sleep(0.05)

    asyncio.run(overtake())
    assert max(step for number, step in explorer.taken if number == 12) < 12
    assert explorer.result == Count(5, 5)
    assert explorer.compute({"number": 12}) == Count(12, 12), "what was dropped is not taken for complete"


def test_a_known_state_is_shown_at_once_and_nothing_is_computed_again(explorer):
    async def back():
        explorer.controls["number"].value = 6
        await until(lambda: explorer.result == Count(6, 6) and BUSY not in explorer.readout.value)
        taken, picture = len(explorer.taken), explorer.picture.value
        explorer.controls["number"].value = 3
        assert explorer.result == Count(3, 3)
        explorer.controls["number"].value = 6
        assert explorer.picture.value == picture
        assert len(explorer.taken) == taken

    asyncio.run(back())


def test_a_first_step_that_fails_is_told_at_once(explorer):
    def refuse(state):
        raise Wrong("not today")
        yield

    async def fail():
        explorer.steps = refuse
        explorer.controls["number"].value = 15
        assert "not today" in explorer.readout.value

    asyncio.run(fail())


def test_a_step_that_fails_is_told_and_the_slider_lives_on(explorer):
    async def fail():
        explorer.controls["number"].value = 15
        await until(lambda: "13 is too much" in explorer.readout.value)
        assert explorer.result is None
        explorer.controls["number"].value = 2
        await until(lambda: explorer.result == Count(2, 2))

    asyncio.run(fail())
