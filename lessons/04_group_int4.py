# %% [markdown]
# # 04 · Group INT4: small groups, real bytes
#
# **Time:** 95 minutes; stretch: 20 more. **You need:** lab 01 (02 for exercise 6; 03 helps), NumPy; no PyTorch.
#
# At the end of this lab you can
#
# - give every group of neighbouring weights a scale of its own, and say what that costs,
# - put two 4-bit codes into each byte, and get them back with their signs,
# - say what a zero point for each group costs and gains, at 4, 3 and 2 bits,
# - read "4-bit, group size 128" as 4.125 bits per weight, and choose a group size by what it gains,
# - recognise four ways in which libraries store the same codes, and what happens if you mix them up.

# %%
import numpy as np

from labutils import (
    check,
    data,
    explore_groups,
    or_reference,
    predict,
    sqnr_db,
)

# %% [markdown]
# The matrix of this lab is a real one, from a language model: MiniLM, which turns sentences into vectors. Its weights do
# not come with the course. The next cell reads one of them by name, from a copy on your machine or else from the Hugging
# Face Hub (91 MB, once). Where neither can be had, it says so, and a matrix of the digits network stands in: everything
# works, but numbers in the text will differ from yours.

# %% tags=["nbval-ignore-output"]
matrix = data.feed_forward_weight("encoder.layer.1.output.dense.weight")
weights = matrix.array  # (384, 1536): 384 neurons with 1536 inputs each
print(matrix)

# %% [markdown]
# ## Why
#
# This is what one scale for the whole matrix leaves of it at 4 bits, and one scale for each row (each neuron):

# %% tags=["minilm"]
from labutils import PerAxis, PerTensor, Scheme, fake_quantize

for name, granularity in (("one scale", PerTensor()), ("a scale a row", PerAxis(0))):
    rounded = fake_quantize(weights, Scheme(num_bits=4, granularity=granularity))
    left = np.count_nonzero(rounded) / rounded.size
    print(f"{name:<14} SQNR {sqnr_db(weights, rounded):4.1f} dB, {left:6.2%} are not 0")
print(f"largest weight: {np.abs(weights).max() / weights.std():.0f} standard deviations")

# %% [markdown]
# With one scale, next to nothing is left. The largest weight is 94 standard deviations away, so one step of a 4-bit grid
# is 13 of them, and all but a hundred weights round to 0. A scale for each row confines the damage to one row. But a
# row has 1536 weights, and 1535 of them still suffer from the largest. Cut the row into groups.

# %% [markdown]
# ## Play first
#
# On the left you see a part of the row with the largest weight, in groups (between the thin lines). The light band is how
# far a group's grid reaches: to its own largest weight. The dark band is half a step around zero: what lies in it becomes
# 0. A cross marks a **spoilt** group: more than half of its weights become 0. Triangles are weights beyond the picture. On
# the right is the quality against what a weight costs in bits, a scale of 16 bits for each group included. Each grey
# curve is one bit width, its points are groups of 256, 128, 64, 32 and 16.
#
# **Predict** first.

# %% tags=["minilm"]
explorer = explore_groups(weights)
coarse, fine = (explorer.compute({"num_bits": 4, "group_size": size}) for size in (128, 32))
predict(
    "At 4 bits, groups of 32 in place of 128: by how many decibels does the SQNR rise?",
    fine.sqnr_db - coarse.sqnr_db,
    unit="dB",
    tolerance=0.5,
)

# %%
predict(
    "A scale takes 16 bits. With groups of 32, how many bits does a 4-bit weight cost?",
    4 + 16 / 32,
    unit="bits",
    tolerance=0.01,
)

# %% [markdown]
# **Drag** the [group size](../docs/glossary.md#group-size) from 256 to 16, at 4 bits. **Observe** how many groups of the whole matrix are spoilt, and which
# share of all groups that is. Then drag the bits, and watch where the orange point goes.

# %% tags=["minilm"]
explorer

# %% [markdown]
# **Say why.** Write a sentence down for each, then unfold.
#
# <details><summary>At every group size more than a hundred groups are spoilt. So what do small groups help?</summary>
#
# A large weight still spoils its group, but a smaller group has fewer members to spoil: about a hundred groups of 256 are
# one group in twenty, as many groups of 16 are one in three hundred.
#
# </details>
# <details><summary>Why do the grey curves bend over?</summary>
#
# Each halving of the group size doubles the number of scales, so it costs more each time, and gains about the same.
#
# </details>
#
# You will build this now, and then make it as small as it claims to be.

