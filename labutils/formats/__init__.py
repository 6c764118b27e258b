"""Files that other tools read."""

import pkgutil

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={module.name for module in pkgutil.iter_modules(__path__)},
    submod_attrs={
        "compressed_tensors": ["pack_int32", "quantization_config", "save_compressed_tensors"],
        "gguf": ["q4_0_blocks", "q4_1_blocks", "q8_0_blocks", "save_gguf"],
        "shards": ["quantize_shards"],
    },
)
