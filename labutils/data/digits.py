"""Handwritten digits, and a small trained network that reads them, in plain NumPy.

The network is a depthwise-separable one (Howard et al., 2017, "MobileNets", arXiv:1704.04861) for 8 x 8 images. Its
batch norm is folded into the weights (Jacob et al., 2018, arXiv:1712.05877, section 3.2), as is done before a network
is quantized. `tools/train_digits.py` trains and folds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from labutils.arrays.inputs import require_finite

Weights = Mapping[str, np.ndarray]

NETWORK_FILE = Path(__file__).with_name("digits_network.safetensors")
SPLIT = {"test_size": 0.3, "random_state": 0}
IMAGE_SHAPE = (1, 8, 8)  # (C, H, W)
BATCH = 16  # images at a time: the output of a layer fits the processor's cache


# --- the images -------------------------------------------------------------------------------------------------------


def digits(split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Real handwritten digits, 8 x 8 pixels.

    >>> images, labels = digits("test")
    >>> images.shape, images.dtype, float(images.min()), float(images.max())
    ((540, 1, 8, 8), dtype('float32'), 0.0, 1.0)
    >>> labels.shape, labels.dtype, labels[:5].tolist()
    ((540,), dtype('int64'), [1, 4, 5, 6, 9])

    `split` is "train" (1257 images) or "test" (540, never trained on); each digit has the same share of both. The
    arrays are copies, yours to change. Any other split is a ValueError.

    Source: Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI, doi:10.24432/C50P49, as
    scikit-learn ships it.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", not {split!r}')
    images, labels = _splits()[split]
    return images.copy(), labels.copy()


@cache
def _splits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, *IMAGE_SHAPE)  # a pixel counts from 0 to 16
    labels = labels.astype(np.int64)
    train, test, train_labels, test_labels = train_test_split(images, labels, stratify=labels, **SPLIT)
    return {"train": (train, train_labels), "test": (test, test_labels)}


# --- the layers -------------------------------------------------------------------------------------------------------
# Weights and everything public are (N, C, H, W), as in torch. Inside, channels come last, (N, H, W, C): a pointwise
# convolution is then one matmul, and a depthwise one multiplies whole rows of channels at a time.


def _conv3x3(x, weight, bias):
    """Each output channel reads one input channel: its own (depthwise), or the only one (stem).

    x (N, H, W, C or 1), weight (C, 1, 3, 3), bias (C,) -> (N, H, W, C)
    """
    _, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # (N, H+2, W+2, C)
    shifted = (weight[:, 0, i, j] * padded[:, i : i + h, j : j + w] for i, j in np.ndindex(3, 3))
    return _relu6(sum(shifted) + bias)


def _pointwise(x, weight, bias):
    return _relu6(x @ weight[:, :, 0, 0].T + bias)  # (N, H, W, C) @ (C, K) -> (N, H, W, K)


def _pool(x):
    return x.mean(axis=(1, 2))  # (N, H, W, C) -> (N, C)


def _linear(x, weight, bias):
    return x @ weight.T + bias  # (N, C) @ (C, K) -> (N, K)


def _relu6(x):
    return np.clip(x, 0, 6)


ARCHITECTURE = {  # layer: what it computes, and the shape of its weight
    "stem": (_conv3x3, (32, 1, 3, 3)),
    "block1.depthwise": (_conv3x3, (32, 1, 3, 3)),
    "block1.pointwise": (_pointwise, (64, 32, 1, 1)),
    "block2.depthwise": (_conv3x3, (64, 1, 3, 3)),
    "block2.pointwise": (_pointwise, (64, 64, 1, 1)),
    "block3.depthwise": (_conv3x3, (64, 1, 3, 3)),
    "block3.pointwise": (_pointwise, (128, 64, 1, 1)),
    "pool": (_pool, None),
    "head": (_linear, (10, 128)),
}


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight and bias, in the order in which the network uses them."""
    shapes = {}
    for name, (_, shape) in ARCHITECTURE.items():
        if shape:
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


# --- the network ------------------------------------------------------------------------------------------------------


