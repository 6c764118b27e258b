"""quantization_config: what the package reads in it, and right answers however they are written."""

import json

import pytest

from labutils.labs.answers import quantization_config
from labutils.labs.lab13.quantization_config import cases, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

pytest.importorskip("torch")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_compressed_tensors_reads_the_same_out_of_it(case):
    package = pytest.importorskip("compressed_tensors.quantization")
    config = package.QuantizationConfig.model_validate(quantization_config(*case.args))
    bits, group_size = (*case.args, 32)[:2]
    assert config.ignore == [name for name, width in bits.items() if width is None]
    for group in config.config_groups.values():
        assert (group.weights.group_size, group.weights.symmetric) == (group_size, True)
        named = [name for name in bits if name in group.targets or ("Linear" in group.targets and bits[name])]
        assert named and {bits[name] for name in named} == {group.weights.num_bits}


def test_json_gives_back_what_was_written():
    config = quantization_config({"up": 4, "head": None})
    assert json.loads(json.dumps(config)) == config


BAD = {
    "9 bits": (({"up": 9},), ValueError, ("9", "in up")),
    "text": (({"up": "4"},), TypeError, ("num_bits",)),
    "no group": (({"up": 4}, 0), ValueError, ("group_size", "0")),
    "half a weight": (({"up": 4}, 1.5), TypeError, ("group_size", "1.5")),
    "nothing quantized": (({"up": None},), ValueError, ()),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_is_no_width_is_refused(args, kind, words):
    refuses(kind, words, quantization_config, *args)


TOP = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}


def one_loop(bits, group_size=32):
    config = {**TOP, "config_groups": {}, "ignore": []}
    for name, width in bits.items():
        if width is None:
            config["ignore"].append(name)
            continue
        group = config["config_groups"].setdefault(
            f"{width} bits",
            {
                "targets": [],
                "weights": {
                    "num_bits": width,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group" if group_size is not None else "channel",
                    "group_size": group_size,
                    "dynamic": False,
                },
                "input_activations": None,
                "output_activations": None,
            },
        )
        group["targets"].append(name)
    return config


def weights(width, group_size):
    shared = {"strategy": "group", "group_size": group_size} if group_size else {"strategy": "channel"}
    return {"num_bits": width, "type": "int", "symmetric": True, **shared}


def nothing_that_is_null(bits, group_size=32):
    widths = {width for width in bits.values() if width}
    groups = {
        f"group_{width}": {
            "targets": tuple(name for name in bits if bits[name] == width),
            "weights": weights(width, group_size),
        }
        for width in widths
    }
    return dict(TOP, config_groups=groups, ignore=tuple(name for name in bits if bits[name] is None))


def a_group_for_each_layer(bits, group_size=32):
    groups = {
        name: {"targets": [name], "weights": weights(width, group_size)}
        for name, width in bits.items()
        if width is not None
    }
    return TOP | {"config_groups": groups, "ignore": [name for name in bits if name not in groups]}


def by_class_where_one_group_will_do(bits, group_size=32):
    config = nothing_that_is_null(bits, group_size)
    if len(config["config_groups"]) == 1:
        next(iter(config["config_groups"].values()))["targets"] = ["Linear"]
    return config


def by_expressions(bits, group_size=32):
    import re

    config = one_loop(bits, group_size)
    for group in config["config_groups"].values():
        group["targets"] = [f"re:{re.escape(name)}$" for name in group["targets"]]
    return config


def with_more_than_was_asked(bits, group_size=32):
    config = one_loop(bits, group_size)
    for group in config["config_groups"].values():
        group["format"] = "pack-quantized"
        group["weights"] |= {"actorder": None, "observer": "minmax"}
    return config | {"version": "0.20.0", "kv_cache_scheme": None, "global_compression_ratio": None}


RIGHT = [
    one_loop,
    nothing_that_is_null,
    a_group_for_each_layer,
    by_class_where_one_group_will_do,
    by_expressions,
    with_more_than_was_asked,
    right,
]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: getattr(answer, "__name__", "the recipe"))
def test_a_right_answer_passes(answer):
    passes("quantization_config", answer)
