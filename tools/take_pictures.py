"""Take the README's pictures in JupyterLab: an explorer after a drag, and the check of a wrong answer.

python tools/take_pictures.py        writes pictures/explorer.png and pictures/check.png
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.browser import Notebook, notebook_in_browser  # noqa: E402

TRUNCATES = '''def quantize_symmetric(x, num_bits=8):
    """Return (q, scale): the integer codes of x, and the one scale they share."""
    quant_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / quant_max
    return (x / scale).astype(np.int8), scale'''


def main() -> None:
    with notebook_in_browser(ROOT / "notebooks" / "01_fundamentals.ipynb", size=(1180, 900)) as notebook:
        notebook.page.keyboard.press("Control+b")  # closes the file browser
        notebook.run_all()
        drag_explorer(notebook)
        notebook.screenshot("explorer", ROOT / "pictures" / "explorer.png")
        make_a_mistake(notebook)
        notebook.screenshot("check(quantize_symmetric)", ROOT / "pictures" / "check.png")


def drag_explorer(notebook: Notebook) -> None:
    """Move the outlier slider to about three times the largest weight, with the keyboard."""
    notebook.output("explorer").locator(".noUi-handle").nth(1).focus()
    for _ in range(4):
        notebook.page.keyboard.press("ArrowRight")
        notebook.page.wait_for_timeout(150)


def make_a_mistake(notebook: Notebook) -> None:
    """Write a function that truncates where it should round, and check it."""
    notebook.write("def quantize_symmetric", TRUNCATES)
    notebook.run("def quantize_symmetric")
    notebook.run("check(quantize_symmetric)")


if __name__ == "__main__":
    main()
