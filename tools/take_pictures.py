"""Take the README's pictures in JupyterLab: two explorers after a drag, and the check of a wrong answer.

python tools/take_pictures.py        writes pictures/sentence.png, explorer.png and check.png
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "pictures"
sys.path.insert(0, str(ROOT))

from tools.browser import Notebook, notebook_in_browser  # noqa: E402

TRUNCATES = '''def quantize_symmetric(x, num_bits=8):
    """Return (q, scale): the integer codes of x, and the one scale they share."""
    quant_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / quant_max
    return (x / scale).astype(np.int8), scale'''


def main() -> None:
    with opened("00_start_here") as notebook:
        notebook.run("explore_sentence")
        press(notebook, "explore_sentence", slider=0, times=3)
        notebook.screenshot("explore_sentence", PICTURES / "sentence.png")
    with opened("01_fundamentals") as notebook:
        notebook.run_all()
        press(notebook, "explorer", slider=1, times=4)  # the outlier, to about three times the largest weight
        notebook.screenshot("explorer", PICTURES / "explorer.png")
        make_a_mistake(notebook)
        notebook.screenshot("check(quantize_symmetric)", PICTURES / "check.png")


@contextlib.contextmanager
def opened(lab: str) -> Iterator[Notebook]:
    """A student's notebook, without the file browser beside it."""
    with notebook_in_browser(ROOT / "notebooks" / f"{lab}.ipynb", size=(1180, 900)) as notebook:
        notebook.page.keyboard.press("Control+b")
        yield notebook


def press(notebook: Notebook, cell: str, slider: int, times: int) -> None:
    """Move a slider of the explorer in `cell` to the right, with the keyboard."""
    notebook.output(cell).locator(".noUi-handle").nth(slider).focus()
    for _ in range(times):
        notebook.page.keyboard.press("ArrowRight")
        notebook.page.wait_for_timeout(150)


def make_a_mistake(notebook: Notebook) -> None:
    """Write a function that truncates where it should round, and check it."""
    notebook.write("def quantize_symmetric", TRUNCATES)
    notebook.run("def quantize_symmetric")
    notebook.run("check(quantize_symmetric)")


if __name__ == "__main__":
    main()
