"""Write labutils/data/continuations.json: one sentence, continued by lab 12's language model at 8, 4, 3 and 2 bits.

    python tools/continue_text.py

It takes half a minute, and needs the language model.
"""

from __future__ import annotations

import json
from typing import Any

from labutils import explore_text
from labutils.data.corpus import CONTINUATIONS_FILE
from labutils.data.language_model import LanguageModel, language_model
from labutils.labs.lab12._text import PROMPT, WINDOW
from labutils.labs.lab12.explore_text import NEW_TOKENS

BITS, GROUP_SIZE = (8, 4, 3, 2), 32


def measured(language: LanguageModel, bits: tuple[int, ...] = BITS) -> dict[str, Any]:
    """What the file holds: the explorer's results at each bit width, and the float model's."""
    explorer = explore_text(language)
    results = [explorer.compute({"num_bits": num_bits, "group_size": GROUP_SIZE}) for num_bits in bits]
    rows = [
        {
            "bits": result.num_bits,
            "perplexity": rounded(result.perplexity),
            "text": result.text,
            "megabytes": round(result.megabytes),
        }
        for result in results
    ]
    return {
        "model": language.source.split(", from ")[0],
        "prompt": PROMPT,
        "new_tokens": NEW_TOKENS,
        "perplexity_of_tokens": WINDOW,
        "group_size": GROUP_SIZE,
        "float": {"perplexity": rounded(explorer.float_perplexity), "text": explorer.float_text},
        "continuations": rows,
    }


def rounded(perplexity: float) -> float:
    """Three significant digits: the others depend on the processor."""
    return float(f"{perplexity:.3g}")


if __name__ == "__main__":
    CONTINUATIONS_FILE.write_text(json.dumps(measured(language_model()), indent=1) + "\n", encoding="utf-8")
