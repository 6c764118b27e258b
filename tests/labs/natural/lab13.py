"""Lab 13: words, a config, blocks of 18 bytes, shards."""

import json

import numpy as np

from labutils.labs.answers import pack_int32, quantize_group
from tests.labs.natural import mistake


@mistake("pack_int32", "offset")
def masks_to_four_bits(q, num_bits=4):
    n = 32 // num_bits
    u = np.pad(q, ((0, 0), (0, -q.shape[1] % n))).astype(np.int64) & (2**num_bits - 1)
    u = u.reshape(q.shape[0], -1, n)
    return (u << (np.arange(n) * num_bits)).sum(-1).astype(np.int32), np.array(q.shape)


@mistake("pack_int32", "highest|order|first")
def big_end_first(q, num_bits=4):
    n = 32 // num_bits
    u = np.pad(q.astype(np.int64) + 2 ** (num_bits - 1), ((0, 0), (0, -q.shape[1] % n))).reshape(len(q), -1, n)
    packed = np.zeros(u.shape[:2], dtype=np.int64)
    for i in range(n):
        packed = (packed << num_bits) | u[:, :, i]
    return packed.astype(np.int32), np.array(q.shape)


@mistake("pack_int32", "filled")
def pads_the_codes_first(q, num_bits=4):
    n = 32 // num_bits
    padded = np.zeros((q.shape[0], -(-q.shape[1] // n) * n), dtype=np.int64)
    padded[:, : q.shape[1]] = q
    padded += 1 << (num_bits - 1)
    words = padded.reshape(len(q), -1, n) * (2 ** (num_bits * np.arange(n)))
    return words.sum(axis=2).astype(np.int32), np.array(q.shape)


@mistake("pack_int32", "eight codes|every width|offset")
def only_four_bits(q, num_bits=4):
    u = q.astype(np.int64) + 8
    u = np.pad(u, ((0, 0), (0, -u.shape[1] % 8))).reshape(len(u), -1, 8)
    return (u << (4 * np.arange(8))).sum(-1).astype(np.int32), np.array(q.shape)


@mistake("pack_int32", "shape")
def forgets_the_shape(q, num_bits=4):
    return pack_int32(q, num_bits)[0]


@mistake("pack_int32", "shape")
def shape_of_the_result(q, num_bits=4):
    packed = pack_int32(q, num_bits)[0]
    return packed, packed.shape


@mistake("pack_int32", "unsigned")
def leaves_uint32(q, num_bits=4):
    packed, shape = pack_int32(q, num_bits)
    return packed.view(np.uint32), shape


@mistake("pack_int32", "64-bit")
def leaves_int64(q, num_bits=4):
    n = 32 // num_bits
    u = np.pad(q.astype(np.int64) + 2 ** (num_bits - 1), ((0, 0), (0, -q.shape[1] % n))).reshape(len(q), -1, n)
    return (u << (np.arange(n) * num_bits)).sum(-1), np.array(q.shape)


@mistake("pack_int32", "overflow|int8|shift|offset")
def shifts_in_int8(q, num_bits=4):
    n = 32 // num_bits
    u = (q + np.int8(2 ** (num_bits - 1) - 1) + np.int8(1)).astype(np.int8)
    u = np.pad(u, ((0, 0), (0, -q.shape[1] % n))).reshape(len(q), -1, n)
    return (u << (np.arange(n) * num_bits).astype(np.int8)).sum(-1).astype(np.int32), np.array(q.shape)


@mistake("pack_int32", "not shifted")
def adds_them_up(q, num_bits=4):
    n = 32 // num_bits
    u = np.pad(q.astype(np.int64) + 2 ** (num_bits - 1), ((0, 0), (0, -q.shape[1] % n))).reshape(len(q), -1, n)
    return np.bitwise_or.reduce(u, axis=-1).astype(np.int32), np.array(q.shape)


TOP = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}


def group(targets, width, size):
    weights = {"num_bits": width, "type": "int", "symmetric": True, "strategy": "group" if size else "channel"}
    return {"targets": targets, "weights": weights | {"group_size": size, "dynamic": False}}


@mistake("quantization_config", "fewest|most|one group|4 bits")
def one_width_for_all(bits, group_size=32):
    quantized = [name for name in bits if bits[name]]
    ignore = [name for name in bits if bits[name] is None]
    return TOP | {"config_groups": {"g": group(quantized, bits[quantized[0]], group_size)}, "ignore": ignore}


@mistake("quantization_config", "ignore")
def forgets_to_ignore(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = {f"group_{i}": group([n for n in bits if bits[n] == b], b, group_size) for i, b in enumerate(widths)}
    return TOP | {"config_groups": groups, "ignore": []}


@mistake("quantization_config", "16 bits|float|None")
def none_is_a_width_too(bits, group_size=32):
    groups = {}
    for name, width in bits.items():
        groups.setdefault(f"group_{width}", group([], width, group_size))["targets"].append(name)
    return TOP | {"config_groups": groups, "ignore": [n for n in bits if bits[n] is None]}


@mistake("quantization_config", "Linear|both groups|every group")
def every_linear(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = {f"group_{b}": group(["Linear"], b, group_size) for b in widths}
    return TOP | {"config_groups": groups, "ignore": [n for n, b in bits.items() if b is None]}


@mistake("quantization_config", "group")
def strategy_is_always_group(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = {f"group_{b}": group([n for n in bits if bits[n] == b], b, group_size) for b in widths}
    for each in groups.values():
        each["weights"]["strategy"] = "group"
    return TOP | {"config_groups": groups, "ignore": [n for n, b in bits.items() if b is None]}


@mistake("quantization_config", "alone|status|method|format")
def only_groups_and_ignore(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = {f"group_{b}": group([n for n in bits if bits[n] == b], b, group_size) for b in widths}
    return {"config_groups": groups, "ignore": [n for n, b in bits.items() if b is None]}


@mistake("quantization_config", "text|dict")
def already_json(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = {f"group_{b}": group([n for n in bits if bits[n] == b], b, group_size) for b in widths}
    return json.dumps(TOP | {"config_groups": groups, "ignore": [n for n, b in bits.items() if b is None]})


@mistake("quantization_config", "list")
def list_of_groups(bits, group_size=32):
    widths = sorted({b for b in bits.values() if b})
    groups = [group([n for n in bits if bits[n] == b], b, group_size) for b in widths]
    return TOP | {"config_groups": groups, "ignore": [n for n, b in bits.items() if b is None]}


def blocks_of(x):
    return x.reshape(len(x), -1, 32)


def peak_of(b):
    return np.take_along_axis(b, np.abs(b).argmax(-1, keepdims=True), -1)


def bytes_of(d, codes):
    codes = codes.astype(np.uint8)
    return np.concatenate([d.astype(np.float16).view(np.uint8), codes[..., :16] | codes[..., 16:] << 4], axis=-1)


def steps_of(b, d):
    return b / np.where(d == 0, 1, d)


@mistake("q4_0_blocks", "/ 7")
def symmetric_scale(x):
    b = blocks_of(x)
    d = np.abs(b).max(-1, keepdims=True) / 7
    return bytes_of(d, np.round(steps_of(b, d)).clip(-8, 7) + 8)


@mistake("q4_0_blocks", "sign|/ 8")
def absmax_over_8(x):
    b = blocks_of(x)
    d = np.abs(b).max(-1, keepdims=True) / 8
    return bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15))


@mistake("q4_0_blocks", "instead of -8|8")
def peak_over_plus_8(x):
    b = blocks_of(x)
    d = peak_of(b) / 8
    return bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15))


@mistake("q4_0_blocks", "neighbours")
def as_in_lab_04(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    codes = (np.round(steps_of(b, d)) + 8).clip(0, 15).astype(np.uint8)
    return np.concatenate([d.astype(np.float16).view(np.uint8), codes[..., ::2] | codes[..., 1::2] << 4], axis=-1)


@mistake("q4_0_blocks", "order")
def first_half_on_top(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    codes = (np.round(steps_of(b, d)) + 8).clip(0, 15)
    return bytes_of(d, np.concatenate([codes[..., 16:], codes[..., :16]], axis=-1))


@mistake("q4_0_blocks", "clamp")
def forgets_the_clamp(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    return bytes_of(d, np.round(steps_of(b, d)) + 8)


@mistake("q4_0_blocks", "offset|complement")
def forgets_the_8(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    return bytes_of(d, np.round(steps_of(b, d)).clip(-8, 7).astype(np.int8).view(np.uint8) & 15)


@mistake("q4_0_blocks", "trunc")
def casts_without_rounding(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    return bytes_of(d, (steps_of(b, d).astype(np.int64) + 8).clip(0, 15))


@mistake("q4_0_blocks", "float32")
def four_bytes_of_scale(x):
    b = blocks_of(x)
    d = (peak_of(b) / -8).astype(np.float32)
    codes = (np.round(steps_of(b, d)) + 8).clip(0, 15).astype(np.uint8)
    return np.concatenate([d.view(np.uint8), codes[..., :16] | codes[..., 16:] << 4], axis=-1)


@mistake("q4_0_blocks", "after|codes")
def scale_at_the_end(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    made = bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15))
    return np.concatenate([made[..., 2:], made[..., :2]], axis=-1)


@mistake("q4_0_blocks", "row")
def one_scale_a_row(x):
    b = blocks_of(x)
    d = peak_of(x[:, None, :]) / -8
    d = np.repeat(d, b.shape[1], axis=1)
    return bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15))


@mistake("q4_0_blocks", "row|run into")
def a_row_of_bytes(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    return bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15)).reshape(len(x), -1)


@mistake("q4_0_blocks", "number|bytes")
def scale_as_an_integer(x):
    b = blocks_of(x)
    d = peak_of(b) / -8
    made = bytes_of(d, (np.round(steps_of(b, d)) + 8).clip(0, 15))
    made[..., :2] = np.abs(d).astype(np.uint8)
    return made


def store(made, layer, tensor, size):
    q, scales = quantize_group(tensor, 4, size)
    packed, shape = pack_int32(q)
    made |= {f"{layer}.weight_packed": packed, f"{layer}.weight_scale": scales}
    made[f"{layer}.weight_shape"] = shape.astype(np.int64)


def index_of(written):
    size = sum(t.nbytes for made in written.values() for t in made.values())
    return {"metadata": {"total_size": size}, "weight_map": {n: f for f, made in written.items() for n in made}}


def chosen(name, tensor):
    return name.endswith(".weight") and tensor.ndim == 2


@mistake("quantize_shards", "all files")
def everything_first(files, read, write, group_size=32, ignore=(), tied=()):
    everything, written = {file: read(file) for file in files}, {}
    for file, tensors in everything.items():
        made = written[file] = {}
        for name, tensor in tensors.items():
            if name in tied:
                continue
            if chosen(name, tensor) and name[:-7] not in ignore:
                store(made, name[:-7], tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "ignore")
def ignores_by_tensor_name(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            if name in tied:
                continue
            if chosen(name, tensor) and name not in ignore:
                store(made, name.removesuffix(".weight"), tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "tied")
def forgets_tied(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            if chosen(name, tensor) and name.removesuffix(".weight") not in ignore:
                store(made, name.removesuffix(".weight"), tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "left out|stays|not quantized")
def drops_the_rest(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if chosen(name, tensor) and layer not in ignore and name not in tied:
                store(made, layer, tensor, group_size)
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "norm|one axis|every matrix")
def norms_too(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if name.endswith(".weight") and layer not in ignore and name not in tied:
                store(made, layer, tensor.reshape(-1, tensor.shape[-1]), group_size)
            elif name not in tied:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "holds those before|each file")
def one_dict_for_all(files, read, write, group_size=32, ignore=(), tied=()):
    made, places = {}, {}
    for file in files:
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if name in tied:
                continue
            if chosen(name, tensor) and layer not in ignore:
                store(made, layer, tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
        places |= dict.fromkeys(made, file)
    return {"metadata": {"total_size": sum(t.nbytes for t in made.values())}, "weight_map": places}


@mistake("quantize_shards", "metadata|index")
def returns_only_the_map(files, read, write, group_size=32, ignore=(), tied=()):
    places = {}
    for file in files:
        made = {}
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if name in tied:
                continue
            if chosen(name, tensor) and layer not in ignore:
                store(made, layer, tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
        places |= dict.fromkeys(made, file)
    return places


@mistake("quantize_shards", "transposed|scale")
def scales_of_columns(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if name in tied:
                continue
            if chosen(name, tensor) and layer not in ignore:
                store(made, layer, tensor, group_size)
                made[f"{layer}.weight_scale"] = made[f"{layer}.weight_scale"].T.copy()
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "names")
def strips_letters(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            layer = name.rstrip(".weight")
            if name in tied:
                continue
            if chosen(name, tensor) and layer not in ignore:
                store(made, layer, tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)


@mistake("quantize_shards", "ignore")
def ignores_by_the_beginning(files, read, write, group_size=32, ignore=(), tied=()):
    written = {}
    for file in files:
        made = written[file] = {}
        for name, tensor in read(file).items():
            if name in tied:
                continue
            if chosen(name, tensor) and not any(name.startswith(layer) for layer in ignore):
                store(made, name.removesuffix(".weight"), tensor, group_size)
            else:
                made[name] = tensor
        write(file, made)
    return index_of(written)
