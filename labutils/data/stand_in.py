"""Untrained models in place of MiniLM and of the language model, so that a lab can be run to its end without them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labutils.data.gguf_llama import byte_level_tokenizer
from labutils.data.language_model import LanguageModel, llama
from labutils.data.sentences import SentenceEncoder, quietly

if TYPE_CHECKING:
    import torch

WORDS, CLS, SEP = 1000, 1, 2
OUTLIER_CHANNELS = (7, 19)


def untrained_encoder() -> SentenceEncoder:
    """A small transformer with MiniLM's architecture and layer names, random weights, and two outlier channels.

    >>> encoder = untrained_encoder()
    >>> encoder.encode(["A scale.", "A zero point."]).shape
    (2, 128)

    It has learned nothing, so measurements on it say nothing about trained models. The weights are always the same.
    ImportError where transformers is missing.
    """
    with quietly():
        import torch
        import transformers
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with quietly():
            model = transformers.BertModel(config, add_pooling_layer=False)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            if name.endswith("LayerNorm.weight"):
                with torch.no_grad():
                    parameter[list(OUTLIER_CHANNELS)] = 12.0
    return SentenceEncoder(model.eval().requires_grad_(False), _by_hash)


def _by_hash(sentences: Sequence[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
    """Token ids from a hash of each word: no vocabulary is needed."""
    words = (
        [3 + zlib.crc32(word.encode()) % (WORDS - 3) for word in re.findall(r"\w+|\S", s.lower())] for s in sentences
    )
    return {"input_ids": [[CLS, *ids[: max_length - 2], SEP] for ids in words]}


def untrained_language_model() -> LanguageModel:
    """A small language model with SmolLM2's architecture and layer names, and random weights.

    >>> language = untrained_language_model()
    >>> language.decode(language.encode("A scale."))
    'A scale.'
    >>> sum(parameter.numel() for parameter in language.model.parameters())
    164480

    Its tokens are bytes. It has learned nothing, so measurements on it say nothing about trained models. The weights
    are always the same. ImportError where transformers is missing.
    """
    with quietly():
        import tokenizers
        import torch
        import transformers
    end = "<|im_end|>"
    tokens = [end, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    config = transformers.LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    random = torch.Generator().manual_seed(0)
    with quietly():
        with torch.device("meta"):
            shapes = {name: p.shape for name, p in transformers.LlamaForCausalLM(config).named_parameters()}
        weights = {name: _initial(shape, random) for name, shape in shapes.items()}
        tokenizer = byte_level_tokenizer(tokens, merges=[], special=[end], eos_token=end)
        return LanguageModel(llama(config, weights), tokenizer, "Untrained: random weights.")


def _initial(shape: torch.Size, random: torch.Generator) -> torch.Tensor:
    """Ones for a norm, normally distributed weights for a matrix."""
    import torch

    return torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=random) * shape[1] ** -0.5
