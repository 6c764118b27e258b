"""The texts on which lab 12 measures."""

from __future__ import annotations

from labutils import data

PROMPT = "To bake bread, you need flour,"
WINDOW = 256  # tokens of a text whose perplexity the explorers measure


def evaluation_text() -> str:
    """The answers of the course's own questions, joined by spaces: 4,412 tokens for SmolLM2."""
    return " ".join(answer for _, answer in data.questions())
