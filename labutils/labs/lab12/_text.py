"""The text on which lab 12 measures, and text in a picture."""

from __future__ import annotations

import textwrap

from labutils import data

PROMPT = "Once upon a time there was a little girl who"
WINDOW = 256  # tokens of a text whose perplexity the explorers measure


def evaluation_text() -> str:
    """The answers of the course's own questions, joined by spaces: 4,412 tokens for SmolLM2."""
    return " ".join(answer for _, answer in data.questions())


def drawable(text: str, width: int, lines: int) -> str:
    """`text` in lines of `width` characters, at most `lines` of them; what a font may lack becomes a box.

    >>> drawable("a little girl", 8, 2)
    'a little\\ngirl'
    """
    plain = "".join(c if _has_glyph(c) else " " if c.isspace() else "□" for c in text)
    return "\n".join(textwrap.wrap(plain, width, max_lines=lines, placeholder=" …"))


def _has_glyph(character: str) -> bool:
    return character.isprintable() and (ord(character) < 0x250 or character == "…")
