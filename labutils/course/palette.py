"""The colours of every picture and panel: Okabe and Ito's, told apart by colour-blind readers too."""

from contextlib import AbstractContextManager

from matplotlib import style

ORIGINAL = "#0072B2"  # blue: what was there before
QUANTIZED = "#D55E00"  # vermilion: what quantization makes of it
THEORY = "#6B6B6B"  # grey: what a formula says
GOOD = "#009E73"  # green: the best choice, a passed check
WARN = "#E69F00"  # orange: what is lost, what needs attention
INK = "#222222"
PAPER = "#FFFFFF"
GRID = "#E4E4E4"
MARGIN = 0.1  # inches around and between axes: a white picture on a dark page needs an edge of its own

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}


def look() -> AbstractContextManager:
    """Draw in these colours, whatever the learner has set in matplotlib before."""
    return style.context(RC, after_reset=True)