# %% [markdown]
# ## Build it
#
# ### A scale for each group
#
# A **group** is a run of `group_size` neighbours along the last axis. A group never reaches into the next row, so the last
# one of a row may be short. Within a group everything is as in lab 01: scale = max|x| / 7 at 4 bits, round, clamp.
#
# By hand, a row of six in groups of four, at 4 bits:
#
# | | | | | | | |
# |---|---|---|---|---|---|---|
# | $x$ | 0.33 | **-0.7** | 0.12 | 0.48 | 2.8 | **-7** |
# | group | 0 | 0 | 0 | 0 | 1 | 1 |
# | scale | | | | 0.7 / 7 = 0.1 | | 7 / 7 = 1 |
# | $q$ | 3 | -7 | 1 | 5 | 3 | -7 |
# | $x' = q \cdot$ scale | 0.3 | -0.7 | 0.1 | 0.5 | 3 | -7 |
#
# With one scale for the row it would be 1, and the codes 0, -1, 0, 0, 3, -7: three of four small values gone.
#
# ### Exercise 1: `quantize_group` (15 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, a NumPy array of floats, any number of axes; `num_bits` from 2 to 16; `group_size`, from 1 on |
# | result | `q, scales` |
# | `q` | the shape of `x`; `int8` up to 8 bits, `int16` above; codes in $[-2^{b-1}, 2^{b-1}-1]$ |
# | `scales` | floats, shape `(*x.shape[:-1], number of groups in a row)`; `(3, 300)` in groups of 128 has scales `(3, 3)` |
# | groups | along the last axis, never across rows; the last one of a row may be short |
# | a group size beyond the row | makes one group of the row |
# | an all-zero group | codes 0, scale 1 |
# | tiny values | no smallest scale |
# | your input | stays as it is |


