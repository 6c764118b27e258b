"""Do the solutions print the same on other processors? Each is run on several emulated machines and compared.

    python tools/machines.py                       every solution on every machine
    python tools/machines.py 05 08                 the solutions whose names begin so
    python tools/machines.py --machines AVX2/1     only these, beside this machine as it is
    python tools/machines.py --seconds 120         what can be done in that time, labs that have varied most first
    python tools/machines.py --kernel arm          by this kernel of Jupyter's: another processor under an emulator, or
                                                   another version of a package (docs/measured.md)

A machine is a set of variables that oneDNN, ATen, MKL, OpenBLAS and NumPy read at start (which instructions they may
use), and a number of threads. Compared are the outputs that nbval compares. Beside that, every number that an f-string
prints is recorded before it is rounded: one that lies nearer to a rounding boundary than its values are apart holds by
luck, and is reported too, unless it only stands in a picture. Printed is a table, and below it what differs. Exit
status 1 where anything does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
INSTRUCTIONS = {
    "as it is": {},
    "AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "ATEN_CPU_CAPABILITY": "avx512"},
    "VNNI": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "ATEN_CPU_CAPABILITY": "avx512"},
    "AVX512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512", "OPENBLAS_CORETYPE": "SKYLAKEX",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "HASWELL",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2", "NPY_DISABLE_CPU_FEATURES": AVX512,
    },
    "AVX": {
        "ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "SANDYBRIDGE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX", "NPY_DISABLE_CPU_FEATURES": f"{AVX512} AVX2 FMA3",
    },
    "SSE4": {
        "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "NEHALEM",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "NPY_DISABLE_CPU_FEATURES": f"{AVX512} AVX2 FMA3",
    },
}  # fmt: skip
THREADS = (1, 2)
MACHINES = {f"{name}/{threads}": (name, threads) for name in INSTRUCTIONS for threads in THREADS}
VARIED_MOST = ("08", "07", "06", "05", "10")  # then the others: they use no torch

# Runs before the notebook: format(value, spec) in every f-string is replaced by a call that also keeps the value.
RECORDER = """
import ast as _ast

class _Recorder(_ast.NodeTransformer):
    def visit_FormattedValue(self, node):
        self.generic_visit(node)
        if node.conversion == -1 and node.format_spec is not None:
            call = _ast.Call(_ast.Name("_recorded", _ast.Load()), [node.value, node.format_spec], [])
            node = _ast.copy_location(_ast.FormattedValue(call, -1, None), node)
            _ast.fix_missing_locations(node)
        return node

_cell, _numbers = [-1], []

def _recorded(value, spec):
    try:
        _numbers.append((_cell[0], float(value), spec)) if spec[-1:] in "efg%" and spec else None
    except (TypeError, ValueError):
        pass
    return format(value, spec)

get_ipython().ast_transformers.append(_Recorder())
get_ipython().events.register("pre_run_cell", lambda info: _cell.__setitem__(0, _cell[0] + 1))
"""
REPORT = "import json as _json\nprint(_json.dumps(_numbers))"


@dataclass
class Run:
    """What a notebook showed on one machine: cell -> text; the numbers in it before they were rounded; and of the text
    what does not describe a picture, in which numbers are drawn and not printed."""

    texts: dict[int, str]
    numbers: list[tuple[int, float, str]] = field(default_factory=list)
    printed: dict[int, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="beginnings of solutions' names, such as 05; all by default")
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=list(MACHINES), metavar="NAME/THREADS")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so long")
    parser.add_argument("--kernel", default="python3", metavar="NAME", help="one that `jupyter kernelspec list` names")
    options = parser.parse_args()
    paths = [path for path in solutions() if path.stem.startswith(tuple(options.only) or "")]
    end, everything = time.monotonic() + options.seconds, {}
    for path in paths:
        runs = everything[path.stem] = {"stored": stored(path)}
        for machine in tqdm(options.machines, desc=path.stem):
            if time.monotonic() < end:
                runs[machine] = run(path, machine, options.kernel)
    print(table(everything, options.machines))
    problems = [f"{stem}, {told}" for stem, runs in everything.items() for told in (*differences(runs), *by_luck(runs))]
    print("", *problems, sep="\n")
    return 1 if problems else 0


def table(everything: dict[str, dict[str, Run]], machines: Iterable[str]) -> str:
    """Markdown: a row for each machine, a column for each solution; "held", or the cells that differ there.

    The last row has the cells with a number that holds by luck. An empty place was not run.
    """
    rows = [["machine", *(stem[:2] for stem in everything)], ["---"] * (len(everything) + 1)]
    for machine in machines:
        there = (cells_that_differ(runs, machine) if machine in runs else None for runs in everything.values())
        rows.append([machine, *("" if cells is None else ", ".join(map(str, cells)) or "held" for cells in there)])
    luck = ([told.split(":")[0].removeprefix("cell ") for told in by_luck(runs)] for runs in everything.values())
    rows.append(["at a boundary", *(", ".join(dict.fromkeys(cells)) or "none" for cells in luck)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cells_that_differ(runs: dict[str, Run], machine: str) -> list[int]:
    """The cells whose text on a machine is not the stored one."""
    return [cell for cell, text in runs["stored"].texts.items() if runs[machine].texts.get(cell, "") != text]


def stored(path: Path) -> Run:
    """What a solution printed where it was built."""
    notebook = nbformat.read(path, as_version=4)
    return Run(texts_of(notebook), printed=texts_of(notebook, pictures=False))


def solutions() -> list[Path]:
    """The solutions, those first that have varied from machine to machine."""
    paths = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))
    return sorted(paths, key=lambda path: VARIED_MOST.index(path.stem[:2]) if path.stem[:2] in VARIED_MOST else 99)


def environment(machine: str) -> dict[str, str]:
    """The variables under which a kernel is that machine; none of the ones that this process was started with."""
    name, threads = MACHINES[machine]
    ours = {variable for variables in INSTRUCTIONS.values() for variable in variables} - {"OPENBLAS_CORETYPE"}
    kept = {variable: value for variable, value in os.environ.items() if variable not in ours}
    return kept | INSTRUCTIONS[name] | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def run(path: Path, machine: str, kernel: str = "python3") -> Run:
    """Execute a solution on an emulated machine, by a kernel of Jupyter's."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [new_code_cell(RECORDER), *notebook.cells, new_code_cell(REPORT)]
    with tempfile.TemporaryDirectory() as scratch:
        variables = environment(machine) | {"LABUTILS_PROGRESS": str(Path(scratch) / "progress")}
        client = NotebookClient(
            notebook, timeout=3600, kernel_name=kernel, allow_errors=True, resources={"metadata": {"path": scratch}}
        )
        client.execute(env=variables)
    *cells, report = notebook.cells[1:]
    code = [i for i, cell in enumerate(cells) if cell.cell_type == "code"]
    numbers = json.loads(report.outputs[0].text)
    notebook.cells = cells
    return Run(texts_of(notebook), [(code[cell], value, spec) for cell, value, spec in numbers if cell < len(code)])


