"""What an import costs: timed in fresh interpreters, one statement each."""

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
    """Rows of median milliseconds, beside `import numpy`, and which heavy packages were loaded."""
    told = {statement: [] for statement in statements}
    for _ in progress(range(repeats), "imports"):
        for statement in statements:
            told[statement].append(fresh(statement))
    took = {statement: 1e3 * median(seconds for seconds, _ in answers) for statement, answers in told.items()}
    return [
        {
            "statement": f"`{statement}`",
            "ms": took[statement],
            "of `import numpy`": ratio(took[statement], took["import numpy"]),
            "loads": ", ".join(answers[0][1]) or "none of " + ", ".join(HEAVY),
        }
        for statement, answers in told.items()
    ]


def fresh(statement):
    """(seconds, heavy packages loaded) of a statement in a new interpreter."""
    script = SCRIPT.format(statement=statement, heavy=HEAVY)
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds, *loaded = told.stdout.split()
    return float(seconds), loaded
