"""How many bytes a key/value cache takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from labutils.arrays.inputs import whole_number
from labutils.arrays.packing import packed_length
from labutils.models.kv_cache.format import CacheFormat


class CacheShape(NamedTuple):
    """What a model's config says about its cache; `context` is None where it names no limit."""

    layers: int
    heads: int
    channels: int
    context: int | None

    @classmethod
    def of(cls, config: Any) -> CacheShape:
        """Read from a transformers config; ValueError for attention that does not keep all tokens."""
        if not hasattr(config, "get_text_config"):
            raise TypeError(f"config must be a transformers config, such as model.config, got {type(config).__name__}")
        config = config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
            raise ValueError(f"only full attention can be cached here, and {config.model_type} has other layers")
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        channels = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(config.num_hidden_layers, heads, channels, getattr(config, "max_position_embeddings", None))

    def require_within_context(self, tokens: int) -> None:
        """ValueError where `tokens` are more than the model was made for."""
        if self.context is not None and tokens > self.context:
            raise ValueError(f"{tokens} tokens do not fit the model's context of {self.context}")


def kv_cache_bytes(
    config: Any,
    tokens: int,
    num_bits: int | None = 4,
    batch: int = 1,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> int:
    """Bytes that a `QuantizedCache` of these options takes after `tokens` tokens: codes, scales, zero points, window.

    >>> from transformers import LlamaConfig
    >>> config = LlamaConfig(num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576)
    >>> kv_cache_bytes(config, 2048, num_bits=None, dtype=torch.float16)  # 2 * 30 * 3 * 2048 * 64 * 2
    47185920
    >>> kv_cache_bytes(config, 2048, num_bits=4, dtype=torch.float16)
    13710240

    dtype    of the full-precision part; by default the config's, float32 where that names none
    options  those of `CacheFormat`

    Each head of each layer keeps, for q of n tokens quantized in q / group_size blocks: per channel, `channels` rows of
    ceil(group_size * b / 8) bytes a block, per token, `group_size` rows of ceil(channels * b / 8); 2 bytes of scale a
    row; ceil(rows * b / 8) bytes of zero points unless symmetric; and channels * itemsize for each of the n - q others.
    """
    format, shape = CacheFormat.of(num_bits, options), CacheShape.of(config)
    tokens, batch = whole_number(tokens, "tokens", least=0), whole_number(batch, "batch", least=1)
    shape.require_within_context(tokens)
    dtype = dtype or getattr(config, "dtype", None) or torch.float32
    each = sum(
        _head_bytes(format.shared_by(kind), format, tokens, shape.channels, dtype) for kind in ("keys", "values")
    )
    return batch * shape.layers * shape.heads * each


def _head_bytes(shared: str | None, format: CacheFormat, tokens: int, channels: int, dtype: torch.dtype) -> int:
    """Bytes of the keys, or of the values, of one head of one layer."""
    if shared is None:
        return tokens * channels * dtype.itemsize
    quantized, bits, group = format.quantized_tokens(tokens), format.num_bits, format.group_size
    rows, row = (channels, group) if shared == "channel" else (group, channels)
    block = rows * (packed_length(row, bits) + format.scale_dtype.itemsize)
    block += 0 if format.symmetric else packed_length(rows, bits)
    return quantized // group * block + (tokens - quantized) * channels * dtype.itemsize
