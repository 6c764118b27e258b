"""quantize_shards: a checkpoint of several files, quantized one file at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays import packing
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import place
from labutils.labs.contract import largest_at
from labutils.labs.lab04.quantize_group import quantize_group
from labutils.labs.lab13 import LESSON
from labutils.labs.lab13._store import on_store, read_checkpoint
from labutils.labs.lab13.pack_int32 import pack_int32
from labutils.labs.recipes import Recipe

PARTS = ("weight_packed", "weight_scale", "weight_shape")


def quantize_shards(
    files: Sequence[str],
    read: Callable[[str], Mapping[str, np.ndarray]],
    write: Callable[[str, Mapping[str, np.ndarray]], None],
    group_size: int = 32,
    ignore: Collection[str] = (),
    tied: Collection[str] = (),
) -> dict:
    """Write each shard again with 4-bit weights, and return the index that says which tensor is in which file.

    >>> shards = {"1": {"up.weight": np.ones((2, 32), dtype=np.float32), "up.bias": np.zeros(2, dtype=np.float32)}}
    >>> written = {}
    >>> index = quantize_shards(["1"], shards.get, written.__setitem__)
    >>> {name: tensor.shape for name, tensor in written["1"].items()}
    {'up.weight_packed': (2, 4), 'up.weight_scale': (2, 1), 'up.weight_shape': (2,), 'up.bias': (2,)}
    >>> index["metadata"]
    {'total_size': 64}

    `read(file)` gives a shard's tensors by name, `write(file, tensors)` stores them. Each shard is written before the
    next one is read, so memory holds one at a time. A matrix named "layer.weight" becomes the layer's `weight_packed`,
    `weight_scale` (float32) and `weight_shape` (int64), as in labs 04 and 13, unless `layer` is in `ignore`. Tensors in
    `tied` are left out, all others stay as they are. TypeError and ValueError as of `quantize_group`.
    """
    return right(files, read, write, group_size, ignore, tied)


def cases() -> list[Case]:
    rng = np.random.default_rng(13)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.normal(size=(rows, columns)) * np.geomspace(0.1, 10, rows)[:, None]).astype(np.float32)

    def vector(length: int) -> np.ndarray:
        return rng.normal(size=length).astype(np.float32)

    small = {"up.weight": matrix(2, 64), "up.bias": vector(2)}
    block = {
        "block.0.up.weight": matrix(5, 64), "block.0.norm.weight": vector(64), "block.0.gate.weight": matrix(64, 32),
        "block.0.upper.weight": matrix(4, 32),
    }  # fmt: skip
    other = {
        "block.1.up.weight": matrix(3, 64),
        "block.1.up.bias": vector(3).astype(np.float16),
        "block.1.down.weight": matrix(8, 64),
    }
    embedding = matrix(6, 64)
    ends = {
        "embed.weight": embedding,
        "head.weight": embedding.copy(),
        "head.bias": vector(6),
        "ahead.weight": matrix(4, 64),
    }
    zeros = {"up.weight": np.vstack([matrix(2, 32), np.zeros((1, 32), np.float32)])}
    odd = {
        "positions": np.arange(7)[None],
        "table": matrix(4, 32),
        "in_proj_weight": matrix(4, 32),
        "up.weight": matrix(4, 32),
    }
    names = ("start", "middle", "end")  # not in alphabetical order
    return [
        Case("the worked example", ({"one": {"up.weight": np.ones((2, 32), np.float32), "up.bias": vector(2)}},)),
        Case("one layer", ({"one": small},)),
        Case("two files", ({"one": small, "two": {"down.weight": matrix(8, 32)}},)),
        Case("norms and biases stay", (dict(zip(names, (block, other))),)),
        Case("a layer in the ignore list", ({"one": block, "two": other},), {"ignore": ("block.0.up",)}),
        Case("three files, embedding and head in float", (dict(zip(names, (ends, block, other))),),
             {"ignore": ["embed", "head"]}),
        Case("the head is tied to the embedding", (dict(zip(names, (block, ends, other))),),
             {"ignore": ("embed", "head"), "tied": ("head.weight",)}),
        Case("tied, and nothing is ignored", ({"one": ends, "two": other},), {"tied": ["head.weight"]}),
        Case("groups of 16", ({"one": block},), {"group_size": 16}),
        Case("a group for each row of 64", ({"one": other},), {"group_size": 64}),
        Case("a row of zeros", ({"one": zeros},)),
        Case("matrices that are no weights of layers", ({"one": odd},)),
        Case("a square weight", ({"one": {"proj.weight": matrix(32, 32)}},), {"group_size": 1}),
        Case("a file in which nothing is quantized", ({"one": small, "two": {"norm.weight": vector(9)}},)),
    ]  # fmt: skip


def judge(answer: dict, case: Case) -> None:
    (shards,), options = case.args, case.kwargs
    wanted = expected(shards, **options)
    tensors = {name: value for name, value in answer.items() if ": " in name}
    judge_work(answer["work"], wanted["work"])
    for name in wanted:
        if ": " in name and name not in tensors:
            raise Wrong(f"{at(name)} is missing")
    for name, tensor in tensors.items():
        if name not in wanted:
            raise Wrong(f"{at(name)} should not be there")
        if tensor.shape != wanted[name].shape:
            raise Wrong(f"{at(name)} should have shape {wanted[name].shape}, but it has {tensor.shape}")
        if not name.endswith("weight_scale") and tensor.dtype != wanted[name].dtype:
            raise Wrong(f"{at(name)} should be {wanted[name].dtype}, but its dtype is {tensor.dtype}")
        judge_values(name, tensor, wanted[name])
    if answer["weight_map"] != wanted["weight_map"]:
        found, right = (set(map_.split("; ")) for map_ in (answer["weight_map"], wanted["weight_map"]))
        says = min(found - right, default=None)
        raise Wrong('"weight_map" ' + (f"says {says}" if says else f"does not say {min(right - found)}"))
    size = sum(tensor.nbytes for tensor in tensors.values())
    if answer["total_size"] != size:
        raise Wrong(f'"total_size" should be the {size:,} bytes that were written, but it is {answer["total_size"]:,g}')


def at(name: str) -> str:
    file, _, tensor = name.partition(": ")
    return f"`{tensor}` in file {file}"


def expected(shards: Mapping, **options: Any) -> dict:
    return read_checkpoint(on_store(right, shards, **options))


def judge_work(work: str, wanted: str) -> None:
    """Read, write, read, write: each file once, and never two in memory."""
    if work == wanted:
        return
    steps = work.split(", ") if work else []
    raise Wrong(
        f"each file is to be read once and written before the next one is read: {wanted}; but the order was: "
        f"{', '.join(steps[:8]) or 'nothing'}{', ...' if len(steps) > 8 else ''}"
    )


def judge_values(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    if name.endswith("weight_packed"):
        # A value between two codes may go to either.
        one, other = (packing.unpack(np.ascontiguousarray(w).view(np.uint8), 4, w.shape[1] * 8, signed=False)
                      for w in (found, wanted))  # fmt: skip
        off = np.abs(one.astype(int) - other)
        if off.max() > 1 or (off > 0).mean() > 1e-2:
            where = largest_at(off)
            raise Wrong(
                f"{at(name)} holds the code {one[where]} for [{place(where)}] and should hold {other[where]} (8 is 0)"
            )
    elif name.endswith("weight_scale"):
        if found.dtype.kind != "f":
            raise Wrong(f"{at(name)} should hold floats, but its dtype is {found.dtype}")
        with np.errstate(all="ignore"):
            off = np.where(wanted == 1, 0, np.abs(found.astype(np.float64) / wanted - 1))  # a group of zeros: any scale
        if not off.max() <= 2e-3:  # float16 and bfloat16 would do, too
            where = largest_at(np.nan_to_num(off, nan=np.inf))
            raise Wrong(f"{at(name)}[{place(where)}] should be {wanted[where]:.5g}, but it is {found[where]:.5g}")
    elif not np.array_equal(found, wanted):
        raise Wrong(f"{at(name)} holds other values than it should")


def tensors_alone(answer: dict) -> dict:
    """Without what is about files: that one of two sizes is a 64th of the other says nothing."""
    return {name: value for name, value in answer.items() if ": " in name}


def three_tensors(name, weight, group_size):
    """`weight_packed`, `weight_scale` and `weight_shape` of one layer."""
    q, scales = quantize_group(weight, 4, group_size)
    return dict(zip((f"{name}.{part}" for part in PARTS), (*with_scales(pack_int32(q), scales),)))


def with_scales(packed, scales):
    words, shape = packed
    return words, scales, shape.astype(np.int64)


def is_matrix(name, tensor):
    return name.endswith(".weight") and tensor.ndim == 2


def one_by_one(files, read, write, convert):
    """Each file read, converted and written before the next; (file, tensors) of all."""
    for file in files:
        tensors = convert(read(file))
        write(file, tensors)
        yield file, tensors


@dataclass(frozen=True)
class Shards(Recipe):
    """index((file, converted tensors) of each file), with `store` for those of a quantized weight."""

    chosen: Callable = is_matrix  # of name and tensor
    ignored: Callable = lambda layer, ignore: layer in ignore
    left_out: Callable = lambda name, tied: name in tied
    store: Callable = three_tensors
    files: Callable = one_by_one
    size: Callable = lambda tensors: sum(tensor.nbytes for tensor in tensors.values())
    total: Callable = sum
    placed: Callable = lambda file, tensors: dict.fromkeys(tensors, file)
    result: Callable = lambda size, places: {"metadata": {"total_size": size}, "weight_map": places}

    def __call__(self, files, read, write, group_size=32, ignore=(), tied=()):
        def convert(tensors):
            made = {}
            for name, tensor in tensors.items():
                layer = name.removesuffix(".weight")
                if self.left_out(name, tied):
                    continue
                if self.chosen(name, tensor) and not self.ignored(layer, ignore):
                    made |= self.store(layer, tensor, group_size)
                else:
                    made[name] = tensor
            return made

        sizes, places = [], {}
        for file, tensors in self.files(files, read, write, convert):
            sizes.append(self.size(tensors))
            places |= self.placed(file, tensors)
        return self.result(self.total(sizes), places)


right = Shards()


def storing(change):
    """A recipe that stores change(parts of a layer, its weight) instead of the three tensors."""

    def store(name, weight, group_size):
        parts = {key.rpartition(".")[2]: value for key, value in three_tensors(name, weight, group_size).items()}
        return {f"{name}.{part}": value for part, value in change(parts, weight).items()}

    return right.but(store=store)


def all_read_first(files, read, write, convert):
    shards = {file: read(file) for file in files}
    for file, tensors in shards.items():
        made = convert(tensors)
        write(file, made)
        yield file, made


def into_one_file(files, read, write, convert):
    made = {}
    for file in files:
        made |= convert(read(file))
    write(files[0], made)
    yield files[0], made


def growing(files, read, write, convert):
    """The dict is never emptied, so each file holds what was in those before it."""
    made = {}
    for file in files:
        made |= convert(read(file))
        write(file, made)
        yield file, made


def never_written(files, read, write, convert):
    for file in files:
        yield file, convert(read(file))


def read_for_each(files, read, write, convert):
    """Each file read once more, to look at its names."""
    for file in files:
        read(file)
        made = convert(read(file))
        write(file, made)
        yield file, made


def rounded_weights(name, weight, group_size):
    q, scales = quantize_group(weight, 4, group_size)
    return {f"{name}.weight": (q * scales.repeat(group_size, axis=1)).astype(np.float32)}


def codes_in_bytes(name, weight, group_size):
    q, _ = quantize_group(weight, 4, group_size)
    made = three_tensors(name, weight, group_size)
    return made | {f"{name}.weight_packed": q}


def groups_of(size):
    def store(name, weight, group_size):
        return three_tensors(name, weight, min(size, weight.shape[1]))

    return store


def left_in(parts, weight):
    return {**parts, "weight": weight}


ALL_IN_MEMORY = (
    "All files are in memory at the same time here. A model that is larger than memory can only be quantized if each "
    "file is written, and let go, before the next one is read."
)
NEVER_EMPTIED = "The dict of converted tensors is never emptied: begin with a new one for each file."

MISCONCEPTIONS = (
    Misconception("all files are read before the first is written", right.but(files=all_read_first), ALL_IN_MEMORY),
    Misconception("everything into one file", right.but(files=into_one_file), ALL_IN_MEMORY),
    Misconception("each file holds those before it", right.but(files=growing), NEVER_EMPTIED),
    Misconception("each file holds those before it", right.but(files=growing, total=lambda sizes: sizes[-1]),
        NEVER_EMPTIED),
    Misconception("nothing is written", right.but(files=never_written),
        "The converted tensors are to be handed to `write`, a file at a time."),
    Misconception("each file is read twice", right.but(files=read_for_each),
        "Reading is what takes the time here. Read each file once."),
    Misconception("the shape tensor is missing",
        storing(lambda parts, weight: {k: v for k, v in parts.items() if k != "weight_shape"}),
        "The words alone do not say how many codes a row has. A reader looks for `weight_shape` and finds nothing."),
    Misconception("the shape of the words", storing(lambda parts, weight: parts | {
            "weight_shape": np.array(parts["weight_packed"].shape)}),
        "`weight_shape` is that of the weight as it was, not of the words."),
    Misconception("scales transposed", storing(lambda parts, weight: parts | {
            "weight_scale": np.ascontiguousarray(parts["weight_scale"].T)}),
        "A row of scales belongs to a row of the weight: (rows, groups)."),
    Misconception("scales missing",
        storing(lambda parts, weight: {k: v for k, v in parts.items() if k != "weight_scale"}),
        "Codes without their scales are of no use: `weight_scale` is missing."),
    Misconception("one over the scales", storing(lambda parts, weight: parts | {
            "weight_scale": 1 / parts["weight_scale"]}),
        "A reader multiplies codes by `weight_scale`."),
    Misconception("the float weight is still there", storing(left_in),
        "The weight was quantized, and its floats are in the file as well, which is larger now than it was."),
    Misconception("other names for the three", right.but(store=lambda name, weight, group_size: {
            key.replace("weight_", "weight."): t for key, t in three_tensors(name, weight, group_size).items()}),
        "A reader finds tensors by their names: the layer's name, a dot, then `weight_packed`, `weight_scale`, "
        "`weight_shape`."),
    Misconception("weight twice in the names",
        right.but(store=lambda name, weight, group_size: three_tensors(f"{name}.weight", weight, group_size)),
        "The new names begin with the name of the layer, which ends before `.weight`."),
    Misconception("rounded, but still floats", right.but(store=rounded_weights),
        "The weights lie on 4-bit grids and are stored as float32: the file is as large as before."),
    Misconception("a byte for each code", right.but(store=codes_in_bytes),
        "The codes have a byte each. Pack them: eight in an int32."),
    Misconception("always groups of 32", right.but(store=groups_of(32)), "32 is the default. Use `group_size`."),
    Misconception("the ignore list is not looked at", right.but(ignored=lambda layer, ignore: False),
        "A layer in the ignore list was quantized, and a reader looks for its floats in vain. The list has names of "
        "layers: compared with names of tensors, which end in `.weight`, nothing is ever found in it."),
    Misconception("only what is ignored is quantized", right.but(ignored=lambda layer, ignore: layer not in ignore),
        "It is the other way round: layers in the ignore list stay in float."),
    Misconception("tied weights written twice", right.but(left_out=lambda name, tied: False),
        "The head is the embedding under another name, and the model ties them itself when it is loaded. Leave out "
        "what is in `tied`: in a language model it is the largest tensor."),
    Misconception("biases are left out",
        right.but(left_out=lambda name, tied: name in tied or not name.endswith(".weight")),
        "Biases and buffers belong into the file as well. Only what is in `tied` is left out."),
    Misconception("norms are quantized as well",
        right.but(chosen=lambda name, tensor: name.endswith(".weight"),
                  store=lambda name, weight, size: three_tensors(name, np.atleast_2d(weight), size)),
        "The weight of a norm has one axis. Only matrices are quantized."),
    Misconception("every matrix is quantized",
        right.but(chosen=lambda name, tensor: tensor.ndim == 2 and tensor.dtype.kind == "f"),
        "A matrix is quantized only if it is the `.weight` of a layer. Others stay as they are."),
    Misconception("what is not quantized is left out", right.but(
            files=lambda files, read, write, convert: one_by_one(files, read, write, only_quantized(convert))),
        "Norms, biases and layers in float belong into the new files as well, as they are."),
    Misconception("the map from files to tensors", right.but(placed=lambda file, tensors: {file: ", ".join(tensors)}),
        "`weight_map` goes from the name of a tensor to the name of its file."),
    Misconception("the map has the old names",
        right.but(placed=lambda file, tensors: dict.fromkeys(map(old_name, tensors), file)),
        "`weight_map` names tensors that are no longer there. It lists those that were written."),
    Misconception("the number of elements for bytes",
        right.but(size=lambda tensors: sum(tensor.size for tensor in tensors.values())),
        "`total_size` counts bytes: each tensor knows how many it has."),
    Misconception("the bytes that were read", right.but(size=lambda tensors: sum(map(size_before, tensors.items()))),
        "`total_size` counts the bytes of the new files, not of the old ones."),
    Misconception("no metadata", right.but(result=lambda size, places: places),
        "The index is a dict with `metadata` and `weight_map`; the map alone was returned, or something else."),
)  # fmt: skip


def only_quantized(convert):
    return lambda tensors: {name: t for name, t in convert(tensors).items() if name.endswith(PARTS)}


def old_name(name):
    return name.removesuffix("_packed").removesuffix("_scale").removesuffix("_shape")


def size_before(entry):
    """Bytes of a tensor before it was quantized, counted at its packed words."""
    name, tensor = entry
    if name.endswith("weight_packed"):
        return tensor.size * 32
    return 0 if name.endswith(PARTS) else tensor.nbytes


EXERCISE = Exercise(
    name="quantize_shards",
    lab=LESSON,
    place=40,
    points=3,
    reference=quantize_shards,
    cases=cases,
    read=read_checkpoint,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    shown=tensors_alone,
    stretch=True,
    run=on_store,
)
