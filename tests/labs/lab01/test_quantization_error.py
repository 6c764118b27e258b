"""quantization_error, however it is written; tests/arrays/test_metrics.py tests the reference."""

import math

import numpy as np
import pytest

from tests.labs.right_answers import passes


def measures(original, quantized, dequantized):
    e = original - dequantized
    mse = float((e**2).mean())
    return {
        "mse": mse,
        "mae": float(abs(e).mean()),
        "max_error": float(abs(e).max()),
        "relative_error": mse / float(original.var()) if mse else 0.0,
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
        "relative_error": mse / np.var(original) if mse else 0.0,
        "sqnr_db": sqnr,
        "codes_used": np.unique(quantized).size,
        "extra": "a key more than was asked for",
    }


def by_difference_of_logs(original, quantized, dequantized):
    e = (original - dequantized).astype(np.float64).ravel()
    mse = e @ e / e.size
    power = np.mean(original.astype(np.float64) ** 2)
    result = {"mse": mse, "mae": np.abs(e).sum() / e.size, "max_error": max(abs(e.min()), abs(e.max()))}
    result["relative_error"] = mse / original.astype(np.float64).var() if mse else 0
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
        "relative_error": (rms / np.std(original.astype(np.float64))) ** 2 if rms else 0.0,
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
        "relative_error": mse / x.var(correction=0) if mse > 0 else mse,
        "sqnr_db": 10 * torch.log10((x * x).mean() / mse),
        "codes_used": torch.tensor(quantized).unique().numel(),
    }


RIGHT = [measures, as_numpy_scalars, by_difference_of_logs, from_rms, torch_measures]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantization_error", answer)