class DigitsNetwork:
    """A trained network whose weights can be replaced for a single call, to see how its answers change.

    >>> network = digits_network()
    >>> network.weights["block1.pointwise.weight"].shape
    (64, 32, 1, 1)
    >>> round(network.accuracy(), 3)
    0.991
    >>> for decimals in (1, 0):
    ...     coarse = {name: w.round(decimals) for name, w in network.weights.items()}
    ...     print(round(network.accuracy(coarse), 3))
    0.985
    0.1

    `.weights` is read-only. Wherever `weights` is an argument, it maps names to arrays of the same shapes; names left
    out keep the trained values, and the network itself never changes. Names that do not exist, wrong shapes, NaN and
    Inf are a ValueError; what is not floating point (None, integer codes not yet dequantized) is a TypeError.
    """

    def __init__(self, weights: Weights):
        shapes = weight_shapes()
        checked = _checked_weights(weights, shapes)
        missing = [name for name in shapes if name not in checked]
        if missing:
            raise ValueError(f"the network also needs weights named {', '.join(missing)}")
        self.weights = MappingProxyType({name: _read_only(checked[name]) for name in shapes})

    def logits(self, images: np.ndarray, weights: Weights | None = None) -> np.ndarray:
        """Ten scores for each image, before any softmax: the position of the largest is the network's answer.

        >>> images, labels = digits("test")
        >>> digits_network().logits(images[:5]).argmax(axis=1), labels[:5]
        (array([1, 4, 5, 6, 9]), array([1, 4, 5, 6, 9]))

        `images` (N, 1, 8, 8), floating point, in [0, 1] -> (N, 10) float32.
        """
        images, weights = _checked_images(images), self._replaced(weights)
        batches = np.split(images, range(BATCH, len(images), BATCH))
        return np.concatenate([_layer_outputs(batch, weights)["head"] for batch in batches])

    def accuracy(
        self, weights: Weights | None = None, images: np.ndarray | None = None, labels: np.ndarray | None = None
    ) -> float:
        """Fraction of images that the network reads right, 0.0 to 1.0; by default of the test split.

        One test image is 1/540, 0.2 percentage points, and the standard error at 98% is 0.6: differences of a few
        images between two sets of weights are noise.
        """
        if (images is None) != (labels is None):
            raise ValueError("accuracy needs images and labels together, or neither (the test split)")
        if images is None:
            images, labels = digits("test")
        answers = self.logits(images, weights).argmax(axis=1)
        return float(np.mean(answers == _checked_labels(labels, len(answers))))

    def activations(self, images: np.ndarray, weights: Weights | None = None) -> dict[str, np.ndarray]:
        """The network's input ("input") and the output of each layer, after its ReLU6: name -> float32 array.

        >>> images, labels = digits("test")
        >>> activations = digits_network().activations(images[:5])
        >>> activations["block1.depthwise"].shape, activations["pool"].shape, activations["head"].shape
        ((5, 32, 8, 8), (5, 128), (5, 10))
        """
        images, weights = _checked_images(images), self._replaced(weights)
        outputs = _layer_outputs(images, weights)
        return {"input": images} | {name: np.moveaxis(x, -1, 1) for name, x in outputs.items()}

    def _replaced(self, weights):
        return self.weights if weights is None else self.weights | _checked_weights(weights, weight_shapes())


@cache
def digits_network() -> DigitsNetwork:
    """The trained network that comes with the course: 17,802 weights and biases, 0.99 of the test digits read right.

    The file is read once; every call returns the same network, whose weights cannot be written to.
    """
    from safetensors.numpy import load_file

    return DigitsNetwork(load_file(NETWORK_FILE))


def _layer_outputs(images, weights):
    """Name -> output of each layer, (N, H, W, C) or (N, C)."""
    x, outputs = np.moveaxis(images, 1, -1), {}  # (N, C, H, W) -> (N, H, W, C)
    for name, (layer, shape) in ARCHITECTURE.items():
        x = layer(x, weights[f"{name}.weight"], weights[f"{name}.bias"]) if shape else layer(x)
        outputs[name] = x
    return outputs


# --- checks of arguments ----------------------------------------------------------------------------------------------


def _checked_weights(weights, shapes):
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must map names to arrays, such as {{'head.weight': w}}, not {_describe(weights)}")
    unknown = [repr(name) for name in weights if name not in shapes]
    if unknown:
        raise ValueError(f"the network has no weights named {', '.join(unknown)}; it has {', '.join(shapes)}")
    return {name: _checked_floats(w, f"weights[{name!r}]", shapes[name]) for name, w in weights.items()}


def _checked_images(images):
    return _checked_floats(images, "images", ("N", *IMAGE_SHAPE))


def _checked_floats(value, name, shape):
    """A float32 copy of `value`, whose shape must be `shape`; "N" stands for any length but 0."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be an array of floating-point numbers, not {_describe(value)}")
    if not _fits(array.shape, shape):
        raise ValueError(f"{name} must have the shape ({', '.join(map(str, shape))}), not {array.shape}")
    array = array.astype(np.float32)
    require_finite(np, array, name)
    return array


def _fits(shape, expected):
    lengths = zip(shape, expected)
    return len(shape) == len(expected) and all(n == m or (m == "N" and n > 0) for n, m in lengths)


def _checked_labels(labels, count):
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be an array of integers, not {_describe(labels)}")
    if array.shape != (count,):
        raise ValueError(f"labels must have the shape ({count},), one for each image, not {array.shape}")
    return array


def _describe(value):
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ + (f" of {dtype}" if dtype is not None else "")


def _read_only(array):
    array.flags.writeable = False
    return array
