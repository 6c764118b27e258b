"""Lab 01: symmetric quantization, its inverse, clipping, and stochastic rounding."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils import affine
from labutils.metrics import quantization_error as quantization_error  # a learner writes it in lab 01
from labutils.metrics import sqnr_db
from labutils.scheme import MAX_BITS, Scheme, bit_width, positive_number

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_symmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes and the one scale of a tensor: scale = max|x| / (2^(b-1) - 1), q = clamp(round(x / scale)).

    >>> quantize_symmetric(np.array([-1.0, 0.5, 2.54], dtype=np.float32))
    (array([-50,  25, 127], dtype=int8), array(0.02, dtype=float32))
    """
    quantized = affine.quantize(x, Scheme(num_bits))
    return quantized.codes, quantized.scale


def dequantize_symmetric(q: Array, scale: float | Array) -> Array:
    """Floats from codes: x' = q * scale, in float32 (float64 where `scale` is a float64 array).

    >>> dequantize_symmetric(np.array([-50, 25, 127], dtype=np.int8), 0.02)
    array([-1.  ,  0.5 ,  2.54], dtype=float32)
    """
    return reconstruct(q, scale, 0, Scheme(MAX_BITS))


def reconstruct(q: Array, scale: float | Array, zero_point: int, scheme: Scheme) -> Array:
    """x' = scale * (q - zero_point), for codes, a number and an int that come from a learner and may be anything."""
    xp, q = affine.code_array(q)
    dtype = xp.float64 if getattr(scale, "dtype", None) == xp.float64 else xp.float32
    step = _step(xp, positive_number(scale, "scale"), dtype, q)
    zero = 0 if scheme.symmetric else xp.asarray(zero_point, dtype=xp.int32, device=array_api_compat.device(q))
    return affine.dequantize(affine.QuantizedArray(q, step, zero, scheme, dtype))


def _step(xp: Any, scale: float, dtype: Any, beside: Array) -> Array:
    """`scale` as a 0-d array of `dtype` on the device of `beside`; ValueError where `dtype` cannot hold it."""
    if scale > float(xp.finfo(dtype).max):
        raise ValueError(f"scale must be at most {float(xp.finfo(dtype).max):g}, got {scale:g}")
    return xp.asarray(scale, dtype=dtype, device=array_api_compat.device(beside))


def quantize_clipped(x: Array, clip: float, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes on the grid of [-clip, clip]: scale = clip / (2^(b-1) - 1); values beyond it saturate.

    >>> quantize_clipped(np.array([-1.0, 0.5, 9.0], dtype=np.float32), 1.27)
    (array([-100,   50,  127], dtype=int8), array(0.01, dtype=float32))
    """
    scheme = Scheme(num_bits)
    xp, x = affine.real_array(x)
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    scale = _step(xp, positive_number(clip, "clip") / scheme.quant_max, dtype, x)
    quantized = affine.quantize(x, scheme, (scale, 0))
    return quantized.codes, quantized.scale


def best_clip(x: Array, num_bits: int) -> float:
    """The threshold c for which quantizing onto the grid of [-c, c] loses least (mean squared error).

    >>> x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> round(best_clip(x, 4), 1)
    2.4

    The best of 200 fractions of max|x|. An all-zero `x` has nothing to clip, and the answer is 0.0.
    """
    bits = bit_width(num_bits)
    xp, x = affine.real_array(x)
    largest = float(xp.max(xp.abs(x)))
    if largest == 0:
        return 0.0
    fractions = np.linspace(0.005, 1, 200)
    ratios = [sqnr_db(x, affine.fake_quantize(x, Scheme(bits, clip=float(fraction)))) for fraction in fractions]
    return float(fractions[np.argmax(ratios)]) * largest


def quantize_stochastic(x: np.ndarray, num_bits: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rounds 2.3 to 3 with probability 0.3 and to 2 otherwise, so that the mean is 2.3 again.

    >>> x = np.append(np.full(100_000, 0.23), 12.7).astype(np.float32)
    >>> q, scale = quantize_stochastic(x, 8, np.random.default_rng(0))
    >>> sorted(set(q.tolist())), round(float(q[:-1].mean()), 1)
    ([2, 3, 127], 2.3)

    NumPy only. Gupta et al. 2015 (arXiv:1502.02551), section 3.1.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    scheme = Scheme(num_bits)
    _, x = affine.real_array(x)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, got {type(x).__name__}")
    scale, _ = affine.choose_qparams(x, scheme)
    steps = np.floor(x / scale + rng.random(x.shape, dtype=np.float64))
    return np.clip(steps, scheme.quant_min, scheme.quant_max).astype(scheme.code_dtype), scale
