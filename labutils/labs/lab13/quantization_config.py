"""quantization_config: what config.json says about the tensors beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labutils.arrays.inputs import bit_width
from labutils.arrays.scheme import Granularity, PerAxis, PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe
from labutils.labs.contract import arguments
from labutils.labs.lab13 import LESSON
from labutils.labs.recipes import Recipe

METHOD, FORMAT, STATUS = "compressed-tensors", "pack-quantized", "compressed"
FIXED = {"quant_method": METHOD, "format": FORMAT, "quantization_status": STATUS}


def quantization_config(bits: Mapping[str, int | None], group_size: int | None = 32) -> dict:
    """The entry "quantization_config" of a config.json: which layer is in how many bits, and which is in float.

    >>> config = quantization_config({"up": 4, "down": 4, "head": None}, group_size=32)
    >>> config["ignore"], config["config_groups"]["group_0"]["targets"]
    (['head'], ['Linear'])
    >>> config["config_groups"]["group_0"]["weights"]["num_bits"]
    4

    `bits` has the name of each linear layer, and its bits, 2 to 8, or None where it is in float. `group_size` is how
    many weights share a scale, None for all in a row. As compressed-tensors reads it (`QuantizationConfig`). TypeError
    or ValueError for other bits or group sizes.
    """
    from labutils.formats import compressed_tensors

    granularity = PerAxis(0) if group_size is None else PerGroup(group_size)
    schemes = {name: None if width is None else _scheme(name, width, granularity) for name, width in bits.items()}
    return compressed_tensors.quantization_config(schemes)


def _scheme(name: str, width: int, granularity: Granularity) -> Scheme:
    return Scheme(bit_width(width, 8, f"in {name}"), granularity=granularity)


def cases() -> list[Case]:
    kinds = ("attention.self.query", "attention.self.value", "attention.output.dense", "output.dense")
    import torch  # noqa: F401 - the library's config is in torch's room, which takes seconds to import

    blocks = {f"encoder.layer.{i}.{kind}": 8 if kind == kinds[-1] else 4 for i in (0, 1, 10) for kind in kinds}
    return [
        Case("the worked example", ({"up": 4, "down": 4, "head": None}, 32)),
        Case("nothing in float", ({"query": 4, "key": 4}, 32)),
        Case("one layer", ({"dense": 4}, 128)),
        Case("4 and 8 bits", ({"up": 4, "down": 8, "gate": 4, "head": None}, 32)),
        Case("the group size left at its default", ({"up": 8, "down": 8, "head": None},)),
        Case("a scale for each row", ({"up": 8, "down": 8, "head": None}, None)),
        Case("three widths", ({"a": 8, "b": 3, "c": 4, "d": 3}, 64)),
        Case("the layers of a model, one block in float",
             (blocks | {name: None for name in blocks if ".1." in name}, 32)),
        Case("names that begin alike",
             ({"head": None, "head_norm": 4, "layer.1.out": 4, "layer.1.out_proj": None}, 16)),
        Case("several layers in float", ({"lm_head": None, "score": None, "up": 4}, 32)),
    ]  # fmt: skip


def read(value: Any) -> dict:
    """The config as texts that do not depend on the order of lists, names of groups, and entries that are null."""
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict, but it returned {describe(value)}")
    try:
        config = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise Wrong(f"json cannot write what it returned: {error}") from None
    groups, ignore = config.pop("config_groups", None), config.pop("ignore", [])
    if not isinstance(groups, dict):
        raise Wrong(f'"config_groups" should be a dict, name -> group, but it is {describe(groups)}')
    for name, group in groups.items():
        if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
            raise Wrong(f'{name} should be a dict with a list of "targets", but it is {json.dumps(group):.80}')
        group["targets"].sort(key=str)
    if not isinstance(ignore, list):
        raise Wrong(f'"ignore" should be a list of names, but it is {describe(ignore)}')
    every = sorted((without_nulls(group) for group in groups.values()), key=_text)
    return {"top": _text(without_nulls(config)), "ignore": _text(sorted(ignore, key=str)), "groups": _text(every)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(entry) for name, entry in value.items() if entry is not None}
    return value


def judge(answer: dict, case: Case) -> None:
    bits, group_size = arguments(quantization_config, case)
    top, ignore, groups = (json.loads(answer[name]) for name in ("top", "ignore", "groups"))
    for name, wanted in FIXED.items():
        if top.get(name) != wanted:
            raise Wrong(f'"{name}" should be "{wanted}", but it is {_text(top.get(name))}')
    for name, width in bits.items():
        ignored = any(matches(target, name) for target in ignore)
        if ignored and width is not None:
            raise Wrong(f"`{name}` is in {width} bits in the file, but it is ignored: a reader would look for floats")
        if width is None and not ignored:
            raise Wrong(f'`{name}` is in float, but "ignore" does not name it')
        if width is not None:
            judge_layer(name, width, group_size, groups)
    unknown = [name for name in ignore if not any(matches(name, layer) for layer in bits)]
    if unknown:
        raise Wrong(f'"ignore" names {_text(unknown[0])}, which is no layer')
    for name, width in bits.items():
        if width is None and any(matches(t, name) for group in groups for t in group["targets"]):
            raise Wrong(f"`{name}` is in float, but it is the target of a group")


def judge_layer(name: str, width: int, group_size: int | None, groups: list) -> None:
    """Exactly one group has the layer as its target, and says how its weight is stored."""
    own = [g for g in groups if any(matches(target, name) for target in g["targets"])]
    own = own or [g for g in groups if "Linear" in g["targets"]]
    if len(own) != 1:
        raise Wrong(f"`{name}` should be the target of one group, but it is that of {len(own)}")
    weights = own[0].get("weights")
    if not isinstance(weights, dict):
        raise Wrong(f'the group of `{name}` should say under "weights" how they are stored, but there stands {weights}')
    wanted = {"num_bits": width, "type": "int", "symmetric": True, "strategy": "group" if group_size else "channel"}
    wanted |= {"group_size": group_size} if group_size else {}
    for key, expected in wanted.items():
        if weights.get(key) != expected or type(weights.get(key)) is not type(expected):
            raise Wrong(f'`{name}`: "{key}" should be {_text(expected)}, but it is {_text(weights.get(key))}')
    if not group_size and "group_size" in weights:
        raise Wrong(f'`{name}` has one scale a row, so "group_size" is null, but it is {weights["group_size"]}')
    if weights.get("dynamic"):
        raise Wrong(f'`{name}`: the scales are in the file, so "dynamic" is false')
    for name in ("input_activations", "output_activations"):
        if name in own[0]:
            raise Wrong(f'only weights are quantized here, so "{name}" is null, but it is {_text(own[0][name]):.80}')


def matches(target: Any, name: str) -> bool:
    """As compressed-tensors matches names: the whole name, or a regular expression from its beginning after 're:'."""
    if not isinstance(target, str):
        return False
    return bool(re.match(target[3:], name)) if target.startswith("re:") else target == name


def weights_of(num_bits, group_size):
    strategy = "channel" if group_size is None else "group"
    return {"num_bits": num_bits, "type": "int", "symmetric": True, "strategy": strategy, "group_size": group_size,
            "dynamic": False}  # fmt: skip


def layers_in(bits, num_bits):
    return [name for name, width in bits.items() if width == num_bits]


def one_for_each_width(bits, weights, group_size):
    """The groups: name -> targets and what is said of them."""
    widths = sorted({width for width in bits.values() if width is not None})
    return {
        f"group_{i}": {"targets": layers_in(bits, width), "weights": weights(width, group_size)}
        for i, width in enumerate(widths)
    }


@dataclass(frozen=True)
class Config(Recipe):
    """result(fixed | {"config_groups": groups(bits, weights), "ignore": ignore(bits)})."""

    fixed: dict = None
    weights: Callable = weights_of
    groups: Callable = one_for_each_width
    ignore: Callable = lambda bits: layers_in(bits, None)
    result: Callable = lambda config: config

    def __call__(self, bits, group_size=32):
        groups = self.groups(bits, self.weights, group_size)
        fixed = FIXED if self.fixed is None else self.fixed
        return self.result({**fixed, "config_groups": groups, "ignore": self.ignore(bits)})


right = Config()


def without(name):
    return {key: value for key, value in FIXED.items() if key != name}


def saying(**entries):
    """What is said of weights, with other entries; None leaves one out."""

    def weights(num_bits, group_size):
        changed = weights_of(num_bits, group_size) | entries
        return {key: value for key, value in changed.items() if value is not None or key == "group_size"}

    return right.but(weights=weights)


def targets(change):
    """The groups with change(targets, bits)."""

    def groups(bits, weights, group_size):
        made = one_for_each_width(bits, weights, group_size)
        return {name: group | {"targets": change(group["targets"], bits)} for name, group in made.items()}

    return right.but(groups=groups)


def one_group(choose):
    """All layers that are not in float in one group, with the bits that `choose` takes of theirs."""

    def groups(bits, weights, group_size):
        quantized = {name: width for name, width in bits.items() if width is not None}
        return {"group_0": {"targets": list(quantized), "weights": weights(choose(quantized.values()), group_size)}}

    return right.but(groups=groups)


def float_group(num_bits):
    """The groups, with one more of `num_bits` for what is in float."""

    def groups(bits, weights, group_size):
        names = layers_in(bits, None)
        more = {"group_float": {"targets": names, "weights": weights(num_bits, group_size)}} if names else {}
        return one_for_each_width(bits, weights, group_size) | more

    return groups


def activations_too(bits, weights, group_size):
    made = one_for_each_width(bits, weights, group_size)
    return {name: group | {"input_activations": group["weights"]} for name, group in made.items()}


def flat_groups(bits, weights, group_size):
    made = one_for_each_width(bits, weights, group_size)
    return {name: {"targets": group["targets"], **group["weights"]} for name, group in made.items()}


IGNORED = (
    "A layer in the ignore list is read as floats under the name `weight`, which is not in the file if the layer was "
    "quantized. List exactly those that are in float."
)
NO_GROUP = "What is in float is not quantized, to 16 bits or to None: it belongs into `ignore`, and into no group."

MISCONCEPTIONS = (
    Misconception("a layer in the ignore list that was quantized: the last one",
        right.but(ignore=lambda bits: [*layers_in(bits, None), *list(bits)[-1:]]), IGNORED),
    Misconception("a layer in the ignore list that was quantized: the first one",
        right.but(ignore=lambda bits: [*list(bits)[:1], *layers_in(bits, None)]), IGNORED),
    Misconception("the ignore list names what is quantized",
        right.but(ignore=lambda bits: [name for name, width in bits.items() if width is not None]),
        "It is the other way round: `ignore` lists the layers that are *not* quantized."),
    Misconception("the ignore list is empty", right.but(ignore=lambda bits: []),
        "Layers that stay in float are named in `ignore`, even where no group has them as a target: some readers take "
        "every linear layer that is not named there for a quantized one."),
    Misconception("the ignore list is always the head", right.but(ignore=lambda bits: ["lm_head"]),
        "Which layers are in float is in `bits`: those whose value is None."),
    Misconception("tensors instead of layers in the ignore list",
        right.but(ignore=lambda bits: [f"{name}.weight" for name in layers_in(bits, None)]),
        "The list has names of modules, as `named_modules` gives them, not of their tensors."),
    Misconception("tensors instead of layers as targets",
        targets(lambda names, bits: [f"{name}.weight" for name in names]),
        "Targets are names of modules, as `named_modules` gives them, not of their tensors."),
    Misconception("every group is for Linear", targets(lambda names, bits: ["Linear"]),
        "With two widths, each layer would belong to both groups. Name the layers of each."),
    Misconception("every layer is the target of each group", targets(lambda names, bits: list(bits)),
        "A group lists the layers that have its number of bits, and no others."),
    Misconception("one target as a string", targets(lambda names, bits: names[0]),
        "`targets` is a list, even of one name."),
    Misconception("float layers are in a group as well",
        targets(lambda names, bits: [*names, *layers_in(bits, None)]),
        "A layer whose bits are None belongs into `ignore`, and into no group."),
    Misconception("a group for what is in float", right.but(groups=float_group(16)), NO_GROUP),
    Misconception("a group for what is in float", right.but(groups=float_group(None)), NO_GROUP),
    Misconception("one group with the fewest bits", one_group(min),
        "Not all layers have the same number of bits. Make a group for each number that occurs."),
    Misconception("one group with the most bits", one_group(max),
        "Not all layers have the same number of bits. Make a group for each number that occurs."),
    Misconception("always 4 bits", saying(num_bits=4),
        "The number of bits stands in `bits`, for each layer. 4 is that of the first example."),
    Misconception("always groups of 32", saying(group_size=32, strategy="group"),
        "32 is the default. Use `group_size`."),
    Misconception("always groups of 128", saying(group_size=128, strategy="group"),
        "128 is what many files have. Use `group_size`."),
    Misconception("strategy group without a size", saying(strategy="group"),
        "With `group_size` None a scale is shared by a whole row, which this format calls \"channel\"."),
    Misconception("one scale for the whole tensor where group_size is None",
        right.but(weights=lambda b, g: weights_of(b, g) | ({} if g else {"strategy": "tensor"})),
        "With `group_size` None there is a scale for each row, which this format calls \"channel\"; \"tensor\" would "
        "be one for all."),
    Misconception("always strategy channel", saying(strategy="channel"),
        "Scales are shared in groups along a row: the strategy is \"group\", unless `group_size` is None."),
    Misconception("the size of groups left out",
        right.but(weights=lambda b, g: weights_of(b, g) | {"group_size": None}),
        "The shapes of scales must fit: the reader needs `group_size` wherever the strategy is \"group\"."),
    Misconception("not symmetric", saying(symmetric=False),
        "These codes have no zero points. A reader that is told `symmetric` false looks for them in the file."),
    Misconception("symmetric left out", saying(symmetric=None),
        "Say that the codes are symmetric, so that nobody looks for zero points. What a library takes for granted may "
        "change."),
    Misconception("a float type", saying(type="float"),
        "The codes are integers. A float of 4 bits would be another grid, E2M1."),
    Misconception("the type with its bits", right.but(weights=lambda b, g: weights_of(b, g) | {"type": f"int{b}"}),
        "`type` is \"int\" or \"float\"; the bits stand in `num_bits`."),
    Misconception("dynamic scales", saying(dynamic=True),
        "The scales of weights are in the file. Dynamic are those that are computed for each input."),
    Misconception("activations are quantized as well", right.but(groups=activations_too),
        "Only the weights are in few bits. With `input_activations` the reader would round each input too."),
    Misconception("settings beside the targets", right.but(groups=flat_groups),
        "A group has settings for weights, for inputs and for outputs. Those of the weights stand under `weights`."),
    Misconception("groups in a list",
        right.but(result=lambda config: config | {"config_groups": list(config["config_groups"].values())}),
        "`config_groups` is a dict, name -> group."),
    Misconception("numbers as text", right.but(weights=lambda b, g: weights_of(b, g) | {"num_bits": str(b)}),
        "JSON has numbers: 4, without quotes."),
    Misconception("another format: int-quantized", right.but(fixed=FIXED | {"format": "int-quantized"}),
        "That format has a byte for each code. Packed into 32-bit words they are \"pack-quantized\"."),
    Misconception("groups and ignore alone", right.but(fixed={}),
        "By `quant_method`, `format` and `quantization_status` a reader knows whose groups these are."),
    Misconception("the method left out", right.but(fixed=without("quant_method")),
        "By `quant_method` transformers finds the library that reads the file."),
    Misconception("the format left out", right.but(fixed=without("format")),
        "`format` says how codes lie in the tensors: \"pack-quantized\"."),
    Misconception("the status left out", right.but(fixed=without("quantization_status")),
        "Without the status \"compressed\" a reader expects float weights that are yet to be quantized."),
    Misconception("the whole config.json", right.but(result=lambda config: {"quantization_config": config}),
        "What is wanted is the entry itself. Whoever writes config.json puts it under its name."),
    Misconception("text instead of a dict", right.but(result=lambda config: json.dumps(config)),
        "A dict is wanted. Whoever writes config.json makes text of it."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantization_config",
    lab=LESSON,
    place=20,
    points=2,
    reference=quantization_config,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
