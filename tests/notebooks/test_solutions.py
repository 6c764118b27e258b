"""What validating the solutions finds besides what nbval itself does: torch where a lab must do without, and pictures
that vary. What they pass is nobody's progress.
"""

import base64
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import PIL.Image
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labutils.course import progress
from tools import build_course

ROOT = Path(__file__).resolve().parents[2]
CHECK = "from labutils import check\nfrom labutils.labs.answers import storage_bytes\ncheck(storage_bytes)"
DRAW = """import io
import numpy as np
from IPython.display import Image, display
from PIL.Image import fromarray
file, random = io.BytesIO(), np.random.default_rng()
fromarray({}.astype('uint8')).save(file, 'PNG')
display(Image(file.getvalue(), format='png'))"""
WHITE = "np.full((10, 10, 3), 255)"
SPECK = f"({WHITE} * (random.permutation(100) > 0).reshape(10, 10, 1))"  # one black pixel, elsewhere each time


def stored_picture():
    file = io.BytesIO()
    PIL.Image.new("RGB", (10, 10), "white").save(file, "PNG")
    data = {
        "text/plain": "<IPython.core.display.Image object>",
        "image/png": base64.b64encode(file.getvalue()).decode(),
    }
    return [new_output("display_data", data=data)]


STORED = stored_picture()
NOTEBOOKS = {  # name: its one cell, what is stored of it, and whether that is valid
    "01_passes_a_check": (CHECK, None, True),
    "01_imports_torch": ("import torch", [], False),
    "05_imports_torch": ("import torch", [], True),
    "05_draws_as_stored": (DRAW.format(WHITE), STORED, True),
    "05_draws_nearly_as_stored": (DRAW.format(SPECK), STORED, True),  # on another processor, say
    "05_draws_otherwise": (DRAW.format(f"(0 * {WHITE})"), STORED, True),  # with other fonts, say
    "05_draws_another_size": (DRAW.format(f"{WHITE}[:9]"), STORED, True),
    "05_draws_no_picture": ("print('none')", STORED, False),
    "05_draws_otherwise_each_time": (DRAW.format("random.integers(256, size=(10, 10, 3))"), STORED, False),
}


def test_validating_finds_torch_and_varying_pictures_and_keeps_no_progress(tmp_path):
    pytest.importorskip("torch")
    folder, data = tmp_path / "solutions", tmp_path / "data"
    folder.mkdir()
    shutil.copy(ROOT / "solutions" / "conftest.py", folder)
    for name, (source, outputs, _) in NOTEBOOKS.items():
        cell = new_code_cell(source, outputs=outputs or [], execution_count=1)
        cell.metadata["tags"] = ["nbval-ignore-output"] if outputs is None else []
        nbformat.write(new_notebook(cells=[cell], metadata=build_course.KERNEL), folder / f"{name}.ipynb")
    environment = {name: value for name, value in os.environ.items() if name != progress.VARIABLE}
    environment |= {"XDG_DATA_HOME": str(data), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    for name, (*_, valid) in NOTEBOOKS.items():
        assert f"{'PASSED' if valid else 'FAILED'} {name}.ipynb" in done.stdout, done.stdout[-3000:]
    assert not data.exists()
