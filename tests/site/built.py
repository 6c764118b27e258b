"""The site as the tests build it: every lab, one of them with explorers that move."""

from tools.build_course import lessons
from tools.site.build import build
from tools.site.execution import site_notebook
from tools.site.folder import emptied
from tools.site.pages import stored

MOVES = "02_asymmetric"


def build_all(out):
    """The folder of the site: lab MOVES with a few states of its explorers, the others with their stored outputs."""
    solutions = {path.stem: stored("solutions", path.stem) for path in lessons()}
    emptied(out)
    solutions[MOVES] = site_notebook(MOVES, out / "states", seconds=0)
    return build(out, solutions, out / "states").parent
