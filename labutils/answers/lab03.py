"""Lab 03: a scale for each channel, and a scale for each token."""

from __future__ import annotations

from typing import Any

from labutils import affine
from labutils.layout import Layout
from labutils.metrics import quantization_error
from labutils.scheme import MAX_BITS, PerAxis, PerGroup, PerTensor, Scheme

Array = Any  # a numpy.ndarray or a torch.Tensor

METHODS = {
    f"{symmetry}_{granularity}": (symmetric, shared)
    for granularity, shared in (("per_tensor", PerTensor()), ("per_channel", PerAxis(0)))
    for symmetry, symmetric in (("symmetric", True), ("asymmetric", False))
}


def quantize_per_channel(x: Array, axis: int, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes, and a scale for each index along `axis`: scales[c] = max|channel c| / (2^(b-1) - 1).

    >>> w = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], dtype=np.float32)
    >>> quantize_per_channel(w, axis=0)
    (array([[  25, -127,   51],
           [ 127,   15,  -51]], dtype=int8), array([0.002, 0.02 ], dtype=float32))

    `axis` is the one that is kept; all others are reduced, and it counts from the end where it is negative. The scales
    have the shape (x.shape[axis],). Symmetric; a channel that is all zero gets scale 1.
    """
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerAxis(axis)))
    return quantized.codes, quantized.scale


def dequantize_per_channel(q: Array, scales: Array, axis: int) -> Array:
    """Floats from codes, each times the scale of its channel, in float32 (float64 where `scales` is float64).

    >>> q = np.array([[25, -127, 51], [127, 15, -51]], dtype=np.int8)
    >>> dequantize_per_channel(q, np.array([0.002, 0.02], dtype=np.float32), axis=0).round(3)
    array([[ 0.05 , -0.254,  0.102],
           [ 2.54 ,  0.3  , -1.02 ]], dtype=float32)

    ValueError where the scales have another shape than (q.shape[axis],), or are not all positive and finite.
    """
    granularity = PerAxis(axis)
    xp, q = affine.code_array(q)
    library, scales = affine.real_array(scales, "scales")
    if library is not xp:
        raise TypeError(f"q and scales must come from one library, got {xp.__name__} and {library.__name__}")
    Layout.of(q.shape, granularity).column(xp, scales, "scales")  # raises for another shape
    if not bool(xp.all((scales > 0) & xp.isfinite(scales))):
        raise ValueError(
            f"scales must be positive and finite everywhere, got values from {xp.min(scales)} to {xp.max(scales)}"
        )
    dtype = xp.float64 if scales.dtype == xp.float64 else xp.float32
    scheme = Scheme(MAX_BITS, granularity=granularity)
    return affine.dequantize(affine.QuantizedArray(q, xp.astype(scales, dtype), 0, scheme, dtype))


def compare_quantization_methods(x: Array, num_bits: int = 8) -> dict[str, dict[str, float]]:
    """The error of four quantizers on one tensor, whose channels lie along axis 0, as `quantization_error` tells it.

    >>> w = np.random.default_rng(0).normal(size=(64, 32)) * np.linspace(0.1, 1, 64)[:, None]
    >>> for name, error in compare_quantization_methods(w, num_bits=4).items():
    ...     print(f"{name:<23} {error['sqnr_db']:.1f} dB")
    symmetric_per_tensor    14.8 dB
    asymmetric_per_tensor   16.0 dB
    symmetric_per_channel   20.6 dB
    asymmetric_per_channel  22.0 dB
    """
    errors = {}
    for name, (symmetric, granularity) in METHODS.items():
        quantized = affine.quantize(x, Scheme(num_bits, symmetric, granularity))
        errors[name] = quantization_error(x, quantized.codes, affine.dequantize(quantized))
    return errors


def quantize_per_token(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes, and a scale for each vector along the last axis: one for each token of (..., features).

    >>> x = np.array([[[0.0, 1.27], [-12.7, 3.0]]], dtype=np.float32)  # (batch, tokens, features)
    >>> q, scales = quantize_per_token(x)
    >>> q.tolist(), scales.ravel().round(3), scales.shape
    ([[[0, 127], [-127, 30]]], array([0.01, 0.1 ], dtype=float32), (1, 2, 1))

    The scales have the shape (*x.shape[:-1], 1), so that `q * scales` is the reconstruction.
    """
    _, x = affine.real_array(x)
    if x.ndim == 0:
        raise ValueError("x needs at least one axis, the features, got shape ()")
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerGroup(x.shape[-1])))
    return quantized.codes, quantized.scale
