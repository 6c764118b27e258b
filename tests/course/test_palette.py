"""The colours differ enough from white and from each other, for colour-blind readers too."""

from itertools import combinations

import numpy as np
import pytest

from labutils.course import palette
from labutils.course.panel import TONES

LINES = ("ORIGINAL", "QUANTIZED", "THEORY", "GOOD")
FILLS = (*LINES, "WARN")
# Linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1.
SEEN = {
    "all three cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1, sRGB
JUST_NOTICEABLE = 2.3  # in CIELAB: Mahy, Van Eycken and Oosterlinck (1994)


def linear(colour):
    """Linear RGB of '#rrggbb'."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.1's contrast ratio, from 1 to 21."""
    low, high = sorted(XYZ[1] @ linear(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIELAB of linear RGB under D65."""
    xyz = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", [*LINES, "INK"])
def test_lines_stand_out_from_paper(name):
    """3:1, which WCAG 2.1 (1.4.11) asks of graphical objects."""
    assert contrast(getattr(palette, name), palette.PAPER) >= 3


def test_text_is_readable_on_paper():
    """4.5:1, which WCAG 2.1 (1.4.3) asks of text."""
    assert contrast(palette.INK, palette.PAPER) >= 4.5


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(("one", "other"), list(combinations(FILLS, 2)))
def test_two_colours_of_one_picture_are_told_apart(one, other, seen):
    """By five just noticeable differences, so that thin lines can be told apart."""
    here, there = (lab(SEEN[seen] @ linear(getattr(palette, name))) for name in (one, other))
    assert np.linalg.norm(here - there) >= 5 * JUST_NOTICEABLE


def test_panels_use_these_colours():
    assert set(TONES.values()) == {getattr(palette, name) for name in ("GOOD", "QUANTIZED", "WARN", "ORIGINAL")}
