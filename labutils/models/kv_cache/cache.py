"""A key/value cache for the attention of transformers that holds integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from labutils.arrays.inputs import true_or_false
from labutils.models.kv_cache.footprint import CacheShape
from labutils.models.kv_cache.format import CacheFormat
from labutils.models.kv_cache.states import CachedStates

Tensor = torch.Tensor


class QuantizedCache(Cache):
    """Keys per channel and values per token, in packed codes; the newest tokens in full precision.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=64, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
    ...                      num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=128)
    >>> model, cache = LlamaForCausalLM(config), QuantizedCache(config, num_bits=4, group_size=16, window=16)
    >>> with torch.no_grad():
    ...     y = model(torch.arange(60)[None], past_key_values=cache)
    >>> cache.get_seq_length(), cache.nbytes  # 32 tokens in codes, 28 in float32
    (60, 13008)

    options         those of `CacheFormat`
    exact_new       False: attention reads what the cache holds, so that one forward pass over a text shows what the
                    quantization costs. True: the tokens of a call read each other in full precision, and are quantized
                    after it; the prompt of a generation then costs no accuracy
    attention_mask  (batch, tokens) of a left-padded prompt: padding is stored as 0, so that it widens no range

    The state after n tokens does not depend on the calls in which they came, as long as keys and values do not. Logits
    do: the tokens of a call also read in codes what was still exact when each of them was the newest. They are those of
    decoding token by token, up to float rounding, where no group is quantized inside a call: where calls begin with
    the tokens 0, window + group_size - 1, window + 2 group_size - 1, ... (one later each, but 0, with `exact_new`).

    Tokens beyond the context that the config names are refused. `crop` removes tokens that are in full precision, at
    least `window`, and refuses others. `reset` forgets the tokens and the padding.
    """

    def __init__(
        self,
        config: Any,
        num_bits: int | None = 4,
        exact_new: bool = False,
        attention_mask: Tensor | None = None,
        **options: Any,
    ):
        self.format, self.shape = CacheFormat.of(num_bits, options), CacheShape.of(config)
        self.padding = None if attention_mask is None else _left_padding(attention_mask)
        true_or_false(exact_new, "exact_new")
        super().__init__(layers=[QuantizedLayer(self.format, self.shape, exact_new) for _ in range(self.shape.layers)])

    @property
    def nbytes(self) -> int:
        """Bytes held, in codes, scales, zero points and full precision; `kv_cache_bytes` is the formula."""
        return sum(layer.nbytes for layer in self.layers)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, ...]:
        """Add (batch, heads, tokens, channels) to a layer; return the keys and values that its attention reads."""
        if self.padding is not None:
            is_padding = self._is_padding(key_states, self.layers[layer_idx].get_seq_length())
            key_states, value_states = (x.masked_fill(is_padding, 0) for x in (key_states, value_states))
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def reset(self) -> None:
        """Forget all tokens, and the padding of their prompts."""
        super().reset()
        self.padding = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was."""
        super().reorder_cache(beam_idx)
        self._select_padding(lambda padding: padding[beam_idx.to(padding.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows, one after the other."""
        super().batch_repeat_interleave(repeats)
        self._select_padding(lambda padding: padding.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        super().batch_select_indices(indices)
        self._select_padding(lambda padding: padding[indices.to(padding.device)])

    def _is_padding(self, states: Tensor, seen: int) -> Tensor:
        """Which of the tokens that come after `seen` others are padding: (batch, 1, tokens, 1)."""
        if len(self.padding) != len(states):
            raise ValueError(f"attention_mask has {len(self.padding)} rows, for a batch of {len(states)}")
        positions = torch.arange(seen, seen + states.shape[2], device=states.device)
        return (positions < self.padding.to(states.device)[:, None])[:, None, :, None]

    def _select_padding(self, change: Callable[[Tensor], Tensor]) -> None:
        self.padding = None if self.padding is None else change(self.padding)


class QuantizedLayer(CacheLayerMixin):
    """The cache of one attention layer."""

    is_sliding = False

    def __init__(self, format: CacheFormat, shape: CacheShape, exact_new: bool = False):
        super().__init__()
        self.shape, self.exact_new = shape, exact_new
        self.cached_keys, self.cached_values = CachedStates("keys", format), CachedStates("values", format)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(states.nbytes for states in self._both)

    @property
    def _both(self) -> tuple[CachedStates, CachedStates]:
        return self.cached_keys, self.cached_values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Called by transformers before the first tokens; there is nothing to allocate."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, ...]:
        """Add tokens; return the keys and values of all tokens. Where they are refused, nothing has changed."""
        pairs = tuple(zip(self._both, (key_states, value_states)))
        for cached, states in pairs:
            cached.check(states)
        self.shape.require_within_context(self.get_seq_length() + key_states.shape[2])
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for cached, states in pairs:
            cached.append(states)
        exact = [cached.read() for cached in self._both] if self.exact_new else None
        for cached in self._both:
            cached.quantize_old()
        return tuple(exact or [cached.read() for cached in self._both])

    def get_seq_length(self) -> int:
        """Tokens held."""
        return len(self.cached_keys)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys the next queries will see, and the position of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """The context of the model; -1 where its config names none."""
        return -1 if self.shape.context is None else self.shape.context

    def reset(self) -> None:
        """Forget all tokens."""
        for cached in self._both:
            cached.clear()
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens, given as a negative number; ValueError where some of them are quantized."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes minus the number of tokens to remove, such as -1, got {tokens_to_remove}")
        removable = self.get_seq_length() - max(cached.quantized for cached in self._both)
        if -tokens_to_remove > removable:
            raise ValueError(
                f"{-tokens_to_remove} tokens cannot be removed: only the newest {removable} are in full precision, "
                "and a group of tokens that is quantized cannot be divided"
            )
        for cached in self._both:
            if tokens_to_remove:
                cached.drop(-tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was: codes and scales move, nothing is quantized anew."""
        self._select(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows, one after the other."""
        self._select(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        self._select(lambda tensor: tensor[indices.to(tensor.device)])

    def offload(self) -> None:
        """Move everything to main memory."""
        self._select(lambda tensor: tensor.to("cpu"))

    def prefetch(self) -> None:
        """Move everything back to the device of the attention."""
        self._select(lambda tensor: tensor.to(self.device))

    def _select(self, change: Callable[[Tensor], Tensor]) -> None:
        for cached in self._both:
            cached.select(change)


def _left_padding(attention_mask: Tensor) -> Tensor:
    """How many tokens of padding each row begins with."""
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        got = f"shape {tuple(attention_mask.shape)}" if isinstance(attention_mask, Tensor) else attention_mask
        raise ValueError(f"attention_mask must be a tensor of shape (batch, tokens), got {got}")
    present = attention_mask.bool()
    if not bool((present == present.cummax(dim=1).values).all()):
        raise ValueError("attention_mask must be 0s and then 1s: only padding on the left can be cached")
    return (~present).sum(dim=1)