# %%
def quantize_group(x, num_bits=4, group_size=128):
    """Return (q, scales): the codes of x, and a scale for each group of each row."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    length = x.shape[-1]
    size = min(group_size, length)
    filling = [(0, 0)] * (x.ndim - 1) + [(0, -length % size)]
    groups = np.pad(x, filling).reshape(*x.shape[:-1], -1, size)  # (..., groups, size)
    scales = np.abs(groups).max(axis=-1) / np.asarray(quant_max, x.dtype)
    scales = np.where(scales == 0, 1, scales).astype(x.dtype)
    q = np.clip(np.round(groups / scales[..., None]), -quant_max - 1, quant_max)
    q = q.reshape(*x.shape[:-1], -1)[..., :length]
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scales
    ### END SOLUTION


# %%
check(quantize_group)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Forget the short group first: a row of 8 in groups of 4 is a 2 x 4 table. Which axis of the table is the group?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Fill each row up with zeros until its length is a multiple of the group size: zeros never are the largest, and you cut
# them off at the end. Then a reshape gives the groups an axis of their own, `(..., groups, group_size)`, and the scales
# need one more axis to divide by them.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `-length % group_size` is how many zeros are missing. `np.pad` adds them along one axis only, if you say `(0, 0)` for the
# others. scale = max over the last axis of |groups| / $(2^{b-1} - 1)$, and 1 where that is 0.
#
# </details>

# %% [markdown]
# ### Exercise 2: `dequantize_group` (5 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `q`, codes; `scales`, as `quantize_group` gives them; `group_size`, the same as there |
# | result | `float32`, also where the scales are `float64`; the shape of `q`: each code times the scale of its group |


# %%
def dequantize_group(q, scales, group_size):
    """Return the float32 values that the codes q stand for."""
    ### BEGIN SOLUTION
    each = np.repeat(scales, group_size, axis=-1)[..., : q.shape[-1]]
    return q.astype(np.float32) * each.astype(np.float32)
    ### END SOLUTION


# %%
check(dequantize_group)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is `np.repeat([0.1, 1.0], 4)`? And what is too much of it for the row of six above?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Lay the scales out so that each element has its own, `group_size` times the same in a run, and cut the rest of the last
# group off. Do it along the last axis, so that each row starts afresh.
#
# </details>

# %% [markdown]
# ### One outlier, and where its damage ends
#
# 1024 Gaussian values, one of them made 50. Until your functions pass, the cells from here on use the course's own.

# %%
quantize, dequantize = or_reference(quantize_group), or_reference(dequantize_group)

row = np.random.default_rng(1).normal(size=(1, 1024)).astype(np.float32)
others = np.arange(1024) != 300
spiked = np.where(others, row, np.float32(50))
errors, steps = {}, {}
print("group size    SQNR of the other 1023    of them rounded to 0")
for size in (1024, 256, 128, 64, 32, 16):
    q, scales = quantize(spiked, 4, size)
    back = dequantize(q, scales, size)
    errors[size], steps[size] = np.abs(spiked - back)[0], np.repeat(scales[0], size)
    ratio = sqnr_db(spiked[:, others], back[:, others])
    print(f"{size:>10} {ratio:22.1f} dB {np.count_nonzero(q[:, others] == 0):23}")

# %% Picture: the errors beside one outlier, in groups of 1024, 128 and 16
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, QUANTIZED, THEORY

figure, panels = new_figure(columns=3, height=2.7, sharey=True)
for panel, size in zip(panels, (1024, 128, 16)):
    panel.plot(np.arange(1024), errors[size], ".", ms=3, color=QUANTIZED)
    panel.plot(steps[size] / 2, color=THEORY, lw=1.2, label="scale / 2")
    panel.set(title=f"Groups of {size}: {size - 1} hurt", xlabel="column")
panels[0].set_ylabel("|error|")
panels[1].legend(loc="upper right")
Picture(
    figure,
    "The error of 1024 values with one outlier. In one group all errors are large, up to 3.5; "
    "in groups of 128 and 16 only the 127 and 15 values beside the outlier are hurt.",
)

# %% [markdown]
# The outlier's group is lost in every case. What changes is how many others are in it. That is all that small groups do,
# and it is a lot.
#
# ## Real bytes
#
# So far nothing is small: `q` holds 4-bit codes, but in `int8`, a byte for each.

# %% tags=["minilm"]
q, scales = quantize(weights, 4, 128)
print(f"float32 weights {weights.nbytes:>8} bytes")
print(f"4-bit codes     {q.nbytes:>8} bytes, from {q.min()} to {q.max()}")

# %% [markdown]
# No computer addresses half a byte. Two codes must share one. Here is how -2 and the others look in four bits, in *two's
# complement*: the highest of the four bits counts -8 instead of 8.

# %%
for code in (1, -2, 7, -8, -1):
    print(f"{code:>3}  {np.binary_repr(code, 4)}")

# %% [markdown]
# By hand, the codes 1, -2, 7. The first of each pair goes into the **low [nibble](../docs/glossary.md#nibble)** (the last four digits of the byte), the
# second into the high one. An odd code out gets a high nibble of zeros:
#
# | codes | high nibble | low nibble | byte |
# |---|---|---|---|
# | 1, -2 | 1110 | 0001 | 11100001 = 225 |
# | 7 | 0000 | 0111 | 00000111 = 7 |
#
# ### Exercise 3: `pack_int4` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `q`, `int8` codes from -8 to 7, shape `(..., n)` |
# | result | `uint8`, shape `(..., ceil(n / 2))` |
# | order | neighbours along the last axis share a byte; the first is the low nibble |
# | negative codes | two's complement: the lowest four bits of the `int8` |
# | odd `n` | each row's last high nibble is 0 |


# %%
def pack_int4(q):
    """Return the codes of q, two in each byte, along the last axis."""
    ### BEGIN SOLUTION
    if q.shape[-1] % 2:
        q = np.concatenate([q, np.zeros((*q.shape[:-1], 1), q.dtype)], axis=-1)
    nibbles = q.astype(np.uint8) & 0x0F
    return nibbles[..., ::2] | (nibbles[..., 1::2] << 4)
    ### END SOLUTION


# %%
check(pack_int4)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Print `np.binary_repr(x, 8)` for -2 before and after `x & 15`. Which four bits are left?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Every second code starting at 0 is a low nibble, every second starting at 1 a high one. Cut each to four bits, shift the
# high ones up by four, and lay the two over each other with `|`. A row of odd length needs one zero more before.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# byte = (first & 15) | ((second & 15) << 4), in `uint8`.
#
# </details>

# %% [markdown]
# ### Exercise 4: `unpack_int4` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `packed`, `uint8`, as `pack_int4` gives it; `length`, how many codes a row had |
# | result | `int8`, shape `(..., length)`: the same codes, with their signs |
#
# By hand: 11100001 is 0001 and 1110. 0001 is 1. 1110 is 14 as a plain number; its highest bit is set, so it means 14 - 16
# = -2.


# %%
def unpack_int4(packed, length):
    """Return the int8 codes that pack_int4 packed; length is how many a row had."""
    ### BEGIN SOLUTION
    pairs = np.stack([packed & 0x0F, packed >> 4], axis=-1).astype(np.int8)
    codes = pairs.reshape(*packed.shape[:-1], -1)[..., :length]
    return np.where(codes > 7, codes - 16, codes).astype(np.int8)
    ### END SOLUTION


# %%
check(unpack_int4)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two arrays are easy: all low nibbles, and all high ones. How do they become neighbours again?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Stack the two along a *new last* axis, `(..., bytes, 2)`: then a reshape walks through low, high, low, high. Only then
# look at signs: a nibble of 8 or more is a negative code.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# code = nibble - 16 where nibble > 7, else nibble; in a signed dtype, since `uint8` knows no -2. The last one of an odd
# row is filling: keep `length` codes.
#
# </details>

# %%
pack, unpack = or_reference(pack_int4), or_reference(unpack_int4)

codes = np.array([1, -2, 7], dtype=np.int8)
packed = pack(codes)
for byte in packed:
    bits = np.binary_repr(byte, 8)
    print(f"byte {byte:>3}: high {bits[:4]}, low {bits[4:]}")
print("unpacked:", unpack(packed, 3))

# %% [markdown]
# Now measure. A file that stores this matrix keeps the packed codes, and the scales in float16:

# %% tags=["minilm"]
packed = pack(q)
stored = scales.astype(np.float16)
assert np.array_equal(unpack(packed, q.shape[-1]), q)
total = packed.nbytes + stored.nbytes
print(f"packed codes    {packed.nbytes:>8} bytes")
print(f"scales, float16 {stored.nbytes:>8} bytes")
print(
    f"float32 weights {weights.nbytes:>8} bytes, {weights.nbytes / total:.2f} times as many"
)
print(f"bits per weight {8 * total / weights.size:.4f}")
back = dequantize(q, stored.astype(np.float32), 128)
exact = dequantize(q, scales, 128)
print(f"SQNR, float32 scales {sqnr_db(weights, exact):7.2f} dB")
print(f"SQNR, float16 scales {sqnr_db(weights, back):7.2f} dB")

# %% [markdown]
# 7.76 times smaller than float32, not 8: the difference is the scales. Keeping them in float16 loses nothing that you
# could see: the relative error is at most 1/2048, where a 4-bit code is off by up to half a step. That holds for scales from
# 6e-5 on. Below, float16 has *[subnormal](../docs/glossary.md#subnormal)* numbers with fewer digits. bfloat16 keeps the range of float32 and has fewer digits
# everywhere, up to 1/512 off. Who stores scales in 16 bits has to know how small they get.
#
# ## Bits per weight
#
# "4 bits" is what a code takes. What a *weight* takes, its [bits per weight](../docs/glossary.md#bits-per-weight), includes its share of the group's scale, and of its zero point where
# there is one.
#
# ### Exercise 5: `bits_per_weight` (3 minutes, ●○○)
#
# | | |
# |---|---|
# | input | `num_bits` of a code; `group_size`; `scale_bits` and `zero_point_bits` of a *group* |
# | result | bits per weight, a number; every group is taken to be full |
#
# By hand: a group of 32 codes of 4 bits and a scale of 16 is 144 bits for 32 weights: 4.5.


# %%
def bits_per_weight(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """Return what a weight costs in bits, with its share of scale and zero point."""
    ### BEGIN SOLUTION
    return num_bits + (scale_bits + zero_point_bits) / group_size
    ### END SOLUTION


# %%
check(bits_per_weight)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Count the bits of one whole group first.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Each weight has a code of its own. Scale and zero point are there once for the group, so a weight pays only its share.
#
# </details>

# %%
price = or_reference(bits_per_weight)
print("group size   scale only   share of the scale   and a 4-bit zero point")
for size in (16, 32, 64, 128, 256):
    share = (price(4, size) - 4) / price(4, size)
    print(f"{size:>10} {price(4, size):12.4f} {share:20.1%} {price(4, size, 16, 4):24.4f}")

# %% [markdown]
# The numbers that model cards leave out: 4.5, 4.25 and 4.125 bits for groups of 32, 64 and 128, and 4.625, 4.3125 and
# 4.156 with a packed zero point (lab 02's, in 4 bits). The same formula covers formats whose 4-bit codes stand for other
# values, such as [NF4](../docs/glossary.md#nf4), [MXFP4](../docs/glossary.md#mxfp4) and [NVFP4](../docs/glossary.md#nvfp4) (lab 11).
#
# ### A zero point for each group
#
# Lab 02 found that a zero point gains little on weights at 8 bits: over the whole tensor they reach about equally far both
# ways. A group of 32 is seldom that even. It may well lie on one side of 0 altogether, so the range of every group is
# widened to include 0, as ever.
#
# By hand, a row of six in groups of four, at 4 bits:
#
# | | | | | | | |
# |---|---|---|---|---|---|---|
# | $x$ | 0.12 | **-0.3** | **1.2** | 0.48 | 2.24 | **3** |
# | group | 0 | 0 | 0 | 0 | 1 | 1 |
# | scale | | | | (1.2 + 0.3) / 15 = 0.1 | | (3 - 0) / 15 = 0.2 |
# | zero point | | | | 0.3 / 0.1 = 3 | | 0 |
# | $q$ | 4 | 0 | 15 | 8 | 11 | 15 |
# | $x' = (q - z) \cdot$ scale | 0.1 | -0.3 | 1.2 | 0.5 | 2.2 | 3 |
#
# ### Exercise 6: `quantize_group_asymmetric` (10 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, `num_bits`, `group_size` as in exercise 1 |
# | result | `q, scales, zero_points` |
# | `q` | the shape of `x`; `uint8` up to 8 bits, `uint16` above; codes in $[0, 2^b-1]$ |
# | `scales`, `zero_points` | shape `(*x.shape[:-1], number of groups in a row)`, as in exercise 1; a float and an integer dtype that holds any code |
# | each group | as `quantize_asymmetric` of lab 02 has it: range with 0, rounded integer zero point in $[0, 2^b-1]$ |
# | an all-zero group | codes 0, zero point 0, any positive scale: take 1 |
# | groups, short or too large; tiny values; your input | as in exercise 1 |


# %%
def quantize_group_asymmetric(x, num_bits=4, group_size=128):
    """Return (q, scales, zero_points): unsigned codes, and two numbers for each group."""
    ### BEGIN SOLUTION
    quant_max = 2**num_bits - 1
    length = x.shape[-1]
    size = min(group_size, length)
    filling = [(0, 0)] * (x.ndim - 1) + [(0, -length % size)]
    groups = np.pad(x, filling).reshape(*x.shape[:-1], -1, size)  # (..., groups, size)
    low, high = groups.min(axis=-1).clip(max=0), groups.max(axis=-1).clip(min=0)
    scales = np.where(high > low, (high - low) / quant_max, 1).astype(x.dtype)
    zero_points = np.round(-low / scales).astype(np.int32)
    q = np.clip(np.round(groups / scales[..., None]) + zero_points[..., None], 0, quant_max)
    q = q.reshape(*x.shape[:-1], -1)[..., :length]
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scales, zero_points
    ### END SOLUTION


# %%
check(quantize_group_asymmetric)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Copy `quantize_group`. The cutting into groups stays; the maximum becomes two ends, and the codes move up by the zero
# point.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# The zeros that fill the last group up do no harm here either: 0 belongs to every range. Two ends of shape
# `(..., groups)`, clipped to include 0; from them scales and zero points of the same shape; then one more axis for both.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# With $\min \le 0 \le \max$ of each group: scale = $(\max - \min)/(2^b-1)$, or 1 where that is 0, $z =
# \operatorname{round}(-\min/\text{scale})$, $q = \operatorname{clamp}(\operatorname{round}(x/\text{scale}) + z, 0, 2^b-1)$. The
# clamp comes before the cast.
#
# </details>

# %% [markdown]
# What does it gain, and what does it cost? A zero point takes as many bits as a code. **Predict** first. At 4 bits the
# code that the symmetric grid leaves unused is worth 0.6 dB (lab 02): how much is it in all?

# %% tags=["minilm"]
with_zero_points = or_reference(quantize_group_asymmetric)


def restored(x, num_bits, size):
    """x quantized in groups with zero points, and back."""
    q, scales, zero_points = map(np.asarray, with_zero_points(x, num_bits, size))
    each = np.repeat(zero_points, size, axis=-1)[..., : x.shape[-1]]
    return dequantize(q.astype(np.int32) - each, scales, size)


def qualities(num_bits, size):
    """SQNR of the real matrix in groups, symmetric and with zero points."""
    plain = dequantize(*quantize(weights, num_bits, size), size)
    return sqnr_db(weights, plain), sqnr_db(weights, restored(weights, num_bits, size))


# %% tags=["minilm"]
without, with_them = qualities(4, 128)
predict(
    "At 4 bits in groups of 128: by how many decibels is the real matrix better with zero points?",
    with_them - without,
    unit="dB",
    tolerance=0.5,
)

# %% tags=["minilm"]
print("bits  groups of     bits per weight              SQNR             gain")
print("                  symmetric  with zero    symmetric  with zero")
for b in (4, 3, 2):
    for size in (128, 32):
        plain, better = qualities(b, size)
        costs = f"{price(b, size):9.3f} {price(b, size, 16, b):10.3f}"
        told = f"{plain:9.1f} dB {better:7.1f} dB {better - plain:8.1f} dB"
        print(f"{b:>4} {size:>10} {costs} {told}")

# %% [markdown]
# The fewer the bits, the more it gains, and it costs an eighth of a bit at most. At 2 bits a zero point for each 128
# weights is better *and* cheaper than symmetric groups of 32. The unused code alone would be 0.6 dB at 4 bits and 1.3 at 3;
# the rest is that groups rarely reach equally far both ways. That is why zero points are common with 4-bit weights, and
# rare with 8-bit ones.

# %% [markdown]
# ## Drag your own code
#
# The explorer again, with *your* `quantize_group` under its sliders.

# %% tags=["minilm"]
explore_groups(weights, quantize=quantize_group)

# %% [markdown]
# ## See it on real tensors
#
# ### Bits against groups
#
# There are two ways to spend a bit: on codes, or on scales. All points of the explorer, and beyond them a scale for a whole
# row and groups of 8 and 4, with your functions, on the real matrix:

# %% tags=["minilm"]
SIZES = (256, 128, 64, 32, 16)


def sweep(x, sizes=SIZES, widths=range(2, 9)):
    """SQNR of x at every bit width and group size."""
    return {
        (b, size): sqnr_db(x, dequantize(*quantize(x, b, size), size))
        for b in widths
        for size in sizes
    }


ROW = weights.shape[1]
every = (ROW, *SIZES, 8, 4)
levels = sweep(weights, sizes=every)
points = {key: (price(*key), level) for key, level in levels.items()}
front, best = {}, -np.inf
for key, (cost, level) in sorted(points.items(), key=lambda item: item[1]):
    if level > best:  # better than all that are cheaper
        front[key] = cost, level
        best = level
print(f"{len(front)} of {len(points)} settings have none that is cheaper and as good")

# %% Picture: SQNR against bits per weight, and the settings that nothing cheaper equals tags=["minilm"]
figure, panel = new_figure(8.5, 4.2)
for num_bits in range(2, 9):
    line = [points[num_bits, size] for size in every]
    panel.plot(*zip(*line), "o-", color=THEORY, ms=5, lw=0.9, mfc="white")
    panel.annotate(
        f"{num_bits} bits", line[-1], (8, 0), textcoords="offset points", va="center"
    )
panel.plot(*zip(*front.values()), "o", color=GOOD, ms=5.5, label="on the Pareto front")
for size in (64, 32, 16, 8, 4):
    panel.annotate(
        f"{size}", points[8, size], (0, 6), textcoords="offset points", ha="center"
    )
panel.annotate("groups of", points[8, 64], (-16, 6), textcoords="offset points", ha="right")
panel.set(
    title="Groups of 16 to 256 are worth their bits, rows and tiny groups are not",
    xlabel="bits per weight, scales counted",
    ylabel="SQNR (dB)",
    xlim=(1.6, 12.9),
    ylim=(-2, 55),
)
panel.legend(loc="lower right")
Picture(
    figure,
    "SQNR against bits per weight for 2 to 8 bits, a curve each, with points for a row "
    "and groups of 256 to 4. Each curve is steep at first, then flat; the next one "
    "takes over, and the points for rows and for groups of 8 and 4 lie below it.",
)

# %% [markdown]
# A setting is on the **Pareto front** if nothing cheaper is as good. A scale for a whole row is nearly free, and yet from 4
# bits on, one bit less in groups of 16 is cheaper *and* better. Groups of 8 and 4 cost two and four bits a weight, which are
# better spent on codes. (At 8 bits they are on the front only because the sweep has no codes of 9 bits.)
#
# On the front it is the *slope* that tells you what to choose. A bit more for each code is worth about 6 dB. Does halving
# the groups pay better? In dB per bit spent, at 4 bits, for the real matrix and for a Gaussian one of the same shape:

# %% tags=["minilm"]
from itertools import pairwise

gaussian = np.random.default_rng(0).normal(size=weights.shape).astype(np.float32)
tables = [levels, sweep(gaussian, widths=(4, 5))]
print("dB per bit           bits spent   real matrix   Gaussian")
for large, small in pairwise(SIZES):
    spent = price(4, small) - price(4, large)
    slopes = [(table[4, small] - table[4, large]) / spent for table in tables]
    print(
        f"groups {large:>3} -> {small:<3} {spent:14.4f} {slopes[0]:13.1f} {slopes[1]:10.1f}"
    )
slopes = [table[5, 256] - table[4, 256] for table in tables]
print(f"codes    4 -> 5   {1:14.4f} {slopes[0]:13.1f} {slopes[1]:10.1f}")

# %% [markdown]
# Down to groups of 64, scales are the better buy; from there on, codes are. Each halving of the group gains about as much
# as the one before, and costs twice as much. For a Gaussian, with no outliers to lock away, the balance tips one step
# earlier. Most 4-bit models use groups of 32 to 128.
#
# ### A better SQNR, a better model?
#
# Not always. The digits network in groups, at 3 bits:

# %%
network = data.digits_network()
matrices = {name: w for name, w in network.weights.items() if w.ndim > 1}
print("3 bits        lowest SQNR   read correctly")
for name, size in (("a row", 10_000), ("32", 32), ("16", 16), ("8", 8)):
    flat = {key: w.reshape(len(w), -1) for key, w in matrices.items()}
    back = {key: dequantize(*quantize(w, 3, size), size) for key, w in flat.items()}
    lowest = min(sqnr_db(w, back[key]) for key, w in flat.items())
    right = network.accuracy(
        {key: w.reshape(matrices[key].shape) for key, w in back.items()}
    )
    print(f"groups of {name:<6}{lowest:8.1f} dB {right:14.1%}")

# %% [markdown]
# The digits network has short rows without outliers. Smaller groups raise the SQNR of its weights, and it reads no better:
# in groups of 8 it reads 23 of the 540 images fewer than with a scale a row. A weight's SQNR is a guide. What counts is
# measured on the model's own task, which lab 06 does.

# %% [markdown]
# ## In the wild
#
# **There is no common order.** The same eight codes, -8 to -1, as libraries store them:

# %%
eight = np.arange(-8, 0, dtype=np.int8)
nibbles = eight.astype(np.uint8) & 15  # two's complement
offset = (eight + 8).astype(np.uint8)  # offset binary: 0 to 15, 8 stands for zero
words = np.sum(offset.astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32))
layouts = {
    "this course": nibbles[::2] | nibbles[1::2] << 4,
    "torchao: offset, low first": offset[::2] | offset[1::2] << 4,
    "torchao's tinygemm, bitsandbytes": offset[::2] << 4 | offset[1::2],
    "HQQ: by halves": offset[:4] << 4 | offset[4:],
}
for name, stored in layouts.items():
    print(f"{name:<32} {stored.tobytes().hex(' ')}")
print(f"{'compressed-tensors: int32':<32} 0x{words:08x}")

# %% [markdown]
# (bitsandbytes' codes are indices into a table of 16 values, but they are packed like this.) Nothing in the bytes says
# which it is. A file read in the wrong order raises no error. It gives you a matrix of the right shape, the right dtype
# and the right histogram:

# %% tags=["minilm"]
packed = pack(q)
swapped = unpack(packed << 4 | packed >> 4, q.shape[-1])
halves = np.concatenate([swapped[:, 1::2], swapped[:, ::2]], axis=1)
unsigned = np.stack([packed & 15, packed >> 4], axis=-1).reshape(q.shape)
for name, codes in (
    ("as packed", q),
    ("nibbles swapped", swapped),
    ("taken for halves", halves),
    ("sign not extended", unsigned),
):
    print(f"{name:<18} SQNR {sqnr_db(weights, dequantize(codes, scales, 128)):6.1f} dB")

# %% [markdown]
# Below 0 dB the error is larger than the weights: an empty matrix would be better. This is why `pack` and `unpack` are
# tested as a pair *and* against bytes written down by hand: a pair that agrees with itself may agree with nobody else.
#
# **[GPTQ](../docs/glossary.md#gptq)'s zero point.** GPTQ is a way to choose 4-bit codes, and the file format that came with it. Its first version
# stores each zero point minus 1, and readers add the 1 back. A reader that does not moves every weight by one step:

# %% tags=["minilm"]
codes = q.astype(np.int16) + 8  # 0 to 15, as in the file; the zero point is 8
in_file = 8 - 1
for name, zero_point in (("1 added", in_file + 1), ("1 forgotten", in_file)):
    back = dequantize((codes - zero_point).astype(np.int8), scales, 128)
    print(f"{name:<12} SQNR {sqnr_db(weights, back):5.1f} dB")

# %% [markdown]
# ## In practice
#
# In torchao one call gives a layer what you have built: groups, scales and, if you ask for them, zero points. (Its rows must
# be a multiple of the group size.) transformers takes the same configuration:
# `from_pretrained(..., quantization_config=TorchAoConfig(config))`. Where torchao is installed (this lab does without), it
# reaches the 21.3 dB that yours reach:

# %% tags=["minilm", "nbval-ignore-output"]
import logging

logging.disable()  # torchao would tell of each kernel that this machine has no use for
try:
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerGroup, quantize_
except ImportError:
    print("torchao is not installed: nothing to compare with")
else:
    linear = torch.nn.Linear(*weights.shape[::-1], bias=False)
    linear.weight = torch.nn.Parameter(torch.tensor(weights))
    config = IntxWeightOnlyConfig(
        torch.int4, PerGroup(32), mapping_type=MappingType.ASYMMETRIC
    )
    quantize_(linear, config)
    theirs = linear.weight.dequantize().numpy()
    print(f"theirs: SQNR {sqnr_db(weights, theirs):.1f} dB")
    print(f"yours:  SQNR {sqnr_db(weights, restored(weights, 4, 32)):.1f} dB")
logging.disable(logging.NOTSET)

# %% [markdown]
# ## Stretch
#
# ### Exercise 7: `pack_int3` (15 minutes, ●●●)
#
# Eight does not divide by three. Two 3-bit codes in a byte waste a quarter of it; *eight* codes fill *three* bytes exactly,
# if codes may cross from one byte into the next. See a row as a stream of bits: code 0 takes bits 0 to 2, code 1 bits 3
# to 5, code 2 bits 6 to 8, and bit 8 is the lowest bit of byte 1.
#
# | | |
# |---|---|
# | input | `q`, `int8` codes from -4 to 3, shape `(..., n)` |
# | result | `uint8`, shape `(..., ceil(3 n / 8))` |
# | order | code $i$ takes the bits from $3i$ on, its lowest bit first; bit $j$ of the stream is bit $j \bmod 8$ of byte $\lfloor j/8 \rfloor$, counted from the lowest |
# | the end of a row | filled up with zero bits to a whole byte |
#
# By hand: the codes 1, -2, 3 are 001, 110, 011. Byte 0 holds, from its highest bit down, the low two bits of 3, then -2,
# then 1: 11 110 001 = 241. The third bit of 3 is 0 and goes to byte 1.


# %%
def pack_int3(q):
    """Return the 3-bit codes of q as one stream of bits a row, in whole bytes."""
    ### BEGIN SOLUTION
    bits = (q[..., None] >> np.arange(3)) & 1  # (..., n, 3), lowest bit first
    stream = bits.astype(np.uint8).reshape(*q.shape[:-1], -1)
    return np.packbits(stream, axis=-1, bitorder="little")
    ### END SOLUTION


# %%
check(pack_int3)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Do not think in bytes. Write every code as three numbers that are 0 or 1, and the row as one long list of them.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `(q >> k) & 1` is bit k of a code, also of a negative one. Give the three bits an axis of their own, flatten it into the
# row, and look at what `np.packbits` can do. In which order does it fill a byte?
#
# </details>

# %% tags=["minilm"]
from labutils import packing

three = or_reference(pack_int3)
print("bits   packed kB   one in int8   bits per weight   SQNR (groups of 128)")
for num_bits, packer in ((4, pack), (3, three), (2, lambda q: packing.pack(q, 2))):
    q, scales = quantize(weights, num_bits, 128)
    packed = packer(q)
    assert np.array_equal(packing.unpack(packed, num_bits, q.shape[-1]), q)
    total = 8 * (packed.nbytes + 2 * scales.size) / q.size
    print(
        f"{num_bits:>4} {packed.nbytes / 1000:11.1f} {q.nbytes / 1000:13.1f} {total:17.3f}"
        f" {levels[num_bits, 128]:12.1f} dB"
    )

# %% [markdown]
# `labutils.packing` does this for 2 to 8 bits without touching single bits: it reads eight codes as one 64-bit integer and
# folds it, neighbours together, then pairs, then fours. It is a page long.

# %% [markdown]
# ## Interview questions
#
# <details><summary>A model card says "4-bit, group size 128". How large is a 7B model?</summary>
#
# 4 bits and 16/128 of a scale: 4.125 bits per weight, or 3.6 GB, if scales are 16 bits wide and there are no zero points.
# Embeddings and norms usually stay in 16 bits and come on top.
#
# </details>
# <details><summary>Why do groups run along the input dimension of a weight matrix?</summary>
#
# An output is a sum along a row. A row's groups can be summed one by one, each partial sum multiplied with its scale. A
# scale for each row alone could wait until the end; group scales cannot, and that is what they cost in arithmetic.
#
# </details>
# <details><summary>Why not groups of 8?</summary>
#
# At 4 bits a 16-bit scale for 8 weights is 2 bits each: 6 in all. Better codes cost the same. In the explorer, 4 bits
# in groups of 16 (5.00 bits per weight) reach 20.7 dB, and 5 bits in groups of 256 (5.06) reach 21.8 dB.
#
# </details>
# <details><summary>Where does the outlier go?</summary>
#
# Nowhere: its group is still quantized with its scale, and most members become 0. Small groups make the group smaller.
# Other remedies keep the outlier in 16 bits, clip it (lab 01), or move it into another tensor (lab 08).
#
# </details>
# <details><summary>You load a 4-bit checkpoint, and the model talks nonsense. Shapes and histograms look right. What do you suspect?</summary>
#
# The nibble order, offset binary against two's complement, or a zero point that is off by one: all keep shapes and
# histograms (almost), and all ruin the weights. Dequantize one row and compare with the original.
#
# </details>
# <details><summary>Does packing make the model faster?</summary>
#
# By itself it makes it smaller. It is faster where reading weights from memory is what takes the time, as when one token
# is generated at a time, and only with a kernel that unpacks on the fly (lab 05). Unpack first and multiply then, and it
# is slower than before.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - A group is a run of neighbours in one row, with a scale of its own. An outlier spoils its group, and no more.
# - A weight costs `num_bits + scale_bits / group_size`. Say it with the scales counted.
# - Halving the group gains about the same each time and costs twice as much. Down to 128 or 64, scales are the better buy.
# - A zero point for each group costs less than halving the groups once more, and gains more; the fewer the bits the more.
# - Two codes share a byte: mask, shift, or. Unpacking must bring the sign back, and know the row's length.
# - Orders and offsets differ between libraries, and nothing tells you. Test against bytes written down by hand.
