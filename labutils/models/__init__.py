"""Whole networks, in torch: quantized layers, copies of models made of them, their size and their accuracy."""

import pkgutil

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={module.name for module in pkgutil.iter_modules(__path__)},
    submod_attrs={
        "awq": ["awq_linear", "awq_scales", "clip_search"],
        "calibrated": ["quantize_with"],
        "conversion": ["quantize_model"],
        "evaluation": ["mean_cosine", "retrieval_at_1"],
        "footprint": ["model_bytes"],
        "gptq": ["gptq_linear", "gptq_quantize"],
        "hessian": ["layer_hessians", "output_loss"],
        "left_in_float": ["LeftInFloatWarning"],
        "linear": ["linear_layers"],
        "layers": ["Int8Linear", "PackedLinear", "QuantizedLinear", "repack"],
        "products": ["quantized_matmul"],
        "sensitivity": ["allocate_bits", "layer_sensitivity"],
    },
)
