"""The trained models that are not part of the course, by the tag of the cells whose numbers need them."""

from __future__ import annotations

from labutils.data import minilm, smollm2

MODULES = {"minilm": minilm, "language_model": smollm2}  # tag -> the module whose `find` finds the model
Missing = (minilm.MiniLMMissing, smollm2.LanguageModelMissing)


def why_missing(tag: str) -> str | None:
    """Why the model of a tag cannot be had, or None where it is there.

    >>> why_missing("language_model")
    """
    try:
        MODULES[tag].find()
    except Missing as missing:
        return str(missing)
    return None
