# %% [markdown]
# # 13 · Ship it: files that others load
#
# **Time:** 75 minutes; stretch: 25 more. **You need:** labs 04 and 06, PyTorch; labs 08 and 09 help.
#
# At the end of this lab you can
#
# - choose the best model that fits a number of megabytes,
# - write it so that `AutoModel.from_pretrained` loads it, and say what each tensor and each line of its config means,
# - write GGUF's blocks, which llama.cpp reads,
# - prove that what is read back is what you wrote, and say on one page what the model weighs and what it lost,
# - quantize a checkpoint that is larger than your memory.

# %%
import contextlib
import copy
import importlib.util
import io
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import numpy as safetensors_numpy
from safetensors import torch as safetensors_torch

from labutils import (
    PerGroup,
    Scheme,
    answers,
    check,
    data,
    explore_block,
    fake_quantize,
    file_report_card,
    mean_cosine,
    or_reference,
    predict,
    quantize,
    report_card,
    retrieval_at_1,
    save_compressed_tensors,
    save_gguf,
    sqnr_db,
)
from labutils.data.gguf import GGUF
from labutils.formats import shards
from labutils.models import (
    PackedLinear,
    allocate_bits,
    gptq_linear,
    layer_hessians,
    linear_layers,
    model_bytes,
    quantize_model,
)

# %% [markdown]
# The model is MiniLM, the sentence encoder of lab 06. Where it cannot be had, an untrained model stands in. Then everything runs,
# but the numbers have nothing to do with the text. All files go to a folder that is gone when the notebook ends; its path is in
# `folder`, if you want to keep one.

# %% tags=["nbval-ignore-output"]
try:
    encoder = data.sentence_encoder()
    print("MiniLM")
except (LookupError, ImportError) as missing:
    from labutils.data.stand_in import untrained_encoder

    encoder = untrained_encoder()
    print(f"An untrained transformer stands in for MiniLM: {missing}")

torch.set_num_threads(1)
model = encoder.model
layers = linear_layers(model)
num_weights = {name: layer.weight.numel() for name, layer in layers.items()}
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)

# %% [markdown]
# ## Why
#
# In lab 04 you packed two codes into a byte. Take one weight of the model, quantize it to 4 bits in groups of 32, pack it, and hand
# the bytes and the scales to somebody else. They know all about it: 4 bits, two codes to a byte, low half first. Only one thing
# they take for granted: that codes are stored with 8 added, where yours are in two's complement.

# %% tags=["minilm"]
weight = layers["encoder.layer.1.output.dense"].weight.detach().numpy()
q, scales = answers.quantize_group(weight, 4, 32)
packed = answers.pack_int4(q)


def read_as(codes):
    """The weight that somebody gets out of the file."""
    return codes * np.repeat(scales, 32, axis=1)


halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(q.shape).astype(int)
print(f"read as it was written: {sqnr_db(weight, read_as(q)):.0f} dB")
print(f"read with another idea of zero: {sqnr_db(weight, read_as(halves - 8)):.0f} dB")

# %% [markdown]
# No error, no warning, the right shapes, and noise that is louder than the weight. **A file is bytes and an agreement about them.** This
# lab is about two agreements that most of the world keeps: *[compressed-tensors](../docs/glossary.md#compressed-tensors)*, which transformers and vLLM read, and *[GGUF](../docs/glossary.md#gguf)*, which
# llama.cpp reads.

# %% [markdown]
# ## Play first
#
# The explorer shows one **block** of a GGUF file: 32 neighbours of a row (blue), the 18 bytes that are stored for them, and what comes back
# (orange). Bytes 0 and 1 are the block's scale d, the rest are codes.

# %%
predict(
    "18 bytes for 32 weights: how many bits does a weight take?",
    18 * 8 / 32,
    tolerance=0.01,
)

# %% tags=["minilm"]
explorer = explore_block(weight)
predict(
    "The largest weight of block 0 is made 8 times as large. How many of the 32 come back as 0?",
    int((explorer.compute({"block": 0, "weight": 0, "outlier": 8}).codes == 8).sum()),
    tolerance=4,
)

# %% [markdown]
# **Drag** the weight from 0 to 31, and watch where its four bits are. Then drag the block: how does the sign of d go with the
# largest weight? Then make an outlier.

# %% tags=["minilm"]
explorer

# %% [markdown]
# **Say why.** Write two sentences down, then unfold the answers.
#
# <details><summary>Why does the largest weight always come back almost exactly, and what does the sign of d tell?</summary>
#
# It is put at one end of 16 levels that are not symmetric: 8 steps on its own side of zero, 7 on the other. d is the
# largest weight divided by -8, so its sign is the opposite one.
#
# </details>
# <details><summary>Why does an outlier spoil 31 other weights, and no more?</summary>
#
# The scale is the block's own. One outlier costs its block what it costs everywhere (lab 01), but only its block.
#
# </details>

# %% [markdown]
# And a byte holds no neighbours: code 0 shares its byte with code 16.

