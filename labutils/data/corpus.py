"""Texts for the sentence encoder: questions with their answers, and other sentences for calibration and comparison.

All of them were written for this course. The answers share words and topics, so that even the trained encoder finds
only about nine in ten of them: the score can fall in small steps.
"""

from __future__ import annotations

from pathlib import Path

QUESTIONS_FILE = Path(__file__).with_name("questions.tsv")
CALIBRATION_FILE = Path(__file__).with_name("calibration.txt")


def questions() -> list[tuple[str, str]]:
    """193 questions about neural networks and quantization, each with its answer.

    >>> asked, answers = zip(*questions())
    >>> asked[0]
    'How do you get from an integer code back to a real number?'
    >>> answers[0]
    'To reconstruct a value, subtract the zero point from its code and multiply by the scale.'

    Each question is best answered by its own answer. The list is a copy, yours to change.
    """
    return [tuple(line.split("\t")) for line in _lines(QUESTIONS_FILE)]


def calibration_sentences() -> list[str]:
    """268 other sentences, from 4 to 60 words: everyday life, computers, machine learning, quantization.

    >>> calibration_sentences()[0]
    'The kettle whistled just as the rain began.'

    None of them occurs in `questions`: ranges can be calibrated on these and evaluated on those. The list is a copy,
    yours to change.
    """
    return _lines(CALIBRATION_FILE)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