def texts_of(notebook: nbformat.NotebookNode, pictures: bool = True) -> dict[int, str]:
    """What nbval compares of each cell: printed text, the text of results and of `pictures`, the names of errors."""
    texts = {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            outputs = [each for each in cell.outputs if pictures or "image/png" not in each.get("data", {})]
            texts[i] = "".join(
                output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue") or ""
                for output in outputs
            )
    return texts


def differences(runs: dict[str, Run]) -> Iterator[str]:
    """Cells whose text is not the stored one, with the machines where, and the first line that differs."""
    stored = runs["stored"].texts
    for cell, text in stored.items():
        others = {name: run.texts.get(cell, "") for name, run in runs.items() if run.texts.get(cell, "") != text}
        if others:
            theirs = next(iter(others.values()))
            pairs = zip(text.splitlines() or [""], theirs.splitlines() or [""])
            mine, other = next((pair for pair in pairs if pair[0] != pair[1]), (text[-80:], theirs[-80:]))
            yield f"cell {cell}, on {', '.join(others)}: {mine.strip()!r} is {other.strip()!r}"


def by_luck(runs: dict[str, Run]) -> Iterator[str]:
    """Numbers that are nearer to a rounding boundary than their values on the machines are apart."""
    tables = [run.numbers for run in runs.values() if run.numbers]
    printed = runs["stored"].printed
    for same in zip(*tables):
        (cell, _, spec), values = same[0], [value for _, value, _ in same]
        if not printed.get(cell) or len({(c, s) for c, _, s in same}) > 1 or not all(map(math.isfinite, values)):
            continue
        spread = max(values) - min(values)
        if spread and min(distance(value, spec) for value in values) <= spread:
            shown = ", ".join(sorted({f"{value:.6g}" for value in values}))
            yield f"cell {cell}: a number printed with {spec!r} is at a rounding boundary: {shown}"


def distance(value: float, spec: str) -> float:
    """How far a value lies from the nearest one that would be printed otherwise, in its own units.

    >>> round(distance(0.1249, ".2f"), 6), round(distance(1234.0, ".2g"), 6)
    (0.0001, 16.0)
    """
    digits = int(found.group(1)) if (found := re.search(r"\.(\d+)", spec)) else 6
    kind, size = spec[-1], abs(value)
    if kind in "f%":
        step, below = 10.0 ** -(digits + 2 * (kind == "%")), math.inf
    else:
        power = 10.0 ** (math.floor(math.log10(size)) if value else 0)
        step = power * 10.0 ** -(digits if kind == "e" else max(digits, 1) - 1)
        below = size - (power - step / 20)  # below a power of ten, steps are ten times finer
    place = size / step
    return min(abs(place - math.floor(place) - 0.5) * step, below)


if __name__ == "__main__":
    sys.exit(main())
