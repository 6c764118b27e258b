"""Peak memory: each candidate in a process of its own, for a peak is never forgotten.

python -m benchmarks.memory CANDIDATE GRANULARITY SIDE    prints the bytes needed beside the input
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.tables import ratio

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20


def table(side=4096, progress=lambda rounds, title: rounds):
    """Rows of MiB for each granularity: the reconstruction, codes where there are any, and what is used in between."""
    from benchmarks.candidates import CANDIDATES, GRANULARITIES

    rows = []
    for name in progress(GRANULARITIES, "memory"):
        took = {who: peak_beyond_input(who, name, side) / MIB for who in CANDIDATES}
        others = [who for who in took if not who.startswith("labutils")]
        ratios = {f"{who} / labutils": ratio(took[who], took["labutils"]) for who in others}
        rows.append({"granularity": name, **took, **ratios})
    return rows


def peak_beyond_input(who, granularity, side):
    """Bytes, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", who, granularity, str(side)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(told.stdout)


def measure(who, granularity, side):
    """Bytes by which the peak of this process grows. What is loaded on first use is loaded by a small run before."""
    import torch

    from benchmarks.candidates import CANDIDATES, GRANULARITIES, run

    torch.set_num_threads(1)
    small, x = torch.randn(256, 256), torch.randn(side, side)
    run(CANDIDATES[who](GRANULARITIES[granularity], small.shape), small)
    before = peak()
    run(CANDIDATES[who](GRANULARITIES[granularity], x.shape), x)
    return peak() - before


def peak():
    """The most bytes that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss would begin at the peak of the process that started this one
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))
