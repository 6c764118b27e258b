"""Sliders over real tensors. One file of explorers a lab; each takes the quantizer that it drags as an argument."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "lab00": ["explore_digit"],
        "lab01": ["explore_bits", "explore_clipping"],
        "lab02": ["explore_zero_point"],
        "lab03": ["explore_granularity"],
        "lab04": ["explore_groups"],
        "lab05": ["explore_linear"],
        "lab06": ["explore_model"],
        "lab07": ["explore_calibration"],
        "lab08": ["explore_smoothing"],
        "lab10": ["explore_training"],
        "predict": ["predict"],
    },
)
