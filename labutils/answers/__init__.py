"""The functions that learners write, as the labs name them, in terms of the package beneath. One file a lab.

These are references, not solutions: a lab's solution spells out the arithmetic that `affine` keeps in one place.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "lab00": ["storage_bytes"],
        "lab01": [
            "best_clip",
            "dequantize_symmetric",
            "quantization_error",
            "quantize_clipped",
            "quantize_stochastic",
            "quantize_symmetric",
        ],
        "lab02": ["dequantize_asymmetric", "quantize_asymmetric", "quantize_in_range"],
        "lab03": [
            "compare_quantization_methods",
            "dequantize_per_channel",
            "quantize_per_channel",
            "quantize_per_token",
        ],
        "lab04": [
            "bits_per_weight",
            "dequantize_group",
            "pack_int3",
            "pack_int4",
            "quantize_group",
            "unpack_int4",
        ],
        "lab05": ["QuantizedLinear", "int8_linear", "quantized_matmul"],
        "lab06": [
            "allocate_bits",
            "compare_predictions",
            "layer_sensitivity",
            "model_bytes",
            "quantize_model",
        ],
        "lab07": ["kl_range", "moving_average_range", "mse_range", "percentile_range"],
        "lab08": ["fold_division", "smooth_linear", "smooth_scales", "split_outliers"],
        "lab10": ["convert_weight", "fake_quantize_ste", "lsq_gradient", "qat_step"],
    },
)
