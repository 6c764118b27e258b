"""The site as the tests build it: every lab, two of them with explorers that move."""

from tools.build_course import lessons
from tools.site.build import build
from tools.site.execution import site_notebook
from tools.site.folder import emptied
from tools.site.pages import stored

MOVES = "02_asymmetric"
MOVE = ("00_start_here", MOVES)  # the first one's explorer is also on the front page


def build_all(out):
    """The folder of the site: labs that MOVE with a few states of their explorers, the others with stored outputs."""
    solutions = {path.stem: stored("solutions", path.stem) for path in lessons()}
    emptied(out)
    solutions |= {stem: site_notebook(stem, out / "states", seconds=0) for stem in MOVE}
    return build(out, solutions, out / "states").parent
