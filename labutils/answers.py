"""The functions that learners write, as the labs name them, in terms of the package beneath.

These are references, not solutions: a lab's solution spells out the arithmetic that `affine` keeps in one place.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils import affine
from labutils.metrics import quantization_error, sqnr_db
from labutils.scheme import MAX_BITS, Scheme, bit_width, real_number, whole_number

__all__ = [
    "best_clip",
    "dequantize_symmetric",
    "quantization_error",
    "quantize_clipped",
    "quantize_stochastic",
    "quantize_symmetric",
    "storage_bytes",
]

Array = Any  # a numpy.ndarray or a torch.Tensor


def storage_bytes(num_values: int, num_bits: int) -> int:
    """Lab 00. Whole bytes that `num_values` numbers of `num_bits` bits take when they are packed without gaps.

    >>> storage_bytes(7_000_000_000, 4), storage_bytes(3, 3)
    (3500000000, 2)
    """
    values, bits = whole_number(num_values, "num_values"), whole_number(num_bits, "num_bits")
    if values < 0 or bits < 1:
        raise ValueError(f"expected num_values >= 0 and num_bits >= 1, got {values} and {bits}")
    return -(-values * bits // 8)


def quantize_symmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Lab 01. Codes and the one scale of a tensor: scale = max|x| / (2^(b-1) - 1), q = clamp(round(x / scale)).

    >>> quantize_symmetric(np.array([-1.0, 0.5, 2.54], dtype=np.float32))
    (array([-50,  25, 127], dtype=int8), array(0.02, dtype=float32))
    """
    quantized = affine.quantize(x, Scheme(num_bits))
    return quantized.codes, quantized.scale


def dequantize_symmetric(q: Array, scale: float | Array) -> Array:
    """Lab 01. Floats from codes: x' = q * scale, in float32 (float64 where `scale` is a float64 array).

    >>> dequantize_symmetric(np.array([-50, 25, 127], dtype=np.int8), 0.02)
    array([-1.  ,  0.5 ,  2.54], dtype=float32)
    """
    if not isinstance(q, np.ndarray) and not array_api_compat.is_torch_array(q):
        raise TypeError(f"q must be a NumPy array or a torch tensor, got {type(q).__name__}")
    xp = array_api_compat.array_namespace(q)
    if not xp.isdtype(q.dtype, "integral"):
        raise TypeError(f"q must hold integer codes, got dtype {q.dtype}")
    dtype = xp.float64 if getattr(scale, "dtype", None) == xp.float64 else xp.float32
    step = real_number(scale, "scale")
    if step <= 0:
        raise ValueError(f"scale must be positive, got {step}")
    step = xp.asarray(step, dtype=dtype, device=array_api_compat.device(q))
    return affine.dequantize(affine.QuantizedArray(q, step, 0, Scheme(MAX_BITS), dtype))


def quantize_clipped(x: Array, clip: float, num_bits: int = 8) -> tuple[Array, Array]:
    """Lab 01. Codes on the grid of [-clip, clip]: scale = clip / (2^(b-1) - 1); values beyond it saturate.

    >>> quantize_clipped(np.array([-1.0, 0.5, 9.0], dtype=np.float32), 1.27)
    (array([-100,   50,  127], dtype=int8), array(0.01, dtype=float32))
    """
    scheme = Scheme(num_bits)
    xp, x = affine.real_array(x)
    threshold = real_number(clip, "clip")
    if threshold <= 0:
        raise ValueError(f"clip must be positive, got {threshold}")
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    scale = xp.asarray(threshold / scheme.quant_max, dtype=dtype, device=array_api_compat.device(x))
    quantized = affine.quantize(x, scheme, (scale, 0))
    return quantized.codes, quantized.scale


def best_clip(x: Array, num_bits: int) -> float:
    """Lab 01, stretch. The threshold c for which quantizing onto the grid of [-c, c] loses least (mean squared error).

    >>> x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> 2.4 < best_clip(x, 4) < 2.7
    True

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
    """Lab 01, stretch. Rounds 2.3 to 3 with probability 0.3 and to 2 otherwise, so that the mean is 2.3 again.

    >>> x = np.append(np.full(100_000, 0.23), 12.7).astype(np.float32)
    >>> q, scale = quantize_stochastic(x, 8, np.random.default_rng(0))
    >>> sorted(set(q.tolist())), round(float(q[:-1].mean()), 1)
    ([2, 3, 127], 2.3)

    NumPy only. Gupta et al. 2015 (arXiv:1502.02551), section 3.1.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    scheme = Scheme(num_bits)
    _, x = affine.real_array(np.asarray(x) if isinstance(x, np.generic) else x)
    scale, _ = affine.choose_qparams(x, scheme)
    steps = np.floor(x / scale + rng.random(x.shape, dtype=np.float64))
    return np.clip(steps, scheme.quant_min, scheme.quant_max).astype(scheme.code_dtype), scale
