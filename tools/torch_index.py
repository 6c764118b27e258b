"""Which index pip should ask for torch: prints options for pip, or nothing.

    pip install $(python tools/torch_index.py) torch

On Linux PyPI's torch is built for CUDA and brings gigabytes that a machine without an NVIDIA card has no use for.
There, PyTorch's own index of builds for processors is named, if it answers within seconds; where it does not, as behind
a company's mirror, pip goes on with what it knows. Standard library only: nothing is installed yet when this runs.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # as in pyproject.toml, [tool.uv]
PATIENCE = 3.0  # seconds
DRIVER = Path("/proc/driver/nvidia/version")


def pip_options(index: str = CPU_INDEX) -> list[str]:
    """`["--extra-index-url", index]` where processor builds are wanted and to be had, else nothing."""
    return ["--extra-index-url", index] if wants_processor_build() and answers(index) else []


def wants_processor_build() -> bool:
    """Whether PyPI's torch would bring CUDA in vain: on Linux without an NVIDIA driver.

    Elsewhere PyPI's build is the one for processors (and, on a Mac, for Metal).
    """
    return sys.platform == "linux" and not DRIVER.exists() and shutil.which("nvidia-smi") is None


def answers(index: str, patience: float = PATIENCE) -> bool:
    """Whether the index has a page on torch, and says so within `patience` seconds."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=patience) as page:
            return page.status == 200
    except (OSError, ValueError):  # no name, no route, no answer, an error page
        return False


if __name__ == "__main__":
    print(*pip_options(os.environ.get("TORCH_CPU_INDEX", CPU_INDEX)))
