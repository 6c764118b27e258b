"""Right answers of labs 00 and 01, however they are written."""

import math

import numpy as np


def top(bits):
    return 2 ** (bits - 1) - 1


def kind(bits):
    return np.int8 if bits <= 8 else np.int16


# --- quantize_symmetric ---


def plain(x, num_bits=8):
    scale = np.abs(x).max() / top(num_bits)
    if scale == 0:
        return np.zeros(x.shape, kind(num_bits)), 1.0
    return np.clip(np.round(x / scale), -top(num_bits) - 1, top(num_bits)).astype(kind(num_bits)), scale


def half_up(x, num_bits=8):
    """Ties go up, not to even."""
    scale = float(np.abs(x).max()) / top(num_bits) or 1.0
    return np.floor(x / np.float64(scale) + 0.5).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), scale


def half_away(x, num_bits=8):
    """Ties go away from zero."""
    scale = np.asarray(np.abs(x).max() / top(num_bits))  # a 0-d array
    scale = np.where(scale == 0, 1, scale)
    steps = np.sign(x) * np.floor(np.abs(x) / scale + 0.5)
    return steps.astype(kind(num_bits)), scale


def by_loops(x, num_bits=8):
    largest = 0.0
    for value in x.flat:
        largest = max(largest, abs(float(value)))
    scale = largest / top(num_bits) if largest else 1.0
    q = np.empty(x.shape, kind(num_bits))
    for index, value in np.ndenumerate(x):
        q[index] = max(-top(num_bits) - 1, min(top(num_bits), round(float(value) / scale)))
    return q, scale


def by_reciprocal(x, num_bits=8):
    largest = max(-x.min(), x.max())
    scale = np.float64(largest) / top(num_bits) if largest > 0 else 1
    return np.rint(x * (1 / np.float64(scale))).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), [scale][0]


