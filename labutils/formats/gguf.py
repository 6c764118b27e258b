"""Write GGUF, the file format of llama.cpp: a Llama with its tokenizer, or any tensors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from labutils.arrays.affine import QuantizedArray
from labutils.data.language_model import LanguageModel
from labutils.formats.gguf_blocks import BLOCKS, q4_0_blocks, q4_1_blocks, q8_0_blocks, stored_blocks, type_of
from labutils.formats.gguf_file import StoredTensor, write_gguf
from labutils.formats.gguf_llama import llama_metadata, llama_tensors, stored_floats, tokenizer_metadata

__all__ = ["q4_0_blocks", "q4_1_blocks", "q8_0_blocks", "save_gguf"]

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}  # llama.cpp's numbers for files of mostly one type


def save_gguf(
    source: LanguageModel | nn.Module | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    kind: str = "Q8_0",
    embedding: str = "Q8_0",
    tokenizer: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a language model, or tensors, to a GGUF file, which appears under its name when it is whole.

    >>> save_gguf(language_model(), "smollm2.gguf")  # doctest: +SKIP
    >>> save_gguf({"up": np.random.randn(8, 64)}, "one.gguf", kind="Q4_0")  # doctest: +SKIP
    >>> labutils.data.gguf.GGUF("one.gguf").tensors["up"].type.name  # doctest: +SKIP
    'Q4_0'

    The first file has 145 MB, and llama.cpp runs it: `llama-cli -m smollm2.gguf`.

    source     a LanguageModel, a LlamaForCausalLM, or name -> array of floats, or QuantizedArray
    kind       the type of float matrices: F32, F16, Q8_0, Q4_0 or Q4_1; vectors stay F32
    embedding  the same for a model's embedding and head
    tokenizer  one of transformers, where `source` does not bring its own; without one llama.cpp reads no text
    metadata   more of them: key -> number, bool, string or list of these

    The codes of quantized layers stay what they are: Scheme(8, granularity=PerGroup(32)) is Q8_0, 4 bits are Q4_0 or,
    with zero points, Q4_1; scales are rounded to float16. Floats are quantized as llama.cpp does. ValueError, with a
    name, for another architecture, scheme or shape; TypeError for another kind of source.
    """
    for name in (kind, embedding):
        if name not in BLOCKS:
            raise ValueError(f"the type of matrices must be one of {', '.join(BLOCKS)}, got {name!r}")
    if isinstance(source, LanguageModel):
        source, tokenizer = source.model, tokenizer or source.tokenizer
    if isinstance(source, nn.Module):
        described = llama_metadata(getattr(source, "config", None))
        tensors = llama_tensors(source, kind, embedding)
        if tokenizer is not None:
            described |= tokenizer_metadata(tokenizer, source.config.vocab_size)
    elif isinstance(source, Mapping):
        described, tensors = {}, {name: _stored(name, value, kind) for name, value in source.items()}
    else:
        raise TypeError(f"source must be a LanguageModel, a module or a dict of arrays, got {type(source).__name__}")
    if not tensors:
        raise ValueError("source holds no tensors")
    matrices = Counter(tensor.kind for tensor in tensors.values() if len(tensor.shape) > 1)
    most = matrices.most_common(1)[0][0] if matrices else "F32"
    described |= {"general.file_type": FILE_TYPES[most], "general.quantization_version": 2}
    if not all(isinstance(key, str) for key in metadata or {}) or "general.alignment" in (metadata or {}):
        raise ValueError("metadata has strings for keys, and not general.alignment, which is 32 bytes here")
    write_gguf(path, described | dict(metadata or {}), tensors)


def _stored(name: str, value: Any, kind: str) -> StoredTensor:
    try:
        if isinstance(value, QuantizedArray):
            return StoredTensor(type_of(value.scheme), tuple(value.codes.shape), lambda: stored_blocks(value))
        if not hasattr(value, "ndim"):
            raise TypeError(f"expected an array of floats or a QuantizedArray, got {type(value).__name__}")
        return stored_floats(value, kind if value.ndim > 1 else "F32")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