# %% [markdown]
# ## Build it
#
# ### Codes in words
#
# compressed-tensors keeps three tensors for a layer of few bits. For `query`, 4 bits, groups of 32, a weight of 384 x 384:
#
# | tensor | dtype, shape | what |
# |---|---|---|
# | `query.weight_packed` | int32 (384, 48) | eight codes in a word |
# | `query.weight_scale` | bfloat16 (384, 12) | a scale for each group |
# | `query.weight_shape` | int64 (2,) | 384, 384: what the words do not say |
#
# The format calls this *pack-quantized*. By hand, nine codes of 4 bits:
#
# | | | | | | | | | |
# |---|---|---|---|---|---|---|---|---|
# | code | -8 | -7 | 7 | 0 | 0 | 0 | 0 | 0 |
# | with 8 added | 0 | 1 | 15 | 8 | 8 | 8 | 8 | 8 |
# | bits | 0 to 3 | 4 to 7 | 8 to 11 | 12 to 15 | 16 to 19 | 20 to 23 | 24 to 27 | 28 to 31 |
#
# Written as a hexadecimal number, which begins with the highest bits, the first word is `0x88888f10`. The ninth code, 1, is 9 with 8
# added, and alone in its word: `0x00000009`. Nothing says that the other seven places are empty but the shape, 1 x 9.
#
# ### Exercise 1: `pack_int32` (12 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `q`, signed codes `(rows, n)` of any integer dtype; `num_bits` b: 2, 4 or 8 |
# | result | `packed, shape` |
# | `packed` | int32 `(rows, words)`: 32 / b codes in a word, the first in the lowest bits; each row begins a word |
# | a code | is stored with $2^{b-1}$ added, as a number from 0 to $2^b - 1$ |
# | the end of a row | a word that is not full is filled up with bits that are 0 |
# | `shape` | of `q`, two whole numbers |


# %%
def pack_int32(q, num_bits=4):
    """Return the codes in 32-bit words, and their shape."""
    ### BEGIN SOLUTION
    count = 32 // num_bits
    codes = q.astype(np.int64) + 2 ** (num_bits - 1)
    codes = np.pad(codes, [(0, 0), (0, -q.shape[1] % count)]).reshape(len(q), -1, count)
    words = (codes << (num_bits * np.arange(count))).sum(axis=-1)
    return words.astype(np.uint32).view(np.int32), np.array(q.shape)
    ### END SOLUTION


# %%
check(pack_int32)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is -1 as a 4-bit number here, and what would it be in two's complement? What is added first, the offset or the zeros at the end?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Add the offset in a wide integer, fill rows up to whole words, give them a third axis of 32 / b codes, shift each code to its place,
# sum over that axis. A word whose last code is large is a *negative* int32.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# A word is $\sum_i (q_i + 2^{b-1}) \cdot 2^{b i}$. As an unsigned 32-bit number it fits; `.view(np.int32)` reads the same bits as signed.
#
# </details>

# %%
pack = or_reference(pack_int32)
words, shape = pack(np.array([[-8, -7, 7, 0, 0, 0, 0, 0, 1]], dtype=np.int8))
print([f"0x{word:08x}" for word in words.view(np.uint32)[0]], "of codes", shape)

# %% [markdown]
# ### What the config says
#
# Tensors alone are not enough: 48 words could be 384 codes of 4 bits or 192 of 8. That is in `config.json`, under
# `quantization_config`. For a model with three linear layers, of which the head stays in float:
#
# ```json
# {
#   "quant_method": "compressed-tensors",
#   "format": "pack-quantized",
#   "quantization_status": "compressed",
#   "config_groups": {
#     "group_0": {
#       "targets": ["up", "down"],
#       "weights": {
#         "num_bits": 4, "type": "int", "symmetric": true,
#         "strategy": "group", "group_size": 32, "dynamic": false
#       },
#       "input_activations": null
#     }
#   },
#   "ignore": ["head"]
# }
# ```
#
# A **group** is a set of layers that are stored alike; its targets are names of modules. By the first line transformers finds the library,
# and the third says that the tensors are codes already. Names in `ignore`, the [ignore list](../docs/glossary.md#ignore-list), are the layers whose `weight` is in the file in float. Who is in
# the wrong list, breaks the model: of a layer that is ignored, a reader looks for `weight`, finds none, and *makes one at random*.
#
# ### Exercise 2: `quantization_config` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `bits`: name of each linear layer -> 2 to 8, or None where it stays in float; `group_size`, or None for one scale a row |
# | result | a dict as above, that `json.dumps` can write |
# | groups | one for each number of bits that occurs, under any name, with the names of its layers as targets |
# | `strategy` | `"group"` with `group_size`; `"channel"`, and no size, where `group_size` is None |
# | `ignore` | the layers in float, and no others |


