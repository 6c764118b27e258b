"""`python -m labutils.report FOLDER` prints the report card of a folder or .gguf file with a quantized model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a card; with --html also write it, with its figure, as a page. 1 where the files cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m labutils.report", description=__doc__)
    parser.add_argument("path", type=Path, help="a folder with safetensors files and config.json, or a .gguf file")
    parser.add_argument("--html", type=Path, help="write the card with its figure to this file")
    chosen = parser.parse_args(arguments)
    from labutils.course.report_card import file_report_card  # --help needs no torch

    try:
        card = file_report_card(chosen.path)
        print(card.text)
        if chosen.html is not None:
            chosen.html.write_text(f"<!doctype html><meta charset='utf-8'>{card._repr_html_()}", encoding="utf-8")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
