"""A Llama of transformers and its tokenizer in the terms of GGUF. The counterpart of `data.gguf_llama`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from labutils.data.gguf_llama import CONFIG, CONTROL, LAYER
from labutils.formats.by_config import built_from_config
from labutils.formats.gguf_blocks import BLOCKS, stored_blocks, type_of
from labutils.formats.gguf_file import StoredTensor
from labutils.models.layers.base import LinearBase

if TYPE_CHECKING:
    import transformers

NORMAL, UNUSED = 1, 5  # types of tokens beside CONTROL
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
PRE = {  # how a byte-level BPE tokenizer cuts a text before it merges: the kinds of its steps, and llama.cpp's name
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("ByteLevel", True),): "gpt-2",
}


def llama_metadata(config: transformers.LlamaConfig) -> dict[str, Any]:
    """What llama.cpp has to know of the architecture.

    >>> import transformers
    >>> llama_metadata(transformers.LlamaConfig(num_hidden_layers=2))["llama.block_count"]
    2

    ValueError for what this form does not say: another architecture than llama, other activations than SiLU, scaled
    rotary embeddings.
    """
    if (kind := getattr(config, "model_type", None)) != "llama":
        raise ValueError(f"the architecture {kind!r} cannot be written as GGUF here, only 'llama'")
    rope = dict(config.rope_parameters)
    if config.hidden_act != "silu" or rope.get("rope_type", "default") != "default":
        given = f"activation {config.hidden_act!r}, rotary embeddings {rope.get('rope_type')!r}"
        raise ValueError(f"a Llama in GGUF has the activation 'silu' and rotary embeddings 'default', got {given}")
    values = config.to_dict() | rope
    metadata = {"general.architecture": "llama"}
    for name, key in CONFIG.items():
        value = values.get(name)
        value = value[0] if isinstance(value, list) else value  # several tokens may end a text
        if value is not None:
            metadata[key] = value
    head = {f"llama.{part}": config.head_dim for part in ("rope.dimension_count", "attention.key_length")}
    return metadata | head | {"llama.attention.value_length": config.head_dim}


def tokenizer_metadata(tokenizer: Any, vocab_size: int) -> dict[str, Any]:
    """A tokenizer of transformers, with as many tokens as the embedding has rows; unused ones are called [PAD0], ...

    ValueError for other kinds than byte-level BPE that splits numbers into digits, or cuts like GPT-2's.
    """
    try:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
    except AttributeError:
        raise TypeError(f"tokenizer must be a fast one of transformers, got {type(tokenizer).__name__}") from None
    steps = state["pre_tokenizer"] or {}
    steps = tuple((step.get("type"), _setting(step)) for step in steps.get("pretokenizers", [steps]))
    kind = state["model"]["type"]
    if kind != "BPE" or state["normalizer"] or steps not in PRE:
        raise ValueError(f"the tokenizer is {kind} after {steps}, and only byte-level BPE is known here")
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    if max(tokens) >= vocab_size:
        raise ValueError(f"the tokenizer has token {max(tokens)}, but the embedding only {vocab_size} rows")
    control = {token["id"] for token in state["added_tokens"] if token["special"]}
    kinds = [(CONTROL if i in control else NORMAL) if i in tokens else UNUSED for i in range(vocab_size)]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"]]
    named = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE[steps],
        "tokenizer.ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)],
        "tokenizer.ggml.token_type": [np.int32(kind) for kind in kinds],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False,
        **{f"tokenizer.ggml.{name}_token_id": i for name, i in named.items() if i is not None},
    }


def _setting(step: dict[str, Any]) -> bool | None:
    """The setting of a step on which the cuts depend."""
    return step.get({"Digits": "individual_digits", "ByteLevel": "use_regex"}.get(step.get("type")))


def llama_tensors(model: nn.Module, kind: str, embedding: str) -> dict[str, StoredTensor]:
    """GGUF's name -> tensor. Quantized layers keep their codes; float ones become `kind`, the embedding `embedding`.

    ValueError, with the tensor's name, for one that has no place in a Llama of GGUF, or does not fit its type.
    """
    names = _gguf_names(model)
    placed = {*names, HEAD}
    for name in model.state_dict():
        layer, _, part = name.rpartition(".")
        if layer not in placed or part == "bias":
            raise ValueError(f"{name} has no place in a Llama of GGUF")
    modules, config = dict(model.named_modules()), model.config
    shapes = _shapes_by_config(model)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tensors = {}
    for name, key in names.items():
        if name not in modules:
            raise ValueError(f"{name} is missing, and the config promises it")
        chosen = embedding if name in (EMBEDDING, HEAD) else kind
        try:
            stored = stored_weight(modules[name], chosen)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if stored.shape != shapes[name]:
            raise ValueError(f"{name} has a weight of {stored.shape}, and by the config it should be {shapes[name]}")
        if num_heads := heads.get(name.rpartition(".")[2]):
            stored = _paired(stored, num_heads)
        tensors[f"{key}.weight"] = stored
    return tensors


def _shapes_by_config(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name of a module -> the shape of its weight in a model that is built from the configuration."""
    tensors = built_from_config(model).state_dict()
    return {name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in tensors.items()}


def _gguf_names(model: nn.Module) -> dict[str, str]:
    """The name of a module -> GGUF's. A head that shares the embedding's weight is not in the file."""
    names = {EMBEDDING: "token_embd", "model.norm": "output_norm"}
    if _weight(model, HEAD) is not _weight(model, EMBEDDING):
        names[HEAD] = "output"
    for i in range(model.config.num_hidden_layers):
        names |= {f"model.layers.{i}.{name}": f"blk.{i}.{key}" for name, key in LAYER.items()}
    return names


def _weight(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)._parameters.get("weight", name)


def stored_weight(module: nn.Module, kind: str) -> StoredTensor:
    """A module's weight: the codes of a quantized layer, a matrix as `kind`, anything else in float32."""
    if isinstance(module, LinearBase):
        shape, kind = (module.out_features, module.in_features), type_of(module.scheme)
        return StoredTensor(kind, shape, lambda: stored_blocks(module.quantized))
    return stored_floats(module.weight.detach(), kind if module.weight.ndim > 1 else "F32")


def stored_floats(x: Any, kind: str) -> StoredTensor:
    """A NumPy or torch array of floats, to be quantized to `kind` when it is written."""
    shape = tuple(x.shape)
    if not kind.startswith("F") and shape[-1:] and shape[-1] % 32:
        raise ValueError(f"{kind} needs rows of whole blocks of 32 values, got shape {shape}")
    return StoredTensor(kind, shape, lambda: BLOCKS[kind](x))


def _paired(stored: StoredTensor, num_heads: int) -> StoredTensor:
    blocks: Callable[[], np.ndarray] = stored.blocks
    return StoredTensor(stored.kind, stored.shape, lambda: in_pairs(blocks(), num_heads))


def in_pairs(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """The rows of a query or key weight in llama.cpp's order: undoes `data.gguf_llama.in_halves`.

    >>> in_pairs(np.array([0.0, 2, 1, 3, 4, 6, 5, 7])[:, None], num_heads=2)[:, 0]
    array([0., 1., 2., 3., 4., 5., 6., 7.])
    """
    halves = rows.reshape(num_heads, 2, len(rows) // num_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
