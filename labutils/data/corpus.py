"""Texts: questions with their answers, sentences for calibration, and what a language model wrote in few bits.

All but the last were written for this course. The answers share words and topics, so that even the trained encoder
finds only about nine in ten of them: the score can fall in small steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUESTIONS_FILE = Path(__file__).with_name("questions.tsv")
CALIBRATION_FILE = Path(__file__).with_name("calibration.txt")
CONTINUATIONS_FILE = Path(__file__).with_name("continuations.json")


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


def continuations() -> dict[str, Any]:
    """One sentence, continued by the language model of lab 12 with its weights in 8, 4, 3 and 2 bits.

    >>> text = continuations()
    >>> text["prompt"], text["float"]["text"][:26]
    ('To bake bread, you need flour,', ' water, yeast, and a dough')
    >>> [(row["bits"], row["perplexity"]) for row in text["continuations"]]
    [(8, 48.6), (4, 60.9), (3, 170.0), (2, 3310000.0)]

    model                 which weights were rounded
    prompt                what is continued, always by the likeliest token
    new_tokens            how many tokens were added
    perplexity_of_tokens  over how many tokens of the answers to the course's questions the perplexities are
    group_size            weights that share a scale; symmetric codes, embedding and head in float
    float, continuations  `perplexity` and `text`; for each of the latter `bits`, and `megabytes` of the rounded weights

    `python tools/continue_text.py` wrote them. No model is needed to read them.
    """
    return json.loads(CONTINUATIONS_FILE.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
