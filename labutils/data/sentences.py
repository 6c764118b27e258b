"""The sentence encoder MiniLM as a torch model: sentences in, embeddings out.

Reimers and Gurevych, 2019, "Sentence-BERT" (arXiv:1908.10084): a transformer reads the tokens, their outputs are
averaged, and the average is normalised, so that the dot product of two embeddings is their cosine. torch and
transformers are imported when an encoder is first asked for.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.inputs import whole_number
from labutils.data import minilm

if TYPE_CHECKING:
    from torch import nn

MAX_TOKENS = 256  # as published: sentence_bert_config.json


def sentence_encoder() -> SentenceEncoder:
    """MiniLM with its trained weights: 22.6 million, 36 linear layers of which hold 10.6 million.

    >>> encoder = sentence_encoder()
    >>> a, b, c = encoder.encode(["A scale maps codes to floats.", "Codes times scale are floats.", "It rains."])
    >>> bool(a @ b > 0.5 > a @ c)
    True

    The files are read and verified once (see `minilm`); every call returns a model of its own, so that layers
    replaced in one do not show in another. `minilm.MiniLMMissing`, which says how to get it, where a file is nowhere to
    be found or is not the published one; ImportError where torch or transformers is not installed.
    """
    model, tokenizer = _trained()
    return SentenceEncoder(copy.deepcopy(model), tokenizer)


class SentenceEncoder:
    """A transformer and its tokenizer, with the pooling that turns token outputs into an embedding.

    model      the transformer, an nn.Module: its linear layers may be quantized, in place or in a copy
    tokenizer  text -> token ids
    """

    def __init__(self, model: nn.Module, tokenizer: Any):
        self.model = model
        self.tokenizer = tokenizer

    def with_model(self, model: nn.Module) -> SentenceEncoder:
        """The same encoder around another model, such as a quantized copy of `.model`; nothing is copied.

        >>> import copy
        >>> encoder = sentence_encoder()
        >>> halved = encoder.with_model(copy.deepcopy(encoder.model).bfloat16())
        >>> bool((halved.encode(["A scale."]) * encoder.encode(["A scale."])).sum() > 0.999)
        True
        """
        return SentenceEncoder(checked_model(model), self.tokenizer)

    def encode(self, sentences: Iterable[str], batch_size: int = 32, progress: bool = False) -> np.ndarray:
        """Embeddings of length 1, (n, 384) float32, in the order of the sentences.

        >>> sentence_encoder().encode(["A scale.", "A zero point."]).shape
        (2, 384)

        Each sentence is cut after 256 tokens, as published. Batches hold sentences of similar length, which saves
        padding; batching changes an embedding by no more than float rounding, unless a quantizer in the model depends
        on the whole batch. The model is put into eval mode and runs where its parameters are; `progress` shows a bar.
        TypeError for anything but strings; ValueError for no sentences, and for one without text.
        """
        import torch

        sentences, batch_size = _checked_sentences(sentences), whole_number(batch_size, "batch_size", least=1)
        ids = self.tokenizer(sentences, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))  # longest first: too little memory shows at once
        batches = [[ids[i] for i in order[start : start + batch_size]] for start in range(0, len(ids), batch_size)]
        self.model.eval()
        with torch.no_grad():  # inference_mode would forbid changing the tensors that a hook keeps in place
            embeddings = np.concatenate([self._embeddings(batch) for batch in _with_progress_bar(batches, progress)])
        return embeddings[np.argsort(order)]

    def _embeddings(self, ids: list[list[int]]) -> np.ndarray:
        """Token ids of B sentences -> (B, 384)."""
        import torch

        device = next(itertools.chain(self.model.parameters(), self.model.buffers())).device
        mask = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long, device=device)  # (B, T)
        tokens = torch.zeros_like(mask)  # padded with 0, the token [PAD]
        for row, sentence in enumerate(ids):
            tokens[row, : len(sentence)] = torch.tensor(sentence)
            mask[row, : len(sentence)] = 1
        outputs = self.model(input_ids=tokens, attention_mask=mask)[0].float()  # (B, T, 384)
        weights = mask[:, :, None].float()
        mean = (outputs * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


# --- loading ----------------------------------------------------------------------------------------------------------


@cache
def _trained() -> tuple[nn.Module, Any]:
    """The model with its trained weights, frozen, and the tokenizer; cached, and only copied from."""
    weights, config, tokenizer = (str(minilm.find(file)[0]) for file in minilm.PUBLISHED)
    try:
        with quietly():
            import torch
            import transformers
            from safetensors.torch import load_file
    except ModuleNotFoundError as missing:
        name = missing.name
        raise ImportError(f"sentence_encoder needs {name}, which is not installed: `pip install {name}`") from missing
    with quietly(), torch.random.fork_rng(devices=[]):  # the random initial weights must not change the learner's seed
        # Without the pooler: embeddings are means, and an unused layer would be counted in sizes.
        model = transformers.BertModel(transformers.BertConfig.from_json_file(config), add_pooling_layer=False)
        fast_tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer)
    unread = ("pooler.", "embeddings.position_ids")
    model.load_state_dict({name: w for name, w in load_file(weights).items() if not name.startswith(unread)})
    return model.eval().requires_grad_(False), fast_tokenizer


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress log lines and warnings: transformers imports every quantization library it finds, and some warn.

    Their messages hold paths, which would differ in every notebook.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- checks of arguments ----------------------------------------------------------------------------------------------


def _checked_sentences(sentences: Iterable[str]) -> list[str]:
    if isinstance(sentences, (str, bytes)) or not isinstance(sentences, Iterable):
        hint = "; put one sentence into a list: [sentence]" if isinstance(sentences, str) else ""
        raise TypeError(f"sentences must be a list of strings, got {type(sentences).__name__}{hint}")
    sentences = list(sentences)
    if not sentences:
        raise ValueError("sentences must hold at least one sentence, got none")
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TypeError(f"sentences must be a list of strings, but sentences[{i}] is {type(sentence).__name__}")
        if not sentence.strip():
            raise ValueError(f"a sentence must have text, but sentences[{i}] is {sentence!r}")
    return sentences


def checked_model(model: nn.Module) -> nn.Module:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, such as a quantized copy of `.model`, got {type(model).__name__}")
    return model


def _with_progress_bar(batches: list, shown: bool) -> Iterable:
    from tqdm.auto import tqdm

    return tqdm(batches, desc="encode", unit="batch", disable=not shown)
