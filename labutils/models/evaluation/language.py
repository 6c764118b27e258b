"""What a language model predicts: its perplexity on a text, and the text with which it continues a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from labutils.arrays.inputs import whole_number

Tensor = torch.Tensor


def perplexity(
    model: nn.Module,
    ids: Sequence[int] | np.ndarray | Tensor,
    window: int = 512,
    stride: int | None = None,
    progress: bool = False,
) -> float:
    """exp of the mean loss over all tokens that are predicted: 1 for a model that is always sure and right.

    >>> from labutils.data.stand_in import untrained_language_model
    >>> language = untrained_language_model()
    >>> perplexity(language.model, language.encode("It has learned nothing, and guesses."), window=16)
    469.45...

    model     a causal language model of transformers; it is put into eval mode
    ids       token ids of a text, (n,)
    window    how many tokens the model sees at once; each is predicted from those before it, the first is not
    stride    how many tokens lie between the beginnings of two windows, by default `window`, so that none overlap; with
              a smaller one, windows repeat tokens as context, and each token is still predicted once
    progress  shows a bar

    The last window may be shorter. TypeError or ValueError for ids that are not in the vocabulary, a window below 2 or
    beyond the model's context, and for logits that are NaN.
    """
    ids = _checked_ids(ids, model)
    if len(ids) < 2:
        raise ValueError("ids must hold at least 2 tokens: the first is not predicted")
    windows = _windows(len(ids), *_checked_window(window, stride, model))
    total, count = 0.0, 0
    model.eval()
    for start, first, stop in tqdm(windows, "perplexity", unit="window", disable=not progress):
        losses = _losses(model, ids[start:stop])[first - start - 1 :]
        if not bool(torch.isfinite(losses).all()):
            raise ValueError(f"the model's logits hold NaN or Inf, in the window that begins at token {start}")
        total, count = total + float(losses.sum(dtype=torch.float64)), count + len(losses)
    with np.errstate(over="ignore"):  # a mean loss above 709 gives inf
        return float(np.exp(total / count))


def continuation(
    model: nn.Module, tokenizer: Any, prompt: str, max_new_tokens: int = 40, progress: bool = False
) -> str:
    """The text with which a model continues a prompt, always by its most likely token.

    >>> from labutils.data import language_model
    >>> language = language_model()
    >>> continuation(language.model, language.tokenizer, "The capital of France is", max_new_tokens=2)
    ' Paris.'

    It ends after `max_new_tokens`, or earlier where the model ends it. Keys and values of earlier tokens are cached:
    each step computes one token. The model is put into eval mode; `progress` shows a bar. TypeError or ValueError for
    an empty prompt, one that is too long for the model's context, and for logits that are NaN.
    """
    tokens = next_tokens(model, tokenizer, prompt, max_new_tokens)
    bar = tqdm(tokens, "continuation", total=max_new_tokens, unit="token", disable=not progress)
    return tokenizer.decode(list(bar))


def next_tokens(
    model: nn.Module, tokenizer: Any, prompt: str, max_new_tokens: int = 40, cache: Any = None
) -> Iterator[int]:
    """The tokens of `continuation` one by one, each computed when it is asked for.

    `cache` holds keys and values, such as an empty `kv_cache.QuantizedCache`; by default one of transformers.
    """
    max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
    ids = _prompt_ids(model, tokenizer, prompt, max_new_tokens)
    model.eval()
    for _ in range(max_new_tokens):
        ids, cache = _next_token(model, ids, cache)
        if int(ids) == tokenizer.eos_token_id:
            break
        yield int(ids)


def _windows(n: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, first token that is predicted, stop) of each window of a text of `n` tokens."""
    windows, seen = [], 1
    for start in range(0, n, stride):
        stop = min(start + window, n)
        first = max(seen, start + 1)
        if first < stop:
            windows.append((start, first, stop))
        if stop == n:
            break
        seen = stop
    return windows


@torch.no_grad()
def _losses(model: nn.Module, ids: Tensor) -> Tensor:
    """(T,) token ids -> (T - 1,) losses, of all tokens but the first."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0].float()  # (T, V)
    return F.cross_entropy(logits[:-1], ids[1:], reduction="none")


@torch.no_grad()
def _next_token(model: nn.Module, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """The most likely token after `ids`, (1,), and the cache that now holds `ids`, too."""
    output = model(input_ids=ids[None], past_key_values=cache, use_cache=True)
    best, token = output.logits[0, -1].max(dim=0)
    if not math.isfinite(best):  # max is NaN where any logit is
        raise ValueError("the model's logits hold NaN or Inf")
    return token[None], output.past_key_values


# --- checks of arguments ----------------------------------------------------------------------------------------------


def _checked_ids(ids: Sequence[int] | np.ndarray | Tensor, model: nn.Module) -> Tensor:
    """The ids as a tensor on the model's device."""
    embedding = _checked_model(model).get_input_embeddings()
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"ids must be token ids, got {type(ids).__name__}; encode the text first")
    ids = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if ids.ndim != 1 or len(ids) < 1:
        raise ValueError(f"ids must be the token ids of one text, (n,), got shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be whole numbers, got dtype {ids.dtype}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= embedding.num_embeddings:
        wrong = low if low < 0 else high
        raise ValueError(
            f"ids must be below the vocabulary's size, {embedding.num_embeddings}, and not negative, got {wrong}"
        )
    return torch.as_tensor(ids.astype(np.int64), device=embedding.weight.device)


def _prompt_ids(model: nn.Module, tokenizer: Any, prompt: str, max_new_tokens: int) -> Tensor:
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a string, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("prompt must not be empty: the first token is predicted from it")
    ids = _checked_ids(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"], model)
    if len(ids) + max_new_tokens > _context(model):
        raise ValueError(
            f"prompt has {len(ids)} tokens, which with {max_new_tokens} new ones are more than the model's context of "
            f"{_context(model)}"
        )
    return ids


def _checked_model(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module) or not hasattr(model, "get_input_embeddings"):
        raise TypeError(f"model must be a language model of transformers, got {type(model).__name__}")
    return model


def _checked_window(window: int, stride: int | None, model: nn.Module) -> tuple[int, int]:
    window = whole_number(window, "window", least=2)
    if window > _context(model):
        raise ValueError(f"window must be at most the model's context of {_context(model)} tokens, got {window}")
    stride = window if stride is None else whole_number(stride, "stride", least=1)
    if stride > window:
        raise ValueError(f"stride must be at most window, {window}, or tokens would be left out; got {stride}")
    return window, stride


def _context(model: nn.Module) -> int:
    return model.config.max_position_embeddings