# %%
def quantization_config(bits, group_size=32):
    """Return what config.json says of a model's quantized layers."""
    ### BEGIN SOLUTION
    groups = {}
    for num_bits in sorted({b for b in bits.values() if b is not None}):
        groups[f"group_{len(groups)}"] = {
            "targets": [name for name, b in bits.items() if b == num_bits],
            "weights": {
                "num_bits": num_bits,
                "type": "int",
                "symmetric": True,
                "strategy": "channel" if group_size is None else "group",
                "group_size": group_size,
                "dynamic": False,
            },
            "input_activations": None,
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name, b in bits.items() if b is None],
    }
    ### END SOLUTION


# %%
check(quantization_config)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which numbers of bits occur? None is not one of them.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Loop over the different widths. For each, list the layers that have it. The ignore list is the same question for None.
#
# </details>
#
# ### The best model under a budget
#
# Now something worth shipping. The budget is 62% of the float model, for the whole folder. How many bits may a weight of a linear layer
# have, when all else stays in float?

# %% tags=["minilm"]
in_float = model_bytes(model)
budget = round(0.62 * in_float)
linear = 4 * sum(num_weights.values())
bits_left = 8 * (budget - (in_float - linear)) / sum(num_weights.values())
print(f"float {in_float / 1e6:.1f} MB, of which linear layers {linear / 1e6:.1f} MB")
print(f"budget {budget / 1e6:.1f} MB leaves {bits_left:.2f} bits for a weight")

# %% [markdown]
# Half a bit of that goes to scales (16 bits for 32 weights). What remains lies between 4 and 8, so some layers get 8 bits and others 4.
# Lab 06 says which: measure what each layer alone loses at 4 bits, and let `allocate_bits` choose. (At 8 bits all of them together
# lose 0.0001 of cosine; that counts as nothing.)

# %% tags=["minilm"]
sentences = data.calibration_sentences()
sample = sentences[::44]
wanted = encoder.encode(sample)
GROUPS = {bits: Scheme(bits, granularity=PerGroup(32)) for bits in (4, 8)}
trial, losses = copy.deepcopy(model), {}
for name in layers:
    part = trial.get_submodule(name)
    part.weight.copy_(fake_quantize(layers[name].weight, GROUPS[4]))
    losses[name] = 1 - mean_cosine(encoder.with_model(trial).encode(sample), wanted)
    part.weight.copy_(layers[name].weight)
bits = allocate_bits(
    {4: losses, 8: dict.fromkeys(losses, 0.0)}, bits_left - 0.5, num_weights
)
eight = {name for name in bits if bits[name] == 8}
print(f"{len(eight)} of {len(bits)} layers get 8 bits")
later = sum(int(name.split(".")[2]) >= 3 for name in eight)
print(f"{later} of them are in the second half of the model")

# %% [markdown]
# Five candidates: 4 and 8 bits for all; the mixture; the same budget spent without measuring, on the first layers until nothing is left;
# and the mixture with its 4-bit layers rounded by GPTQ, calibrated on 192 sentences (lab 09).

# %% tags=["minilm"]
hessians = layer_hessians(
    model, [sentences[:192]], run=lambda m, batch: encoder.with_model(m).encode(batch)
)
plain = {b: partial(PackedLinear.from_float, scheme=GROUPS[b]) for b in GROUPS}
careful = {
    name: partial(gptq_linear, hessian=hessians[name], scheme=GROUPS[4])
    for name in layers
    if bits[name] == 4
}
room, first = sum(4 * num_weights[name] for name in eight), {}
for name in layers:
    first[name] = 8 if room >= 4 * num_weights[name] else 4
    room -= 4 * num_weights[name] if first[name] == 8 else 0
choices = {
    "4 bits": dict.fromkeys(layers, 4),
    "8 bits for the first layers": first,
    "8 bits where it hurts": bits,
    "the same, 4 bits by GPTQ": bits,
    "8 bits": dict.fromkeys(layers, 8),
}
asked, replies = zip(*data.questions()[::4])
questions, found = encoder.encode(asked), encoder.encode(replies)


def quality(model):
    """Mean cosine to float over questions and answers, and how many questions find their own."""
    q, a = (encoder.with_model(model).encode(texts) for texts in (asked, replies))
    cosine = mean_cosine(np.concatenate([q, a]), np.concatenate([questions, found]))
    return cosine, round(len(asked) * retrieval_at_1(q, a))


def megabytes(widths):
    """What a file takes: codes, a 16-bit scale for 32 of them, and the rest in float."""
    codes = sum((widths[name] + 0.5) * num_weights[name] / 8 for name in layers)
    return (in_float - linear + codes) / 1e6


models, lost, sizes = {}, {}, {}
print(
    "                               MB   fits   loses under 2%   under 0.7% of the cosine"
)
for name, widths in choices.items():
    rules = {layer: plain[widths[layer]] for layer in layers}
    if "GPTQ" in name:
        rules |= careful
    models[name] = quantize_model(model, rules=rules)
    lost[name], sizes[name] = 1 - quality(models[name])[0], megabytes(widths)
    fits, less, least = sizes[name] <= budget / 1e6, lost[name] < 0.02, lost[name] < 0.007
    print(f"{name:<28} {sizes[name]:5.1f} {fits!s:>6} {less!s:>16} {least!s:>12}")

