"""Quantization labs: the functions, checks and explorers that the notebooks are built on.

>>> from labutils import check, explore_bits

Importing is light: each name is loaded when it is first used, and labs 00 to 04 run where torch is not installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "affine",
        "answers",
        "calibration",
        "checks",
        "data",
        "doctor",
        "embeddings",
        "explore",
        "figures",
        "kernels",
        "metrics",
        "nn",
        "outliers",
        "packing",
        "progress",
        "theory",
        "training",
    ],
    submod_attrs={
        "affine": ["QuantizedArray", "choose_qparams", "dequantize", "fake_quantize", "qparams_of_range", "quantize"],
        "checks": ["CheckFailed", "board", "check", "examine", "or_reference"],
        "embeddings": ["mean_cosine", "retrieval_at_1"],
        "explore": [
            "explore_bits",
            "explore_calibration",
            "explore_clipping",
            "explore_digit",
            "explore_granularity",
            "explore_groups",
            "explore_linear",
            "explore_model",
            "explore_smoothing",
            "explore_training",
            "explore_zero_point",
            "predict",
        ],
        "metrics": ["quantization_error", "sqnr_db"],
        "scheme": ["PerAxis", "PerGroup", "PerTensor", "Scheme"],
    },
)
