"""A quantized model as a folder that transformers and vLLM load: config.json and model.safetensors.

The format is that of the package compressed-tensors, with which transformers reads it; none of it is needed to write.
What a layer's tensors look like is in `compressed_layer`.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from labutils.arrays.affine import QuantizedArray
from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.formats.by_config import built_from_config
from labutils.formats.checkpoint import ALONE, CONFIG, INDEX
from labutils.formats.compressed_layer import format_of, pack_int32, stored_weight, weight_arguments
from labutils.formats.whole_files import whole_files
from labutils.models.layers import Int8Linear
from labutils.models.layers.base import LinearBase
from labutils.models.left_in_float import tied_elsewhere

__all__ = ["pack_int32", "quantization_config", "save_compressed_tensors"]

Tensor = torch.Tensor

# What an Int8Linear does: each row (token) gets its scale and zero point as it comes. With "symmetric" the library's
# scale would be max|x| / 127.5, for codes from -128 to 127.
INT8_INPUTS = {"num_bits": 8, "type": "int", "symmetric": False, "dynamic": True, "strategy": "token"}
ON_PURPOSE = "left in float on purpose"


def save_compressed_tensors(model: nn.Module, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Write a model of transformers with quantized layers to a folder; returns what stayed in float, and why.

    >>> import transformers
    >>> from labutils.models import quantize_model
    >>> sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    >>> model = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    >>> model = quantize_model(model, Scheme(4, granularity=PerGroup(32)), skip=["cls.predictions.decoder"])
    >>> save_compressed_tensors(model, "quantized")  # doctest: +SKIP
    {'cls.predictions.decoder': 'its weight is also that of bert.embeddings.word_embeddings (Embedding)'}
    >>> transformers.AutoModelForMaskedLM.from_pretrained("quantized")  # doctest: +SKIP

    model   as `quantize_model` returns it: QuantizedLinear and PackedLinear of the schemes that `compressed_layer`
            lists, and Int8Linear, in place of nn.Linear
    folder  is made where it is missing; other files in it, such as a tokenizer's, stay. The files that are written
            appear when all are whole, config.json last

    A weight that transformers ties to another is written once. Loaded in float32, the model has exactly the weights of
    `model`, so that their outputs differ by the rounding of float32 (and of bfloat16 where the int4 kernel of torch
    multiplies here). With 8-bit activations that holds layer by layer, but for values half-way between two codes, which
    rounding may tip to either: in a deep network one tips the next. What the readers of today (transformers 5.23,
    compressed-tensors 0.20) do not do by themselves:

    zero points          need quantization_config=CompressedTensorsConfig(dequantize=True) for `from_pretrained`,
                         which takes all layers for the first scheme: beside zero points no other scheme is written, and
                         a model of several schemes must be read without it
    MXFP8, MXFP4, NVFP4  need that, or dtype=torch.bfloat16. Weights of NVFP4 are rounded to bfloat16
    8-bit activations    of two axes, such as those of BERT's pooler, get one scale for all rows, not one for each

    Errors name the layer: TypeError for what is no model of transformers, ValueError without a quantized layer, and for
    what compressed-tensors does not have.
    """
    if not isinstance(model, nn.Module) or not hasattr(model, "config") or not hasattr(model, "save_pretrained"):
        raise TypeError(f"model must be one of transformers, with a config, got {type(model).__name__}")
    folder = Path(folder).expanduser()
    if (folder / INDEX).exists():
        raise ValueError(f"{folder} holds {INDEX}, an index of another checkpoint: name an empty folder")
    layers = _quantized_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no quantized layer: `quantize_model` makes a copy that has")
    linear, known = _names_when_loaded(model)
    if strangers := sorted(set(layers) - linear):
        raise ValueError(f"{strangers[0]} is no nn.Linear in {type(model).__name__} as transformers builds it")
    int8_inputs = [name for name, layer in layers.items() if isinstance(layer, Int8Linear)]
    weights = _weights(layers)
    schemes = {name: weights[name].scheme if name in weights else None for name in sorted(linear)}
    quantization = quantization_config(schemes, int8_inputs)
    tensors = _float_tensors(model, layers, known) | _quantized_tensors(weights, int8_inputs)
    left = _reasons(model, quantization["ignore"])
    with whole_files(folder / ALONE, folder / CONFIG) as (weights_file, config_file):
        save_file(tensors, weights_file, metadata={"format": "pt", "left_in_float": json.dumps(left)})
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)
        config_file.write_text(json.dumps(_config(model, layers, quantization), indent=2), encoding="utf-8")
    return left


