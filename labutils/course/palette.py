"""The colours of every picture and panel: Okabe and Ito's palette, which colour-blind readers can tell apart."""

from contextlib import AbstractContextManager

ORIGINAL = "#0072B2"  # blue: before quantization
QUANTIZED = "#D55E00"  # vermilion: after quantization
THEORY = "#6B6B6B"  # grey: predicted by a formula
GOOD = "#009E73"  # green: the best choice, a passed check
WARN = "#E69F00"  # orange: lost values, warnings
INK = "#222222"
PAPER = "#FFFFFF"
GRID = "#E4E4E4"
MARGIN = 0.1  # inches around and between axes: on a dark page a white picture needs an edge

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
    from matplotlib import style  # here, because a check needs the colours, but no matplotlib

    return style.context(RC, after_reset=True)
