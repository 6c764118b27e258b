"""A histogram with everything beyond a clip shaded: the left half of the pictures about clipping."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from labutils.course import palette
from labutils.labs.values import Histogram, value_axes


class ClippedHistogram:
    """The histogram of `x` from -reach to reach, drawn once, and the shaded areas, which `move` sets to a new clip."""

    def __init__(self, axes: Axes, x: np.ndarray, reach: float):
        self._reach = reach
        original = Histogram.of(x, reach)
        # A logarithmic axis, because the few values beyond the clip would be invisible on a linear one.
        least = original.values[original.values > 0].min() / 2
        axes.stairs(np.maximum(original.values, least), original.edges, fill=True, baseline=least,
                    color=palette.ORIGINAL, alpha=0.4)  # fmt: skip
        value_axes(axes, reach, original.values.max())
        axes.set(yscale="log", ylim=(least, original.values.max() * 3))
        self._shades = [axes.axvspan(0, 1, color=palette.WARN, alpha=0.35, lw=0) for _ in range(2)]
        self._walls = [axes.axvline(0, color=palette.WARN, lw=1.8) for _ in range(2)]

    @property
    def artists(self) -> list[Artist]:
        return [*self._shades, *self._walls]

    def move(self, clip: float) -> None:
        """Shade the values beyond `clip` on both sides."""
        for side, shade, wall in zip((-1, 1), self._shades, self._walls, strict=True):
            near, far = sorted((side * clip, side * 1.08 * self._reach))
            shade.set_x(near)
            shade.set_width(far - near)
            wall.set_xdata([side * clip] * 2)
