"""The key/value cache of a language model, in integers of 2 to 8 bits.

| | |
|---|---|
| `QuantizedCache` | packed codes and scales; transformers takes it as `past_key_values`, in `model()` and `generate` |
| `CacheFormat` | its options: bits, which elements share a scale, groups, the window in full precision |
| `kv_cache_bytes` | how many bytes it takes, from the model's config and the number of tokens |

Liu et al., 2024, "KIVI" (arXiv:2402.02750): outliers of keys stay in few channels, so that keys are quantized channel
by channel, over groups of tokens; values have none, and are quantized token by token.
"""

import lazy_loader

# Lazily: only the cache needs transformers.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["QuantizedCache"],
        "footprint": ["kv_cache_bytes"],
        "format": ["CacheFormat"],
    },
)
