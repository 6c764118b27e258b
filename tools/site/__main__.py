"""Build the site: python -m tools.site [NN ...]

python -m tools.site              every lab, executed, with explorers that move: half an hour
python -m tools.site 01 02        only these labs, and all other pages
python -m tools.site --no-states  nothing is executed, and explorers are pictures: half a minute
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from tools.build_course import ROOT, chosen
from tools.site import pages
from tools.site.build import build
from tools.site.execution import site_notebook
from tools.site.folder import emptied
from tools.site.recording import SECONDS

WHERE = ROOT / "build" / "site"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="beginnings of lesson names, such as 01; all by default")
    parser.add_argument("--no-states", action="store_true", help="show the outputs that solutions store")
    parser.add_argument("--seconds", type=seconds, default=SECONDS, help="of computing, for the states of an explorer")
    parser.add_argument("--out", type=Path, default=WHERE, help="where it is built")
    options = parser.parse_args()
    stems = [path.stem for path in chosen(options.only, parser)]
    try:
        out = emptied(options.out)
    except FileExistsError as refused:
        parser.error(str(refused))
    states = out / "states"
    if options.no_states:
        solutions = {stem: pages.stored("solutions", stem) for stem in stems}
    else:
        solutions = {stem: site_notebook(stem, states, seconds=options.seconds) for stem in stems}
    print(f"The site begins at {build(out, solutions, states)}")
    return 0


def seconds(text: str) -> float:
    """A number of seconds from the command line."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
