"""A few states of the explorers of labs 00 to 04, recorded in this process."""

import base64
import functools
import json

import numpy as np

from labutils import (
    explore_bits,
    explore_clipping,
    explore_digit,
    explore_granularity,
    explore_groups,
    explore_sentence,
    explore_zero_point,
)
from labutils.labs.answers import quantize_symmetric
from tools.site.pictures import pixels_of
from tools.site.recording import recorded
from tools.site.script import script

WEIGHTS = np.random.default_rng(0).normal(size=4000).astype(np.float32)
MATRIX = (WEIGHTS.reshape(20, 200) * np.geomspace(0.3, 3, 20)[:, None]).astype(np.float32)


def broken_by_an_outlier(x, num_bits=8):
    return quantize_symmetric(x, num_bits) if np.abs(x).max() < 10 else None


EXPLORERS = {
    "00": (explore_sentence, functools.partial(explore_digit, 7)),
    "01": (
        functools.partial(explore_bits, WEIGHTS),
        functools.partial(explore_bits, WEIGHTS, quantize_symmetric),
        functools.partial(explore_clipping, WEIGHTS),
        functools.partial(explore_bits, WEIGHTS, broken_by_an_outlier),
    ),
    "02": (functools.partial(explore_zero_point, WEIGHTS),),
    "03": (functools.partial(explore_granularity, MATRIX),),
    "04": (functools.partial(explore_groups, MATRIX),),
}


@functools.cache
def lab(number):
    """Explorers by name, and what is recorded of each."""
    explorers = {f"{number}-{place}": explore() for place, explore in enumerate(EXPLORERS[number], 1)}
    return explorers, {name: recorded(explorer, seconds=0) for name, explorer in explorers.items()}


def loaded(text):
    """The data of a lab's file."""
    return json.loads(text.removesuffix(");\n").split(", ", 1)[1])


@functools.cache
def data_of(number):
    return loaded(script(number, lab(number)[1], limit=400))


def sheet_of(data, place):
    return pixels_of(base64.b64decode(data["sheets"][place]))


def picture(data, name, index):
    """The pixels that a page shows for a state."""
    explorer = data["explorers"][name]
    sheet, row = explorer["states"][index][:2]
    left, top, width, height = explorer["box"]
    pixels = sheet_of(data, explorer["background"])[..., :3].copy()
    part = sheet_of(data, sheet)[row * height : (row + 1) * height]
    box = pixels[top : top + height, left : left + width]
    seen = part[..., 3] == 255 if part.shape[2] == 4 else np.ones(part.shape[:2], bool)
    box[seen] = part[seen][:, :3]
    return pixels
