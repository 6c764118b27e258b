"""Whole networks, in torch: quantized layers, a model's copy made of them, what it costs and what it still answers."""

import pkgutil

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={module.name for module in pkgutil.iter_modules(__path__)},
    submod_attrs={
        "conversion": ["linear_layers", "model_bytes", "quantize_model"],
        "evaluation": ["mean_cosine", "retrieval_at_1"],
        "layers": ["Int8Linear", "PackedLinear", "QuantizedLinear"],
        "products": ["quantized_matmul"],
        "sensitivity": ["allocate_bits", "layer_sensitivity"],
    },
)
