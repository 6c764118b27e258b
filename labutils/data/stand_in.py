"""An untrained encoder in place of MiniLM where that is missing, so that a lab can be run to its end."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from labutils.data.sentences import SentenceEncoder, quietly

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
