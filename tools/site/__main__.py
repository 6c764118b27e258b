"""Build the site: python -m tools.site [NN ...]

python -m tools.site           every lab
python -m tools.site 01 02     only these labs, and all other pages
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.build_course import ROOT, lessons
from tools.site.build import build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="beginnings of lesson names, such as 01; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where it is built")
    options = parser.parse_args()
    stems = [path.stem for path in lessons() if path.stem.startswith(tuple(options.only) or "")]
    if not stems:
        parser.error(f"no lesson begins with {' or '.join(options.only)}")
    print(f"The site begins at {build(options.out, stems)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