def quantization_config(schemes: Mapping[str, Scheme | None], int8_inputs: Collection[str] = ()) -> dict[str, Any]:
    """The entry "quantization_config" of config.json, for all linear layers of a model.

    >>> config = quantization_config({"query": Scheme(4, granularity=PerGroup(32)), "head": None})
    >>> config["format"], config["ignore"], config["config_groups"]["group_0"]["targets"]
    ('pack-quantized', ['head'], ['Linear'])

    schemes      name of a layer -> the scheme of its weight, None where it stays in float
    int8_inputs  names of the layers that multiply 8-bit activations

    Layers of one scheme make a group. A single group has the target "Linear", all linear layers but those to ignore;
    several have the names of their layers. ValueError where no layer is quantized, for names in `int8_inputs` that are
    not, and for schemes that compressed-tensors does not have.
    """
    for name, scheme in schemes.items():
        if scheme is not None and not isinstance(scheme, Scheme):
            raise TypeError(f"{name}: expected a Scheme, or None for float, got {scheme!r}")
    if strangers := [name for name in int8_inputs if schemes.get(name) is None]:
        raise ValueError(f"{strangers[0]} has 8-bit inputs, but no quantized weight")
    members: dict[tuple[Scheme, bool], list[str]] = {}
    for name, scheme in schemes.items():
        if scheme is not None:
            members.setdefault((scheme, name in int8_inputs), []).append(name)
    if not members:
        raise ValueError("no layer has a scheme: there is nothing quantized to describe")
    groups = {}
    for i, (kind, names) in enumerate(members.items()):
        groups[f"group_{i}"] = _group(*kind, names if len(members) > 1 else ["Linear"], names[0])
    asymmetric = next((names[0] for (scheme, _), names in members.items() if not scheme.symmetric), None)
    if asymmetric and len({json.dumps(group | {"targets": []}) for group in groups.values()}) > 1:
        raise ValueError(f"{asymmetric} has zero points, which the library only reads where all layers have one scheme")
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name, scheme in schemes.items() if scheme is None],
    }


def _group(scheme: Scheme, int8_inputs: bool, targets: list[str], first: str) -> dict[str, Any]:
    try:
        return {
            "targets": targets,
            "weights": weight_arguments(scheme),
            "input_activations": dict(INT8_INPUTS) if int8_inputs else None,
            "format": format_of(scheme, int8_inputs),
        }
    except ValueError as error:
        raise ValueError(f"{first}: {error}") from error


def _quantized_layers(model: nn.Module) -> dict[str, LinearBase]:
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, LinearBase)}


def _names_when_loaded(model: nn.Module) -> tuple[set[str], set[str]]:
    """The linear layers, and all tensors, of the model that transformers will build from this one's configuration."""
    built = built_from_config(model)
    return {name for name, module in built.named_modules() if isinstance(module, nn.Linear)}, set(built.state_dict())


def _float_tensors(model: nn.Module, layers: Mapping[str, LinearBase], known: set[str]) -> dict[str, Tensor]:
    """What is not part of a quantized layer, and the biases; a tensor that transformers ties to another only there."""
    state = {name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[0] not in layers}
    state |= {f"{name}.bias": layer.bias for name, layer in layers.items() if layer.bias is not None}
    if strangers := sorted(set(state) - known):
        raise ValueError(f"{strangers[0]}: {type(model).__name__}, as transformers builds it, has no such tensor")
    held = set(state) | {f"{name}.{part}" for name in layers for part in ("weight", *layers[name].state_dict())}
    if missing := sorted(name for name in known - held - set(_tied(model)) if not _left_out(model, name)):
        raise ValueError(f"{missing[0]} is missing: transformers would make it up when it loads {type(model).__name__}")
    again = {name for name, source in _tied(model).items() if _same(state.get(name), state.get(source))}
    kept = {name: tensor for name, tensor in state.items() if name not in again}
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in kept.items()}


def _left_out(model: nn.Module, name: str) -> bool:
    """Whether a module on the way to a tensor is None, as a pooler that a model was made without."""
    *modules, _ = name.split(".")
    for part in modules:
        if not hasattr(model, part):
            return False
        model = getattr(model, part)
        if model is None:
            return True
    return False


def _tied(model: nn.Module) -> dict[str, str]:
    """Name of a tensor -> the one that transformers will let it share."""
    return getattr(model, "all_tied_weights_keys", None) or {}


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _weights(layers: Mapping[str, LinearBase]) -> dict[str, QuantizedArray]:
    """Codes and scales of each layer. Groups that are whole rows throughout the model are scales per row."""
    several = {layer.scheme for layer in layers.values() if _group_size(layer) < layer.in_features}
    weights = {}
    for name, layer in layers.items():
        weight = layer.quantized
        if _group_size(layer) >= layer.in_features and layer.scheme not in several:
            weight = replace(weight, scheme=replace(layer.scheme, granularity=PerAxis(0)))
        weights[name] = weight
    return weights


def _group_size(layer: LinearBase) -> int:
    """How many weights of a row share a scale; 0 where that is not said by groups of integers."""
    granularity = layer.scheme.granularity
    is_grouped = isinstance(granularity, PerGroup) and isinstance(layer.scheme.grid, Integers)
    return granularity.group_size if is_grouped else 0


def _quantized_tensors(weights: Mapping[str, QuantizedArray], int8_inputs: Collection[str]) -> dict[str, Tensor]:
    tensors = {}
    for name, weight in weights.items():
        try:
            stored = stored_weight(weight, name in int8_inputs)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        # A clone: safetensors refuses layers that share a weight.
        tensors |= {f"{name}.{part}": tensor.cpu().clone() for part, tensor in stored.items()}
    return tensors


def _reasons(model: nn.Module, ignored: list[str]) -> dict[str, str]:
    """Name -> why a linear layer of the model is in float, as far as the model shows it."""
    names = dict(model.named_modules(remove_duplicate=False))
    tied = {id(layer): f"its weight is also that of {other}" for layer, other in tied_elsewhere(model).items()}
    return {name: tied.get(id(names[name]), ON_PURPOSE) for name in ignored if name in names}


def _config(model: nn.Module, layers: Mapping[str, LinearBase], quantization: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if any(name.rpartition(".")[0] in layers for name in _tied(model)):
        config.tie_word_embeddings = False  # the head has codes of its own now
    return json.loads(config.to_json_string()) | {"quantization_config": quantization}