# %% Picture: what is lost against the size of the file tags=["minilm"]
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, QUANTIZED, THEORY

figure, axes = new_figure(8.5, 3.0)
for name, size in sizes.items():
    axes.plot(
        size, 100 * lost[name], "o", ms=9, color=GOOD if "GPTQ" in name else QUANTIZED
    )
    left = size > 58
    axes.annotate(
        name, (size, 100 * lost[name]), (-10 if left else 10, 0), textcoords="offset points",
        va="center", ha="right" if left else "left",
    )  # fmt: skip
axes.axvline(budget / 1e6, color=THEORY, ls="--", lw=1)
axes.annotate(
    "budget", (budget / 1e6, 0.02), (6, 0), textcoords="offset points", color=THEORY
)
axes.set(
    yscale="log", ylim=(6e-3, 8), xlabel="size of the file, MB", ylabel="cosine lost, %",
    title="Which layers get the bits matters as much as how many",
)  # fmt: skip
axes.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
axes.minorticks_off()
Picture(
    figure,
    "What is lost of the cosine against megabytes. 4 bits lose 4% at 54 MB; 8 bits 0.01% "
    "at 59 MB, over the budget of 56 MB. Just below the budget three mixtures: 8 bits for "
    "the first layers lose 3%, where it hurts 1%, and with GPTQ half a percent.",
)

# %% [markdown]
# Three models of the same size. Bits for the wrong layers are nearly wasted; for the right ones, and with the others rounded by GPTQ,
# most of the loss is gone. The last one is worth shipping.
#
# ### Write it, and read it
#
# A folder that `from_pretrained` loads is two files, and a tokenizer's beside them:

# %% tags=["minilm"]
best = models["the same, 4 bits by GPTQ"]
target = folder / "mixed"
save_compressed_tensors(best, target)
if hasattr(encoder.tokenizer, "save_pretrained"):
    encoder.tokenizer.save_pretrained(target)
for file in sorted(target.iterdir()):
    print(f"{file.name:<22} {file.stat().st_size / 1e6:6.1f} MB")

# %% [markdown]
# Is it what you would have written? The words of a layer, unpacked by hand, are codes. *Your* `pack_int32` has to make the same words of
# them, and codes times scales have to be the weight of our own layer, to the last bit. And *your* config has to give each layer the
# bits that theirs gives it.

