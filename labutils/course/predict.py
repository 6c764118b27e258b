"""`predict` asks for a guess before it reveals an answer."""

from __future__ import annotations

import math

import ipywidgets as widgets

from labutils.arrays.inputs import real_number
from labutils.course.compat import TOOLTIP, view
from labutils.course.panel import escape, frame


def predict(question: str, answer: float, unit: str = "", tolerance: float | None = None) -> Prediction:
    """Ask for a number; a guess reveals `answer` and how far off the guess was.

    >>> prediction = predict("How many codes has a 4-bit grid?", 16)
    >>> prediction.guess("14")
    'You guessed 14. The answer is 16: you were 2 below.'

    A guess within `tolerance` of the answer, in the same unit, counts as right; by default 10% of the answer.
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
        controls = [self.entry, widgets.Label(unit), self.button] if unit else [self.entry, self.button]
        row = widgets.HBox(controls, layout={"flex_flow": "row wrap"})
        title = widgets.HTML(frame(f"Predict: {escape(question)}", tone="plain"))
        self.widget = widgets.VBox([title, row, self.reply])
        self.entry.observe(lambda change: self.guess(change["new"]), names="value")  # on Enter or loss of focus
        self.button.on_click(lambda button: self.guess(self.entry.value))

    def guess(self, text: str) -> str:
        """Show the reply to a guess, given as typed, and return it. Only a number reveals the answer."""
        if not str(text).strip():
            return self._show("Type a number first: the guess is what makes the answer stick.", "warn")
        try:
            guess = float(str(text).strip().removesuffix(self.unit).strip().replace(",", "."))
        except ValueError:
            guess = math.nan
        if not math.isfinite(guess):
            return self._show(f"{str(text)[:40]!r} is not a number. Try again, such as 12.5.", "warn")
        off = guess - self.answer
        reply = f"You guessed {self._with_unit(guess)}. The answer is {self._with_unit(self.answer)}"
        if abs(off) <= self.tolerance:
            return self._show(f"{reply}: right.", "good")
        return self._show(f"{reply}: you were {self._with_unit(abs(off))} {'above' if off > 0 else 'below'}.", "plain")

    def _show(self, text: str, tone: str) -> str:
        self.reply.value = frame(escape(text), tone=tone)
        return text

    def _with_unit(self, number: float) -> str:
        return f"{number:.4g} {self.unit}".strip()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return view(self.widget) | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Predict: {self.question} (answer: {self._with_unit(self.answer)})"