def with_torch(x, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    scale = t.abs().amax() / top(num_bits)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    q = torch.clamp(torch.round(t / scale), -top(num_bits) - 1, top(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scale


def as_a_list(x, num_bits=8):
    return list(plain(x, num_bits))


# --- dequantize_symmetric ---


def cast_both(q, scale):
    return q.astype(np.float32) * np.float32(scale)


def multiply_then_cast(q, scale):
    return (q * scale).astype("float32")


def with_dtype(q, scale):
    return np.multiply(q, scale, dtype=np.float32)


def into_out(q, scale):
    out = np.empty(q.shape, dtype=np.float32)
    out[...] = q
    out *= scale
    return out


def in_float64_inside(q, scale):
    return np.asarray(q.astype(float) * float(scale), dtype=np.float32)


def torch_product(q, scale):
    import torch

    return torch.tensor(q).float() * float(scale)


# --- quantization_error ---


def measures(original, quantized, dequantized):
    e = original - dequantized
    mse = float((e**2).mean())
    return {
        "mse": mse,
        "mae": float(abs(e).mean()),
        "max_error": float(abs(e).max()),
        "relative_error": mse / float(original.var()),
        "sqnr_db": 10 * math.log10(float((original**2).mean()) / mse) if mse else math.inf,
        "codes_used": len(set(quantized.ravel().tolist())),
    }


def as_numpy_scalars(original, quantized, dequantized):
    e = np.asarray(original, dtype=np.float64) - np.asarray(dequantized, dtype=np.float64)
    mse = np.mean(np.square(e))
    with np.errstate(divide="ignore"):
        sqnr = 20 * np.log10(np.linalg.norm(original) / np.linalg.norm(e))
    return {
        "mse": mse,
        "mae": np.linalg.norm(e.ravel(), 1) / e.size,
        "max_error": np.linalg.norm(e.ravel(), np.inf),
        "relative_error": mse / np.var(original),
        "sqnr_db": sqnr,
        "codes_used": np.unique(quantized).size,
        "extra": "a key more than was asked for",
    }


def by_difference_of_logs(original, quantized, dequantized):
    e = (original - dequantized).astype(np.float64).ravel()
    mse = e @ e / e.size
    power = np.mean(original.astype(np.float64) ** 2)
    result = {"mse": mse, "mae": np.abs(e).sum() / e.size, "max_error": max(abs(e.min()), abs(e.max()))}
    result["relative_error"] = mse / original.astype(np.float64).var()
    result["sqnr_db"] = 10 * (np.log10(power) - np.log10(mse)) if mse > 0 else float("inf")
    result["codes_used"] = int((np.bincount(quantized.ravel().astype(int) + 32768) > 0).sum())
    return result


def from_rms(original, quantized, dequantized):
    e = original.astype(np.float64) - dequantized
    rms = np.sqrt(np.mean(e * e))
    return {
        "mse": rms**2,
        "mae": np.average(np.abs(e)),
        "max_error": np.max(np.abs(e)),
        "relative_error": (rms / np.std(original.astype(np.float64))) ** 2,
        "sqnr_db": -20 * np.log10(rms / np.sqrt(np.mean(original.astype(np.float64) ** 2))) if rms else np.inf,
        "codes_used": len(np.unique(quantized)),
    }


def torch_measures(original, quantized, dequantized):
    import torch

    x, back = torch.tensor(original).double(), torch.tensor(dequantized).double()
    e = x - back
    mse = (e * e).mean()
    return {
        "mse": mse,
        "mae": e.abs().mean(),
        "max_error": e.abs().max(),
        "relative_error": mse / x.var(correction=0),
        "sqnr_db": 10 * torch.log10((x * x).mean() / mse),
        "codes_used": torch.tensor(quantized).unique().numel(),
    }


# --- quantize_clipped ---


def clip_codes(x, clip, num_bits=8):
    scale = clip / top(num_bits)
    return np.clip(np.round(x / scale), -top(num_bits) - 1, top(num_bits)).astype(kind(num_bits)), scale


def clip_values_first(x, clip, num_bits=8):
    scale = np.float32(clip / top(num_bits))
    return np.rint(np.clip(x, -clip, clip) / scale).astype(kind(num_bits)), scale


def clip_to_minus_top(x, clip, num_bits=8):
    scale = np.float64(clip) / top(num_bits)
    return np.maximum(np.minimum(np.round(x / scale), top(num_bits)), -top(num_bits)).astype(kind(num_bits)), scale


def clip_by_where(x, clip, num_bits=8):
    scale = clip / top(num_bits)
    inside = np.where(np.abs(x) > clip, np.sign(x) * clip, x)
    return np.round(inside / scale).astype(kind(num_bits)), np.asarray(scale)


def clip_with_torch(x, clip, num_bits=8):
    import torch

    scale = clip / top(num_bits)
    q = (torch.tensor(x) / scale).round().clamp(-top(num_bits) - 1, top(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scale


# --- storage_bytes ---


def ceil_of_float(num_values, num_bits):
    return math.ceil(num_values * num_bits / 8)


def floor_of_more(num_values, num_bits):
    return (num_values * num_bits + 7) // 8


def minus_floor_of_minus(num_values, num_bits):
    return -(-num_values * num_bits // 8)


def with_remainder(num_values, num_bits):
    full, rest = divmod(num_values * num_bits, 8)
    return full + (1 if rest else 0)


def numpy_int(num_values, num_bits):
    return np.int64(np.ceil(num_values * num_bits / 8))


# --- best_clip ---


def losses(x, clips, num_bits):
    for clip in clips:
        scale = clip / top(num_bits)
        back = np.clip(np.round(x / scale), -top(num_bits) - 1, top(num_bits)) * scale
        yield float(np.mean((x - back) ** 2))


def grid_of_50(x, num_bits):
    clips = np.linspace(0.02, 1, 50) * np.abs(x).max()
    return clips[np.argmin(list(losses(x, clips, num_bits)))]


def grid_in_sigmas(x, num_bits):
    clips = [k / 20 * float(x.std()) for k in range(5, 200)]
    clips = [c for c in clips if c <= np.abs(x).max()]
    return min(zip(losses(x, clips, num_bits), clips))[1]


def log_grid(x, num_bits):
    clips = np.geomspace(0.05, 1, 80) * np.max(np.abs(x))
    return float(clips[int(np.argmin(list(losses(x, clips, num_bits))))])


def ternary_then_fine(x, num_bits):
    largest = float(np.abs(x).max())
    coarse = np.linspace(0.05, 1, 40) * largest
    near = coarse[np.argmin(list(losses(x, coarse, num_bits)))]
    fine = np.linspace(0.9, 1.1, 21) * near
    return fine[np.argmin(list(losses(x, fine, num_bits)))]


def by_scipy(x, num_bits):
    from scipy.optimize import brute

    largest = float(np.abs(x).max())
    return brute(lambda c: next(losses(x, [float(c[0])], num_bits)), [(largest / 60, largest)], Ns=60, finish=None)


# --- quantize_stochastic ---


def floor_plus_noise(x, num_bits, rng):
    _, scale = plain(x, num_bits)
    return np.floor(x / scale + rng.random(x.shape)).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), scale


def coin_by_fraction(x, num_bits, rng):
    _, scale = plain(x, num_bits)
    steps = x / scale
    low = np.floor(steps)
    return (low + (rng.uniform(size=x.shape) < steps - low)).clip(-top(num_bits) - 1, top(num_bits)).astype(
        kind(num_bits)
    ), scale


def ceil_minus_noise(x, num_bits, rng):
    _, scale = plain(x, num_bits)
    return np.ceil(x / scale - rng.random(x.shape)).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), scale


def round_with_centred_noise(x, num_bits, rng):
    _, scale = plain(x, num_bits)
    q = np.rint(x / scale + rng.uniform(-0.5, 0.5, x.shape))
    return np.clip(q, -top(num_bits), top(num_bits)).astype(kind(num_bits)), scale


def own_generator(x, num_bits, rng):
    _, scale = plain(x, num_bits)
    noise = np.random.default_rng(123).random(x.shape)
    return np.clip(np.floor(x / scale + noise), -top(num_bits), top(num_bits)).astype(kind(num_bits)), scale


RIGHT = {
    "storage_bytes": [ceil_of_float, floor_of_more, minus_floor_of_minus, with_remainder, numpy_int],
    "quantize_symmetric": [plain, half_up, half_away, by_loops, by_reciprocal, with_torch, as_a_list],
    "dequantize_symmetric": [cast_both, multiply_then_cast, with_dtype, into_out, in_float64_inside, torch_product],
    "quantization_error": [measures, as_numpy_scalars, by_difference_of_logs, from_rms, torch_measures],
    "quantize_clipped": [clip_codes, clip_values_first, clip_to_minus_top, clip_by_where, clip_with_torch],
    "best_clip": [grid_of_50, grid_in_sigmas, log_grid, ternary_then_fine, by_scipy],
    "quantize_stochastic": [
        floor_plus_noise, coin_by_fraction, ceil_minus_noise, round_with_centred_noise, own_generator,
    ],
}  # fmt: skip