# %% tags=["minilm"]
stored = safetensors_torch.load_file(target / "model.safetensors")
describe_config = or_reference(quantization_config)
same_words = same_weights = True
for name in layers:
    words = stored[f"{name}.weight_packed"].numpy()
    rows, columns = stored[f"{name}.weight_shape"].tolist()
    places = bits[name] * np.arange(32 // bits[name])
    codes = (words[..., None] >> places & 2 ** bits[name] - 1) - 2 ** (bits[name] - 1)
    codes = codes.reshape(rows, -1)[:, :columns]
    same_words &= np.array_equal(pack(codes, bits[name])[0], words)
    step = stored[f"{name}.weight_scale"].float().repeat_interleave(32, dim=1)
    came_back = torch.from_numpy(codes) * step
    same_weights &= torch.equal(came_back, best.get_submodule(name).weight)
print(f"your words are those in the file: {same_words}")
print(f"the weights are ours: {same_weights}")


def layers_of(config):
    """Bits -> the layers that have them. A single group may say "Linear" for all of them."""
    found = {}
    for group in config["config_groups"].values():
        named = group["targets"] if group["targets"] != ["Linear"] else layers
        found[group["weights"]["num_bits"]] = sorted(named)
    return found


config = json.loads((target / "config.json").read_text())["quantization_config"]
mine = describe_config(bits, group_size=32)
print("your config says the same of all layers:", layers_of(mine) == layers_of(config))

# %% [markdown]
# Now the reader that matters. `transformers` needs the package `compressed-tensors` for it. It loads the words as they are and makes
# floats of them at the first use; on a GPU, vLLM would multiply with the words. Each weight must be ours exactly, and each number that
# comes out (of a language model, its logits) must agree up to the rounding of float sums.

# %% tags=["minilm", "nbval-ignore-output"]
import transformers

loaded = None
if importlib.util.find_spec("compressed_tensors") is None:
    print("To read it: pip install compressed-tensors, then restart the kernel.")
else:
    transformers.utils.logging.disable_progress_bar()
    with contextlib.redirect_stderr(io.StringIO()):  # for the bars of compressed-tensors
        loaded = transformers.AutoModel.from_pretrained(target, add_pooling_layer=False)
        ids = encoder.tokenizer(asked[:1], truncation=True, max_length=256)["input_ids"]
        tokens = torch.tensor(ids)
        with torch.no_grad():
            theirs = loaded(input_ids=tokens)[0]
    dense = copy.deepcopy(model)  # our weights, in plain float layers
    with torch.no_grad():
        for name in layers:
            dense.get_submodule(name).weight.copy_(best.get_submodule(name).weight)
        ours, packed_ours = dense(input_ids=tokens)[0], best(input_ids=tokens)[0]
    pairs = [[m.get_submodule(name).weight for m in (loaded, dense)] for name in layers]
    equal = [torch.equal(*pair) for pair in pairs]
    print(f"{type(loaded).__name__}: weights equal in {sum(equal)} of {len(equal)} layers")
    print(f"largest output {ours.abs().max():.2f}")
    print(f"off by {(theirs - ours).abs().max():.1e} from the same weights in float layers")
    print(f"off by {(theirs - packed_ours).abs().max():.1e} from our packed layers")

# %% [markdown]
# The last line is larger: our packed 4-bit layers multiply in bfloat16 (lab 05), with 8 bits of precision. The weights are the same. So
# when two engines differ, compare *weights* first, bit by bit, then outputs, with a tolerance that you can explain.
#
# ### Blocks
#
# GGUF has another agreement. A tensor has a *type*, such as F32, Q8_0 or Q4_0, and a type says how a block of 32 weights is stored. There
# is no tensor of scales: each block carries its own, so that a kernel finds all in one place. **[Q4_0](../docs/glossary.md#q4_0)** is 18 bytes:
#
# | byte | holds |
# |---|---|
# | 0, 1 | d, the scale, a float16, its lower byte first |
# | 2 | code 0 in the low half, code 16 in the high half |
# | 3 | code 1, code 17 |
# | ... | |
# | 17 | code 15, code 31 |
#
# And its scale is not the one of lab 04. There max|x| / 7 left the code -8 unused. Q4_0 sends the weight of largest magnitude, *m*, to
# -8, with d = m / -8. If m is positive, then d is negative. By hand, a block that begins -16, 14, 1 and has 4 and -6 at places 16 and 17;
# all others are 0:
#
# | | weight 0 | weight 1 | weight 2 | weight 16 | weight 17 |
# |---|---|---|---|---|---|
# | value | -16 | 14 | 1 | 4 | -6 |
# | divided by d = -16 / -8 = 2 | -8 | 7 | 0.5 | 2 | -3 |
# | code: rounded, 8 added | 0 | 15 | 8 | 10 | 5 |
#
# Byte 2 is `0xa0` (code 16, code 0), byte 3 is `0x5f`, byte 4 is `0x88`. (0.5 is a tie; `0x89` would be right as well.) A weight of 15.5
# would be at 7.75 steps. There is no code 16, so it becomes 15: the far side is clipped by up to one step.
#
# ### Exercise 3: `q4_0_blocks` (15 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, float32 `(rows, n)`; n is a multiple of 32 |
# | result | uint8 `(rows, n / 32, 18)`: the bytes of each block |
# | d | m / -8 as float16; m is the block's value of largest magnitude, with its sign |
# | codes | round(x / d) + 8, at most 15; a tie may go either way |
# | a block of zeros | d = 0, all codes 8 |


# %%
def q4_0_blocks(x):
    """Return GGUF's 18 bytes for each 32 neighbours of a row."""
    ### BEGIN SOLUTION
    blocks = x.reshape(len(x), -1, 32)
    largest = np.abs(blocks).argmax(axis=-1, keepdims=True)
    d = np.take_along_axis(blocks, largest, axis=-1) / np.float32(-8)
    steps = blocks / np.where(d == 0, 1, d)
    codes = np.clip(np.round(steps) + 8, 0, 15).astype(np.uint8)
    scale = d.astype("<f2").view(np.uint8)
    return np.concatenate([scale, codes[..., :16] | codes[..., 16:] << 4], axis=-1)
    ### END SOLUTION


# %%
check(q4_0_blocks)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `max` loses the place, `abs` loses the sign. What gives you the value that stands at the place of the largest magnitude?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Reshape to (rows, blocks, 32). `argmax` and `np.take_along_axis` find m. Where d is 0, divide by 1 instead. Join the first 16 codes with
# the last 16, and put the two bytes of d in front.
#
# </details>
# <details><summary>Hint 3: bytes of a number</summary>
#
# `array.astype("<f2").view(np.uint8)` makes two bytes of each number along the last axis, the lower one first.
#
# </details>

# %%
block_bytes = or_reference(q4_0_blocks)
hand = np.zeros((1, 32), dtype=np.float32)
hand[0, [0, 1, 2, 16, 17]] = [-16, 14, 1, 4, -6]
print(" ".join(f"{byte:02x}" for byte in block_bytes(hand)[0, 0]))

# %% [markdown]
# ## Drag your own code
#
# The explorer again, now with *your* bytes under its sliders.

# %% tags=["minilm"]
explore_block(weight, quantize=q4_0_blocks)

# %% [markdown]
# ## See it on a real model
#
# The whole encoder as one GGUF file: matrices of linear layers in Q4_0, the tables of embeddings in Q8_0 (also blocks of 32: an int8 for
# each weight, and a float16), vectors in float. Read back by our own reader, which knows nothing of your function:

# %% tags=["minilm"]
tensors = {
    name: quantize(p.detach(), GROUPS[8])
    if name.startswith("embeddings.") and p.ndim == 2
    else p.detach().numpy()
    for name, p in model.named_parameters()
}
save_gguf(tensors, folder / "encoder.gguf", kind="Q4_0")
file = GGUF(folder / "encoder.gguf")
for name in (
    "embeddings.word_embeddings.weight",
    "encoder.layer.1.output.dense.weight",
    "encoder.layer.1.output.dense.bias",
):
    tensor = file.tensors[name]
    print(f"{name:<36} {tensor.type.name:<5} {tensor.nbytes / 1e6:6.3f} MB")
read = file.read("encoder.layer.1.output.dense.weight")
raw = block_bytes(weight)
d = np.ascontiguousarray(raw[..., :2]).view(np.float16).astype(np.float32)
codes = np.concatenate([raw[..., 2:] & 15, raw[..., 2:] >> 4], axis=-1)
yours = (d * (codes.astype(np.float32) - 8)).reshape(weight.shape)
print(f"your bytes stand for the same weights: {np.mean(yours == read) > 0.999}")
print(f"SQNR of Q4_0 {sqnr_db(weight, yours):.1f} dB")
print(f"and with the scale of lab 04 {sqnr_db(weight, read_as(q)):.1f} dB")

# %% [markdown]
# Q4_0's step is max|x| / 8 where lab 04's is max|x| / 7. That is 1.2 dB, less what the far side loses by clipping. As a model:

# %% tags=["minilm"]
again = copy.deepcopy(model)
with torch.no_grad():
    for name, parameter in again.named_parameters():
        parameter.copy_(torch.tensor(file.read(name)))
cosine, _ = quality(again)
for path in (folder / "encoder.gguf", target / "model.safetensors"):
    print(f"{path.name:<18} {path.stat().st_size / 1e6:.1f} MB")
print(f"cosine to float between 0.96 and 0.98: {0.96 < cosine < 0.98}")

# %% [markdown]
# A third of the folder's size: the table of word vectors, which no linear layer is, went to 8 bits as well. That is the largest lever
# in this model, as lab 06 found.
#
# llama.cpp runs such a file if it knows the **architecture**: metadata say that it is a Llama with so many blocks and heads, and tensors
# have the names it expects. `save_gguf` writes that for a language model. Here for a tiny untrained one; for lab 12's SmolLM2 it is the
# same call, and what llama.cpp then writes is compared with our own layers by this course's tests.

# %%
from labutils.data.stand_in import untrained_language_model

small = untrained_language_model()
save_gguf(small, folder / "small.gguf", kind="Q8_0")
file = GGUF(folder / "small.gguf")
for key in ("general.architecture", "llama.block_count", "llama.attention.head_count_kv"):
    print(f"{key:<30} {file.metadata[key]}")
for name in list(file.tensors)[:3]:
    print(f"{name:<30} {file.tensors[name].type.name}")

# %% [markdown]
# ### The report card
#
# Bytes, bits, quality, what is still in float, and why. Whoever gets the folder asks for exactly that:

# %% tags=["minilm"]
card = file_report_card(target)
card

# %% [markdown]
# Areas are bytes. Five sixths of what is left is one table of word vectors. Speed and quality have to be measured on the model itself,
# here with a batch of four answers on *your* machine:


# %% tags=["minilm", "nbval-ignore-output"]
def run(model):
    return encoder.with_model(model).encode(replies[:4])


timed = report_card(best, model, run, {f"right of {len(asked)}": lambda m: quality(m)[1]})
print("\n".join(f"{name}: {value}" for name, value in timed.facts.items()))

# %% [markdown]
# `python -m labutils.report FOLDER` prints the card of a folder or a GGUF file without loading it.

# %% [markdown]
# ## In the wild
#
# **Zero minus one.** Early versions of GPTQ's tools stored a zero point z as z - 1, and their kernels added the 1 again. Newer files
# store z. The bits look the same; who reads an old file by the new rule is off by one step everywhere:

# %% tags=["minilm"]
stored_zero = 8 - 1
unsigned = q.astype(int) + 8
print(f"1 added again: {sqnr_db(weight, read_as(unsigned - (stored_zero + 1))):.0f} dB")
print(f"forgotten:     {sqnr_db(weight, read_as(unsigned - stored_zero)):.0f} dB")

# %% [markdown]
# **Another order.** AutoAWQ puts the eight codes of a word in the order 0, 2, 4, 6, 1, 3, 5, 7, which its kernel unpacks fastest. Same
# dtype, same shape:

# %% tags=["minilm"]
order = [0, 2, 4, 6, 1, 3, 5, 7]
mixed_up = q.reshape(len(q), -1, 8)[..., order].reshape(q.shape)
print(f"read in the wrong order: {sqnr_db(weight, read_as(mixed_up)):.0f} dB")

# %% [markdown]
# **One layer too many in `ignore`.** The layer was quantized, and the config says that it is in float. The reader looks for `weight`,
# finds none, and makes one at random, as it does for the new head of a model that is to be fine-tuned. It does say so, in a table of
# missing keys that scrolls by:

# %% tags=["minilm", "nbval-ignore-output"]
if loaded is not None:
    name, wrong = "encoder.layer.1.output.dense", folder / "wrong"
    shutil.copytree(target, wrong)
    whole = json.loads((wrong / "config.json").read_text())
    whole["quantization_config"]["ignore"].append(name)
    (wrong / "config.json").write_text(json.dumps(whole))
    transformers.utils.logging.set_verbosity_error()  # the table
    with contextlib.redirect_stderr(io.StringIO()):
        broken = transformers.AutoModel.from_pretrained(wrong, add_pooling_layer=False)
    made_up = broken.get_submodule(name).weight.detach().numpy()
    print(f"{name}: {sqnr_db(weight, made_up):.1f} dB")

# %% [markdown]
# Nearly all of these mistakes load without a word, and a *cosine* of outputs may still look alive where few layers are wrong. What
# catches them is what you did above: read the file with other code than that which wrote it, and ask of every weight whether it is within half a step.
#
# **Codes or floats?** A folder that says "4 bits" does not make a fast model. transformers dequantizes at the first call and then runs
# floats; vLLM has kernels for some groups and widths (128 is safe, 32 often); llama.cpp has them for its own blocks. Ask what the engine
# at the other end multiplies with.
#
# **-8 or -7?** Some libraries divide by 7.5 (torchao, see lab 01) or let -8 through, others do not. Files hold codes and scales, so a
# reader need not know: that is the good thing about an agreement.

# %% [markdown]
# ## In practice
#
# llama.cpp has a reader and a writer of its format in Python, the package `gguf`; its blocks are your bytes:

# %% tags=["minilm"]
try:
    import gguf
except ImportError:
    print("Needs gguf: pip install gguf")
else:
    theirs = gguf.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    print(
        f"bytes as yours: {np.mean(theirs == block_bytes(weight).reshape(theirs.shape)):.0%}"
    )

# %% [markdown]
# Outside of Python, and for models of any size:
#
# | | |
# |---|---|
# | `convert_hf_to_gguf.py FOLDER`, then `llama-quantize IN.gguf OUT.gguf Q4_K_M` | a folder of transformers to GGUF |
# | `llama-cli -m OUT.gguf` | runs it |
# | `vllm serve FOLDER` | serves a folder in compressed-tensors |

# %% [markdown]
# ## Stretch: larger than memory
#
# A model of 70 billion weights is 140 GB in bfloat16, in some thirty files, with an index that says which tensor is in which. Nobody has
# to hold that to quantize it: read one file, write one file, forget both. Files are independent, so several machines may share them, too.
#
# ### Exercise 4: `quantize_shards` (20 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `files`, names in order; `read(file)` gives a dict, name -> array; `write(file, tensors)` stores one; `group_size`; `ignore`, names of *layers*; `tied`, names of *tensors* |
# | order | each file is read once, and written under its name before the next is read |
# | `layer.weight` | a matrix of that name becomes `layer.weight_packed`, `layer.weight_scale` (rows, groups) and `layer.weight_shape` (int64), by `quantize_group` of lab 04 at 4 bits and your `pack_int32`, unless `layer` is in `ignore` |
# | `tied` | is not written at all: the model has it under another name |
# | all other tensors | are written as they are |
# | dtypes | codes int32, scales float32, shapes int64 |
# | result | the index: `{"metadata": {"total_size": bytes written}, "weight_map": {tensor written: its file}}` |
#
# By hand: a file "one" with `up.weight` (2, 32) and `up.bias` (2,) in float32. Written are `up.weight_packed` (2, 4), 32 bytes;
# `up.weight_scale` (2, 1), 8 bytes; `up.weight_shape` (2,), 16 bytes; `up.bias`, 8 bytes: a `total_size` of 64, and a `weight_map` of
# four names, all to "one".


# %%
def quantize_shards(files, read, write, group_size=32, ignore=(), tied=()):
    """Write each file again with 4-bit weights, one at a time; return the index."""
    ### BEGIN SOLUTION
    size, places = 0, {}
    for file in files:
        made = {}
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            if name in tied:
                continue
            if layer == name or tensor.ndim != 2 or layer in ignore:
                made[name] = tensor
                continue
            q, scales = answers.quantize_group(tensor, 4, group_size)
            made[f"{name}_packed"], shape = pack(q)
            made[f"{name}_scale"] = scales
            made[f"{name}_shape"] = shape.astype(np.int64)
        write(file, made)
        size += sum(tensor.nbytes for tensor in made.values())
        places |= dict.fromkeys(made, file)
    return {"metadata": {"total_size": size}, "weight_map": places}
    ### END SOLUTION


# %%
check(quantize_shards)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What has to be empty again when the next file begins? What has to survive from one file to the next?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Two loops: files, and the tensors of a file. A tensor is left out, or becomes three, or stays. `name.removesuffix(".weight")` is the
# layer's name. Write at the end of the outer loop, and note names and bytes of what was written.
#
# </details>
#
# On real files: the encoder's weights in three of them, as a large model comes.

# %% tags=["minilm"]
parts = {"embeddings": "embeddings.", "first": "encoder.layer.0", "rest": "encoder.layer."}
source, quantized = folder / "source", folder / "quantized"
source.mkdir()
quantized.mkdir()
left = {name: p.detach().numpy() for name, p in model.named_parameters()}
total = sum(tensor.nbytes for tensor in left.values())
where = {}
for part, beginning in parts.items():
    held = {name: left.pop(name) for name in list(left) if name.startswith(beginning)}
    safetensors_numpy.save_file(held, source / f"{part}.safetensors", {"format": "pt"})
    where |= dict.fromkeys(held, f"{part}.safetensors")
index = {"metadata": {"total_size": total}, "weight_map": where}
(source / "model.safetensors.index.json").write_text(json.dumps(index))
(source / "config.json").write_text(json.dumps(model.config.to_dict()))

one_by_one = or_reference(quantize_shards)
index = one_by_one(
    sorted({*where.values()}),
    read=lambda file: safetensors_numpy.load_file(source / file),
    write=lambda file, tensors: safetensors_numpy.save_file(tensors, quantized / file),
    ignore=[name.removesuffix(".weight") for name in where if "embeddings" in name],
)
print("file                          MB before   after")
for file in sorted({*where.values()}):
    sizes = ((f / file).stat().st_size / 1e6 for f in (source, quantized))
    print(f"{file:<28} {next(sizes):10.1f} {next(sizes):7.1f}")
print(f"all tensors, says the index: {index['metadata']['total_size'] / 1e6:.1f} MB")

# %% [markdown]
# The course's own `quantize_shards` does that for real: it reads a tensor in pieces (one that is larger than memory is no problem
# either), goes on where it was killed, never leaves half a file under its final name, and writes the config. Its scales are bfloat16,
# as the format has them by default, so that a weight half-way between two codes may get the other one:

# %% tags=["minilm"]
ready = shards.quantize_shards(
    source, folder / "ready", GROUPS[4], ignore=["*embeddings*"], progress=False
)
theirs = safetensors_torch.load_file(ready / "first.safetensors")
ours = safetensors_torch.load_file(quantized / "first.safetensors")
print("the same names:", theirs.keys() == ours.keys())
packed_name = "encoder.layer.0.output.dense.weight_packed"
other = (theirs[packed_name] ^ ours[packed_name]).numpy().view(np.uint8)  # two codes a byte
same = np.mean([other & 15 == 0, other >> 4 == 0])
print(f"the same codes, in one layer: over 99%, not all: {0.99 < same < 1}")
print("files:", ", ".join(sorted(file.name for file in ready.iterdir())))

# %% [markdown]
# ## Interview questions
#
# <details><summary>A quantized model loads without errors and writes nonsense. What do you check, in which order?</summary>
#
# Weights before outputs: dequantize one layer by the format's rules with code of your own, and compare it with the float weight. An SQNR
# near 0 dB or below points to the order of codes, offset or zero point; one that is too low by a factor, to scales. If every weight is
# right, compare the output layer by layer: the ignore list, tied weights, activations that the config quantizes.
#
# </details>
# <details><summary>Why are codes stored with an offset instead of in two's complement?</summary>
#
# An unsigned field needs no sign extension: mask, shift, convert, and subtract a constant, which can be folded into the zero point. It is
# a convention, and both exist.
#
# </details>
# <details><summary>Why does a file need the shape of a packed weight?</summary>
#
# Words hold a fixed number of codes, rows any number. Without the shape nobody knows how many of the last word's codes are real.
#
# </details>
# <details><summary>What goes into the ignore list, and what if it is wrong?</summary>
#
# Linear layers whose weights are in float: often the head, a router, what was too sensitive. A quantized layer in it gets random or
# missing weights when it is loaded; a float layer that is missing from it is searched for as codes.
#
# </details>
# <details><summary>Why does GGUF put the scale into the block?</summary>
#
# A kernel that multiplies a row reads blocks one after the other. Scale and codes arrive in the same cache line, and a file can be mapped
# into memory and used as it is.
#
# </details>
# <details><summary>How do you quantize a model that does not fit into memory?</summary>
#
# Weight-only and rounded to the nearest, each tensor is independent: file by file, even piece by piece. With calibration it is block by
# block: activations of one block are stored, its layers quantized, and its outputs are the inputs of the next.
#
# </details>
# <details><summary>What belongs on a model's report card?</summary>
#
# Bytes of the whole model, not of what was quantized; bits per weight with scales; what stayed in float and why; quality on the task,
# beside the float model; speed with machine, engine and batch. And what it was calibrated with.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - A file is bytes and an agreement. Wrong order, wrong offset, wrong zero: they all load.
# - compressed-tensors: words, scales, shape, and a config that says which layers are which. Names in `ignore` must be exactly those in float.
# - GGUF: blocks that carry their scale. Q4_0 sends the largest magnitude to -8.
# - Spend a budget where it hurts, and count the whole model.
# - Read back with other code, compare weights bit by bit, then outputs with a tolerance that you can explain.
# - One file at a time is all the memory that rounding needs.
