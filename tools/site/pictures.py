"""Pictures of an explorer's states, small: a background, and sheets that hold what differs from it.

Neighbouring states look alike: a few of them in one WebP take little more than half of what they take one by one, and
more would take a browser too long to decode. All is lossless: background and sheet together give the pixels that the
kernel shows.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SHEET = 4  # states in a sheet; 8 take 12% less space, and 40 ms to decode in place of 20
SOME = 25  # states of which a median is taken


@dataclass(frozen=True, eq=False)
class Background:
    """Most of the pixels of all states, and the box outside which no state differs from it."""

    pixels: np.ndarray  # (height, width, 3), uint8
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, pngs: Sequence[bytes], still: bytes) -> Background:
        """The background with which these pictures take less space: what never moves, or the median of some of them."""
        some = pngs[:: len(pngs) // SOME + 1]
        median = np.median([pixels_of(png) for png in some], axis=0).astype(np.uint8)
        return min((cls._around(pngs, pixels) for pixels in (pixels_of(still), median)), key=lambda b: b._space(pngs))

    @classmethod
    def _around(cls, pngs: Sequence[bytes], pixels: np.ndarray) -> Background:
        differs = np.zeros(pixels.shape[:2], bool)
        for png in pngs:
            differs |= (pixels_of(png) != pixels).any(axis=2)
        (left, right), (top, bottom) = _span(differs.any(axis=0)), _span(differs.any(axis=1))
        return cls(pixels, left, top, right - left, bottom - top)

    def _space(self, pngs: Sequence[bytes]) -> float:
        """How many bytes all pictures would take, estimated from a few of them."""
        some = pngs[:: max(len(pngs) // SHEET, 1)][:SHEET]
        return len(webp(self.pixels)) + len(self.sheet(some)) * len(pngs) / len(some)

    def sheet(self, pngs: Sequence[bytes]) -> bytes:
        """A WebP of what lies in the box, one picture below the other; transparent where it is as the background."""
        return webp(np.concatenate([self._difference(pixels_of(png)) for png in pngs]))

    def _difference(self, pixels: np.ndarray) -> np.ndarray:
        box = np.s_[self.top : self.top + self.height, self.left : self.left + self.width]
        differs = (pixels[box] != self.pixels[box]).any(axis=2, keepdims=True)
        return np.concatenate([pixels[box] * differs, differs * np.uint8(255)], axis=2)


def pixels_of(picture: bytes) -> np.ndarray:
    """A PNG's or a WebP's pixels, (height, width, 3 or 4), uint8."""
    return np.asarray(Image.open(io.BytesIO(picture)))


def webp(pixels: np.ndarray) -> bytes:
    """A lossless WebP of (height, width, 3 or 4) pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, quality=80, method=4)  # more takes 20 times as long
    return file.getvalue()


def _span(marked: np.ndarray) -> tuple[int, int]:
    """The first place that is marked, and one after the last; one pixel where none is."""
    places = np.flatnonzero(marked)
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 1)
