"""A guess before the answer: what is predicted is remembered."""

from __future__ import annotations

import math

import ipywidgets as widgets

from labutils.arrays.inputs import real_number
from labutils.course.compat import TOOLTIP, view
from labutils.course.panel import escape, frame


def predict(question: str, answer: float, unit: str = "", tolerance: float | None = None) -> Prediction:
    """Ask for a number, and reveal `answer` only after a guess, with how far off it was.

    >>> asked = predict("How many codes has a 4-bit grid?", 16)
    >>> asked.guess("14")
    'You guessed 14. The answer is 16: you were 2 below.'

    `tolerance` is what counts as right, in units of the answer; by default 10% of it.
    """
    return Prediction(question, answer, unit, tolerance)


class Prediction:
    """A question with an entry and a button. `.entry`, `.button` and `.reply` are its widgets."""

    def __init__(self, question: str, answer: float, unit: str = "", tolerance: float | None = None):
        if not isinstance(question, str) or not question.strip():
            raise TypeError(f"question must be a text, got {question!r}")
        self.question, self.unit = question, unit
        self.answer = real_number(answer, "answer")
        self.tolerance = 0.1 * abs(self.answer) if tolerance is None else real_number(tolerance, "tolerance")
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance:g}")
        self.entry = widgets.Text(
            description="Your guess",
            continuous_update=False,
            **{TOOLTIP: question},
            style={"description_width": "initial"},
            layout={"width": "220px"},
        )
        self.button = widgets.Button(description="Guess", tooltip="show the answer", layout={"width": "90px"})
        self.reply = widgets.HTML()
        asking = [self.entry, widgets.Label(unit), self.button] if unit else [self.entry, self.button]
        row = widgets.HBox(asking, layout={"flex_flow": "row wrap"})
        asked = widgets.HTML(frame(f"Predict: {escape(question)}", tone="plain"))
        self.widget = widgets.VBox([asked, row, self.reply])
        self.entry.observe(lambda change: self.guess(change["new"]), names="value")  # Enter, or leaving the field
        self.button.on_click(lambda button: self.guess(self.entry.value))

    def guess(self, text: str) -> str:
        """Take a guess as it was typed, show the reply and return it. What is no number reveals nothing."""
        if not str(text).strip():
            return self._say("Type a number first: the guess is what makes the answer stick.", "warn")
        try:
            guess = float(str(text).strip().removesuffix(self.unit).strip().replace(",", "."))
        except ValueError:
            guess = math.nan
        if not math.isfinite(guess):
            return self._say(f"{str(text)[:40]!r} is not a number. Try again, such as 12.5.", "warn")
        off = guess - self.answer
        told = f"You guessed {self._with_unit(guess)}. The answer is {self._with_unit(self.answer)}"
        if abs(off) <= self.tolerance:
            return self._say(f"{told}: right.", "good")
        return self._say(f"{told}: you were {self._with_unit(abs(off))} {'above' if off > 0 else 'below'}.", "plain")

    def _say(self, text: str, tone: str) -> str:
        self.reply.value = frame(escape(text), tone=tone)
        return text

    def _with_unit(self, number: float) -> str:
        return f"{number:.4g} {self.unit}".strip()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return view(self.widget) | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Predict: {self.question} (answer: {self._with_unit(self.answer)})"
