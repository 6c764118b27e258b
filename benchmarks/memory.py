"""Peak memory of each candidate, in a new process for each, because a process's peak never falls.

python -m benchmarks.memory CANDIDATE GRANULARITY SIDE    prints the bytes needed in addition to the input
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
    """A row for each granularity: MiB for the reconstruction, the codes and temporary arrays together."""
    from benchmarks.candidates import CANDIDATES, GRANULARITIES

    rows = []
    for name in progress(GRANULARITIES, "memory"):
        mib = {candidate: peak_beyond_input(candidate, name, side) / MIB for candidate in CANDIDATES}
        others = [candidate for candidate in mib if not candidate.startswith("labutils")]
        ratios = {f"{candidate} / labutils": ratio(mib[candidate], mib["labutils"]) for candidate in others}
        rows.append({"granularity": name, **mib, **ratios})
    return rows


def peak_beyond_input(candidate, granularity, side):
    """Bytes, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", candidate, granularity, str(side)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def measure(candidate, granularity, side):
    """Bytes by which this process's peak grows. A small run before loads everything that is loaded on first use."""
    import torch

    from benchmarks.candidates import CANDIDATES, GRANULARITIES, run

    torch.set_num_threads(1)
    small, x = torch.randn(256, 256), torch.randn(side, side)
    run(CANDIDATES[candidate](GRANULARITIES[granularity], small.shape), small)
    before = peak()
    run(CANDIDATES[candidate](GRANULARITIES[granularity], x.shape), x)
    return peak() - before


def peak():
    """The peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at the parent process's peak
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))
