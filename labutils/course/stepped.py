"""`SteppedExplorer`: an explorer whose results take seconds, and whose sliders never wait for them.

A subclass has `steps` in place of `compute`: a generator of results, each more complete than the one before. Each is
shown; between two of them the kernel hears what the browser has to say. When a control moves, what is left of the
state before is dropped. A state that was finished once is shown at once.

The steps are a task in the event loop that every Jupyter kernel runs. Where there is none, as in a script, a control
that moves waits for the complete result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer

PAUSE = 0.002  # seconds between two steps, in which the loop takes the messages that wait


class SteppedExplorer(Explorer):
    """An explorer that shows what it has while it computes the rest.

    It is built with a complete result, so that there is a picture where no kernel runs.
    """

    def __init__(self) -> None:
        self._finished: dict[tuple, Any] = {}  # values of the controls -> complete result
        self._task: asyncio.Task | None = None
        self._built = False
        super().__init__()
        self._built = True

    def steps(self, state: dict[str, Any]) -> Iterator[Any]:
        """Yield results, the last of them complete. Pure; raises Wrong where the learner's function fails."""
        raise NotImplementedError

    def compute(self, state: dict[str, Any]) -> Any:
        """The last of the steps; remembered."""
        key = tuple(state.values())
        if key not in self._finished:
            *_, self._finished[key] = self.steps(state)
        return self._finished[key]

    def update(self) -> None:
        """Show the current state: at once where it is known, else step by step; drop the steps of the one before."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        loop = _running_loop() if self._built else None
        if loop is None or tuple(self.state.values()) in self._finished:
            super().update()
            return
        steps = self.steps(self.state)
        try:
            self.show(next(steps), busy=True)  # before the kernel says that it is idle
        except Wrong as wrong:
            self.show_error(wrong)
        else:
            self._task = loop.create_task(self._show_rest(steps, self.state))

    async def _show_rest(self, steps: Iterator[Any], state: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(PAUSE)
            for result in steps:
                self.show(result, busy=True)
                await asyncio.sleep(PAUSE)
        except Wrong as wrong:
            self.show_error(wrong)
        else:
            self._finished[tuple(state.values())] = self.result
            self.show(self.result)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
