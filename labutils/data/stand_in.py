"""An encoder that stands in for MiniLM where it is missing, so that a lab can be run to its end."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from labutils.data.sentences import SentenceEncoder, quietly

WORDS, CLS, SEP = 1000, 1, 2
LOUD = (7, 19)  # channels that are made outliers


def untrained_encoder() -> SentenceEncoder:
    """A small transformer with MiniLM's architecture and names of layers, random weights, and outliers put in by hand.

    >>> encoder = untrained_encoder()
    >>> encoder.encode(["A scale.", "A zero point."]).shape
    (2, 128)

    It has learned nothing: what is measured on it says nothing about trained models. The same weights every time.
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
                    parameter[list(LOUD)] = 12.0
    return SentenceEncoder(model.eval().requires_grad_(False), _by_hash)


def _by_hash(sentences: Sequence[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
    """Words as numbers, by a hash: no vocabulary is needed."""
    words = (
        [3 + zlib.crc32(word.encode()) % (WORDS - 3) for word in re.findall(r"\w+|\S", s.lower())] for s in sentences
    )
    return {"input_ids": [[CLS, *ids[: max_length - 2], SEP] for ids in words]}
