"""Time of import statements, each in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.tables import ratio

ROOT = Path(__file__).resolve().parents[1]
STATEMENTS = (
    "import labutils",
    "from labutils import quantize, Scheme",
    "from labutils import check, explore_bits",
    "import numpy",
    "import torch",
)
HEAVY = ("numpy", "scipy", "matplotlib", "torch")
SCRIPT = """
import sys, time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, *(name for name in {heavy} if name in sys.modules))
"""


def table(statements=STATEMENTS, repeats=7, progress=lambda rounds, title: rounds):
    """A row for each statement: median milliseconds, their ratio to `import numpy`, and the heavy packages loaded."""
    runs = {statement: [] for statement in statements}
    for _ in progress(range(repeats), "imports"):
        for statement in statements:
            runs[statement].append(fresh(statement))
    milliseconds = {statement: 1e3 * median(seconds for seconds, _ in results) for statement, results in runs.items()}
    return [
        {
            "statement": f"`{statement}`",
            "ms": milliseconds[statement],
            "of `import numpy`": ratio(milliseconds[statement], milliseconds["import numpy"]),
            "loads": ", ".join(results[0][1]) or "none of " + ", ".join(HEAVY),
        }
        for statement, results in runs.items()
    ]


def fresh(statement):
    """(seconds, heavy packages loaded) of a statement in a new interpreter."""
    script = SCRIPT.format(statement=statement, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds, *loaded = done.stdout.split()
    return float(seconds), loaded
