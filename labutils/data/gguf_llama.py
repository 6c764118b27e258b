"""A Llama and its tokenizer in a GGUF file, in the terms of transformers: configuration, weights, tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.data.gguf import GGUF

if TYPE_CHECKING:
    import transformers

CONFIG = {  # transformers' name: GGUF's
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "max_position_embeddings": "llama.context_length",
    "num_attention_heads": "llama.attention.head_count",
    "num_hidden_layers": "llama.block_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
    "vocab_size": "llama.vocab_size",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
LAYER = {  # in a layer, transformers' name: GGUF's
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONTROL = 3  # the type of tokens such as <|im_end|>, which stand for themselves wherever they occur in a text


def config_of(file: GGUF) -> transformers.LlamaConfig:
    """The configuration that the file's metadata describe."""
    import transformers

    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{file.path.name} holds a model of the architecture {architecture!r}, not 'llama'")
    tied = "output.weight" not in file.tensors
    return transformers.LlamaConfig(
        **{name: file.metadata[key] for name, key in CONFIG.items()}, tie_word_embeddings=tied
    )


def weights_of(file: GGUF, config: transformers.LlamaConfig) -> dict[str, np.ndarray]:
    """Name -> float32 weight, with transformers' names and its order of rows."""
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    if not config.tie_word_embeddings:
        names["lm_head"] = "output"
    for i in range(config.num_hidden_layers):
        names |= {f"model.layers.{i}.{name}": f"blk.{i}.{key}" for name, key in LAYER.items()}
    weights = {f"{name}.weight": file.read(f"{key}.weight") for name, key in names.items()}
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for name, weight in weights.items():
        if num_heads := heads.get(".".join(name.split(".")[-2:])):
            weights[name] = in_halves(weight, num_heads)
    return weights


def in_halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """The rows of a query or key weight in transformers' order.

    >>> in_halves(np.arange(8.0).reshape(8, 1), num_heads=2)[:, 0]
    array([0., 2., 1., 3., 4., 6., 5., 7.])

    RoPE rotates pairs of rows in each head. llama.cpp has the two rows of a pair beside each other, transformers has
    all first ones before all second ones.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def tokenizer_of(file: GGUF) -> transformers.PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer that the file's metadata describe, which splits numbers into digits."""
    metadata = {key.rpartition(".")[2]: value for key, value in file.metadata.items() if "tokenizer.ggml" in key}
    if (kind := (metadata.get("model"), metadata.get("pre"))) != ("gpt2", "smollm"):
        raise ValueError(f"{file.path.name} has a tokenizer {kind}, and only ('gpt2', 'smollm') can be read")
    tokens = metadata["tokens"]
    special = [token for token, kind in zip(tokens, metadata["token_type"]) if kind == CONTROL]
    return byte_level_tokenizer(tokens, metadata["merges"], special, tokens[metadata["eos_token_id"]])


def byte_level_tokenizer(
    tokens: list[str], merges: list[str], special: list[str], eos_token: str
) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that splits numbers into digits; `merges` are pairs of tokens with a space between."""
    import tokenizers
    import transformers

    pairs: list[Any] = [tuple(pair.split(" ")) for pair in merges]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, byte_level])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos_token, clean_up_tokenization_spaces=False
    )
