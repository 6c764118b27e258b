# %% [markdown]
# # 05 · Quantized linear: integers that are multiplied
#
# **Time:** 75 minutes; stretch: 20 more. **You need:** labs 01 to 03, and a little PyTorch.
#
# At the end of this lab you can
#
# - multiply two matrices of codes, zero points and all, exactly and in integers,
# - write a PyTorch layer that really holds 8-bit weights, and measure what it takes,
# - explain why such a layer is *slower* than float, and when an integer layer is faster,
# - tell from two numbers of a machine whether bits will help at all.

# %%
import copy
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from labutils import check, data, explore_linear, kernels, or_reference, predict, sqnr_db
from labutils.labs.answers import (
    quantize_asymmetric,
    quantize_per_channel,
    quantize_symmetric,
)
from labutils.labs.lab05.explore_linear import Roofs

# %% [markdown]
# ## Why
#
# So far every lab ended with `dequantize`: codes became floats again, and floats were multiplied. What does that do to
# speed? A layer has two costs: its weights must come from memory, and products must be computed. Here are both for a
# layer of 4096 x 4096 on an NVIDIA A100, with the numbers of its data sheet, and one row of activations:

# %%
A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
weights = 4096 * 4096
print(f"read float32 weights  {4 * weights / A100.memory * 1e6:5.1f} µs")
print(f"read int8 weights     {weights / A100.memory * 1e6:5.1f} µs")
print(f"multiply and add      {2 * weights / A100.float32 * 1e6:5.1f} µs, in float32")

# %% [markdown]
# The arithmetic waits for the memory, 25 times longer than it works. Smaller weights arrive sooner: that is why large
# language models are quantized. But if you *dequantize* them first, floats go to memory and come back, and you are
# worse off than before. In this lab the codes themselves are multiplied.
#
# ## Play first
#
# A layer, on the published A100, in four forms: **A** float32; **B** 8-bit weights, dequantized to float32 at each
# call; **C** 8-bit weights and 8-bit activations, multiplied as integers; **D** 4-bit weights, unpacked where they
# are multiplied. On the left each form stands where its operations for each byte put it, under the machine's
# **[roofline](../docs/glossary.md#roofline)**: along the slope memory is the limit, under a flat roof arithmetic is; they meet at the **ridge**. On
# the right is what that makes of the speed.
#
# **Predict** first.

# %%
explorer = explore_linear(4096, 4096, roofs=A100)
predict(
    "Batch 1, weights in 8 bits and multiplied as they are: "
    "how many times as fast as float32 can that be?",
    explorer.compute({"batch": 1, "bits": "8 by 8 bits"}).speedup,
    unit="times",
    tolerance=0.2,
)

# %%
predict(
    "Batch 1, weights in 8 bits, dequantized to float32 in memory before the product. "
    "How many times as fast as float32 is that?",
    explorer.compute({"batch": 1, "bits": "dequantized"}).speedup,
    unit="times",
    tolerance=0.1,
)

# %% [markdown]
# **Drag** the batch from 1 to 1024, for each of the four. **Observe** where a point leaves the slope, and what that does
# to the bars.

# %%
explorer

# %% [markdown]
# **Say why.** Write two sentences down, then unfold the answers.
#
# <details><summary>Why does a point move to the right as the batch grows?</summary>
#
# A larger batch uses each weight more often, so a byte is worth more operations.
#
# </details>
# <details><summary>What sets the speed on the slope, and what under a roof? And why is B slower than float32?</summary>
#
# On the slope, speed follows the bytes: 8 bits are 4 times as fast as 32, whatever they are multiplied in. Under a
# roof it matters in what you multiply: C uses the chip's integer unit, D the one for bfloat16, in which its unpacked
# weights are multiplied. And B reads a code, writes a float and reads that again: 9 bytes a weight in place of 4.
#
# </details>

# %% [markdown]
# ## Build it
#
# ### The product, term by term
#
# A code with scale and zero point stands for $s\,(q - z)$. In a sum over $k$ the scales can be taken out (lab 03), and
# what is left is integers:
#
# $$y = \sum_k s_a (a_k - z_a)\; s_b (b_k - z_b) = s_a s_b \Big[\underbrace{\sum a_k b_k}_{\text{the product}} - z_a \underbrace{\sum b_k}_{\text{column sum}} - z_b \underbrace{\sum a_k}_{\text{row sum}} + K z_a z_b\Big]$$
#
# By hand, one row times one column, $K = 3$:
#
# | | codes | scale | zero point | values |
# |---|---|---|---|---|
# | $a$ | 130, 125, 140 | 0.1 | 128 | 0.2, -0.3, 1.2 |
# | $b$ | 12, -3, 5 | 0.5 | 2 | 5, -2.5, 1.5 |
#
# In floats: 1 + 0.75 + 1.8 = 3.55. In integers:

# %%
a_q, a_scale, a_zp = np.array([[130, 125, 140]], np.uint8), 0.1, 128
b_q, b_scale, b_zp = np.array([[12], [-3], [5]], np.int8), 0.5, 2

a, b = a_q.astype(np.int32), b_q.astype(np.int32)
product = (a @ b).item()
print(f"product               {product:5}")
print(f"- z_a * column sum  - {a_zp * b.sum():5}   128 * {b.sum()}")
print(f"- z_b * row sum     - {b_zp * a.sum():5}   2 * {a.sum()}")
print(f"+ K * z_a * z_b     + {3 * a_zp * b_zp:5}   3 * 128 * 2")
total = product - a_zp * b.sum() - b_zp * a.sum() + 3 * a_zp * b_zp
print(
    f"                    = {total:5}   times 0.1 * 0.5 is {total * a_scale * b_scale:.2f}"
)

# %% [markdown]
# ### Where the sum is kept
#
# A product of two 8-bit codes needs 16 bits, and a sum of many needs more. How many of the largest, $(-128)^2 = 16384$,
# fit into an [accumulator](../docs/glossary.md#accumulator) and are still exact?

# %%
largest = 128 * 128
for name, limit in (
    ("int8", 2**7 - 1),
    ("int16", 2**15 - 1),
    ("float16", 2**11),
    ("float32", 2**24),
    ("int32", 2**31 - 1),
):
    print(f"{name:<8} whole numbers up to {limit:>10}: {limit // largest:>6} products")

# %% [markdown]
# (float16 reaches 65504, but knows each whole number only up to 2048.) Layers have hundreds to thousands of inputs, so
# the answer of all integer hardware is **int32**. NumPy and PyTorch do not widen by themselves:

# %%
row = np.full((1, 4), 100, np.int8)
print("int8 @ int8:  ", (row @ row.T).item(), "of dtype", (row @ row.T).dtype)
print("in int32:     ", (row.astype(np.int32) @ row.T).item())

# %% [markdown]
# ### Exercise 1: `quantized_matmul` (15 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `a_q` (M, K) and `b_q` (K, N), 8-bit codes, signed or unsigned, NumPy |
# | `a_scale` | a number, or one for each row, shape (M, 1) |
# | `b_scale` | a number, or one for each column, shape (N,) |
# | `a_zp`, `b_zp` | whole numbers, 0 where the codes are symmetric |
# | result | floats (M, N), of the values that the codes stand for |
# | exact | integers are multiplied and added up; K is at most 32768, so that int32 is wide enough; floats come at the end |
#
# You may expand the product as above, or subtract the zero points first: on paper both are the same.


# %%
def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Return a @ b as floats, computed with the integer codes of a and b."""
    ### BEGIN SOLUTION
    length = a_q.shape[1]
    sums = (
        np.matmul(a_q, b_q, dtype=np.int32)
        - a_zp * b_q.sum(axis=0, keepdims=True, dtype=np.int32)
        - b_zp * a_q.sum(axis=1, keepdims=True, dtype=np.int32)
        + length * a_zp * b_zp
    )
    return (sums * (a_scale * b_scale)).astype(np.float32)
    ### END SOLUTION


# %%
check(quantized_matmul)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Begin without zero points. In which dtype are the products added up, and at which moment do the scales come in?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Make wide integers of both before anything else. For the expansion, count shapes: column sums of b are N numbers and
# lie along the columns of the result; row sums of a are M numbers and must stand upright, shape (M, 1).
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $s_a s_b\,[\,a_q b_q - z_a\,\text{colsum}(b_q) - z_b\,\text{rowsum}(a_q) + K z_a z_b\,]$, with `keepdims` where you sum.
#
# </details>

# %% [markdown]
# Now the use it is made for: activations that are never negative, in `uint8` with a zero point, times weights in `int8`
# without one. Until your function passes, the cells from here on use the course's own.

# %%
multiply = or_reference(quantized_matmul)

rng = np.random.default_rng(0)
w = rng.normal(size=(256, 256)).astype(np.float32)
x = np.abs(rng.normal(size=(32, 256))).astype(np.float32)
x_q, x_scale, x_zp = quantize_asymmetric(x)
w_q, w_scale = quantize_symmetric(w)
y = multiply(x_q, x_scale, w_q.T, w_scale, a_zp=int(x_zp))

in_floats = ((x_q.astype(np.float64) - x_zp) * x_scale) @ (w_q.T * np.float64(w_scale))
print(f"beside the float product of the originals:   SQNR {sqnr_db(x @ w.T, y):.1f} dB")
same = sqnr_db(in_floats, y) > 120
print(f"beside the float product of the dequantized: SQNR above 120 dB: {same}")

# %% [markdown]
# The integers are not another approximation. All that is lost was lost when codes were made; the product of the codes is
# the product of what they stand for, up to the rounding of float32.
#
# ### What a zero point costs
#
# A row sum of activations must be computed at each call. A column sum of the weights need not: they do not change.
# With symmetric weights ($z_b = 0$) two of the three corrections vanish, and the third, $z_a$ times the column sums, is
# one constant for each output. Add it to the bias, and the zero point is free. Here is the last layer of the digits
# network, its inputs centred first, as many norms do it (the bias makes up for that), so that they have a zero point:

# %%
network = data.digits_network()
images, labels = data.digits("test")
head, head_bias = network.weights["head.weight"], network.weights["head.bias"]  # (10, 128)
pooled = network.activations(images)["pool"]  # (540, 128)
mean = pooled.mean()
centred, bias = pooled - mean, head_bias + mean * head.sum(axis=1)

x_q, x_scale, x_zp = quantize_asymmetric(centred)
w_q, w_scales = quantize_per_channel(head, 0)
steps = x_scale * w_scales  # of each output's sum
folded = np.round(bias / steps).astype(np.int32)
folded -= int(x_zp) * w_q.sum(axis=1, dtype=np.int32)

sums = np.matmul(x_q, w_q.T, dtype=np.int32) + folded  # this is all that runs
expected = multiply(x_q, x_scale, w_q.T, w_scales, int(x_zp)) + bias
off = np.abs(sums - expected / steps).max()
right = np.mean((sums * steps).argmax(axis=1) == labels)
print(
    f"zero point {int(x_zp)}; off by {off:.1f} steps at most, of sums up to {abs(sums).max()}"
)
print(f"read correctly: {right:.1%}, in floats {network.accuracy():.1%}")

# %% [markdown]
# The bias is an int32 here, in steps of $s_a s_b$, which are so small that half of one does not matter. Whole networks run
# like this on chips without floats (Jacob et al., 2018). It is the reason for the usual choice: **symmetric weights, and
# a zero point for activations if for anything**.
#
# ### Which scales may vary
#
# A scale for each row of $a$ and each column of $b$ stays outside of the sum. One for each of the K inputs would not, and
# the course's function says so:

# %%
from labutils import answers

try:
    answers.quantized_matmul(x_q, x_scale, w_q.T, np.ones(128))
except ValueError as error:
    print(str(error).replace("; ", ";\n"))

# %% [markdown]
# ## A layer that holds codes
#
# A PyTorch module keeps tensors in three ways. **Parameters** are trained. **[Buffers](../docs/glossary.md#buffer)** are not, but they are saved in
# `state_dict` and move along with `.to(device)`. A plain attribute is invisible to PyTorch. Codes and scales are buffers.
#
# By hand, two outputs with three inputs: the rows 0.5, **-1.27**, 0.1 and 0.02, **0.03**, -0.0254.
#
# | row | scale | codes | bytes |
# |---|---|---|---|
# | 0 | 1.27 / 127 = 0.01 | 50, -127, 10 | 3 + 4 for the scale |
# | 1 | 0.03 / 127 = 0.000236 | 85, 127, -108 | 3 + 4 |
#
# ### Exercise 2: `QuantizedLinear` (20 minutes, ●●●)
#
# | | |
# |---|---|
# | `from_float(linear)` | takes an `nn.Linear`, returns the quantized layer; the float layer stays as it is, and nothing is shared with it |
# | codes | `int8`, symmetric, a buffer; the float weight is not kept |
# | scales | one for each output (row), max&#124;row&#124; / 127, a buffer; any positive one for a row of zeros |
# | bias | as it is, copied; there may be none |
# | `forward(x)` | `x` (..., in) of any float dtype, also an empty batch; result (..., out) in the dtype of `x` |
# | `memory_bytes()` | the bytes of codes, scales and bias |
# | `state_dict`, `deepcopy`, `.to()` | work by themselves, if the tensors are registered |
#
# Make floats of the codes in `forward`, multiply, and let them go again. The four methods below are a proposal; you may
# change `__init__`. A layer may come in `bfloat16`: choose its scales in `float32`.


# %%
class QuantizedLinear(nn.Module):
    """A linear layer that holds 8-bit codes, and computes in floats."""

    def __init__(self, q, scales, bias):
        super().__init__()
        ### BEGIN SOLUTION
        self.register_buffer("q", q)  # (out, in) int8
        self.register_buffer("scales", scales)  # (out, 1)
        self.register_buffer("bias", bias)  # (out,), or None
        ### END SOLUTION

    @classmethod
    def from_float(cls, linear):
        """Return the quantized layer of an nn.Linear."""
        ### BEGIN SOLUTION
        weight = linear.weight.detach()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        scales = torch.where(scales == 0, torch.ones_like(scales), scales)
        q = (weight / scales).round().clamp(-128, 127).to(torch.int8)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(q, scales, bias)
        ### END SOLUTION

    def forward(self, x):
        """Return the outputs for x, of shape (..., in): floats (..., out)."""
        ### BEGIN SOLUTION
        weight = (self.q * self.scales).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, weight, bias)
        ### END SOLUTION

    def memory_bytes(self):
        """Return how many bytes the layer holds."""
        ### BEGIN SOLUTION
        return sum(buffer.nbytes for buffer in self.buffers())
        ### END SOLUTION


# %%
check(QuantizedLinear)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write `from_float` first: it is lab 03 in PyTorch. Then ask of each tensor: will anyone train it?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `linear.weight` is a Parameter, and everything computed from it remembers how, for the gradient. Start from
# `linear.weight.detach()`. A detached bias still lies in the same memory: clone it. `register_buffer(name, tensor)` also
# takes None for a tensor.
#
# </details>
# <details><summary>Hint 3: the details</summary>
#
# `amax(dim=1, keepdim=True)` leaves scales of shape (out, 1), which broadcast over the rows. In `forward`, cast the
# weight, and the bias, to `x.dtype`; `functional.linear` takes x with any number of axes. A tensor knows its `nbytes`.
#
# </details>

# %% [markdown]
# ### Memory, measured
#
# A matrix of MiniLM (see lab 04: it is fetched once, and the digits network stands in where that fails), as a layer:

# %% tags=["nbval-ignore-output"]
Layer = or_reference(QuantizedLinear)
matrix = data.feed_forward_weight("encoder.layer.1.output.dense.weight")
print(matrix)

# %% tags=["minilm"]
outputs, inputs = matrix.array.shape
linear = nn.Linear(inputs, outputs).requires_grad_(False)
linear.weight.copy_(torch.tensor(matrix.array))
linear.bias.zero_()
layer = Layer.from_float(linear)


def file_bytes(module):
    """The size of the file that a module's state makes."""
    return len(save(module.state_dict()))


before, after = file_bytes(linear), file_bytes(layer)
print(f"float32 in a file     {before / 1e6:.2f} MB")
print(f"yours in a file       {after / 1e6:.2f} MB, {before / after:.2f} times smaller")
print(f"memory_bytes() says   {layer.memory_bytes() / 1e6:.2f} MB")

# %% [markdown]
# Nearly 4 times: 32 bits became 8, and a scale for each of the 384 outputs is little. You will find "INT8 halves the
# memory" in print. That is true of 16-bit weights, not of 32-bit ones:

# %% tags=["minilm"]
half = file_bytes(copy.deepcopy(linear).half())
print(f"float32 / yours {before / after:.2f}, float16 / yours {half / after:.2f}")

# %% [markdown]
# ### It survives what modules go through
#
# The course's own, `labutils.models.QuantizedLinear`, does what yours does, says what it is, and takes any `Scheme`:

# %% tags=["minilm"]
from labutils.models import Int8Linear, PackedLinear
from labutils.models import QuantizedLinear as CourseLinear

x = torch.from_numpy(rng.normal(size=(64, inputs)).astype(np.float32))
fresh = CourseLinear.from_float(nn.Linear(inputs, outputs))
fresh.load_state_dict(CourseLinear.from_float(linear).state_dict())
print(fresh)
print({name: str(tensor.dtype) for name, tensor in fresh.state_dict().items()})
print("parameters to train:", sum(1 for _ in fresh.parameters()))
same = torch.equal(copy.deepcopy(fresh)(x), fresh(x))
print("a deep copy answers the same:", same)
print(
    f"yours beside it: SQNR {min(sqnr_db(fresh(x).numpy(), layer(x).numpy()), 120.0):.0f} dB"
)

# %% [markdown]
# ## Drag your own code, and your own machine
#
# The explorer again. Now the roofs are measured *here*, on one thread: how fast memory is read, and how fast numbers are
# multiplied. So are the points, once for each batch, and **B is your layer**. The dash above the large point is what the
# roofline allows.
#
# **Predict**: at which batch does your layer become as fast as float32? Then drag.

# %% tags=["nbval-ignore-output"]
explore_linear(layer=QuantizedLinear)

# %% [markdown]
# Were you right? It never does. However large the batch, your layer does all that the float layer does, and dequantizes
# besides. At small batches it moves more than twice the bytes, so it takes about twice as long or more. The larger the
# batch, the less that counts. This is what people find when they say "INT8 is slower": the weights are small, and nothing
# multiplies them as they are.
#
# ## Speed, honestly
#
# PyTorch has kernels that do. Which of them run depends on the processor, so the course tries each one with the largest
# codes, and uses only those that are exact:

# %% tags=["nbval-ignore-output"]
print(kernels.report())

# %% [markdown]
# `Int8Linear` multiplies integers: activations are quantized row by row as they come (asymmetric, so it subtracts $z_a$
# times the sums of the weights, as you did), the products add up in int32, and the scales come in at the end.
# `PackedLinear` holds 4-bit groups in real bytes (lab 04). Times as ratios to float32; more than 1 is faster:


# %% tags=["nbval-ignore-output"]
def seconds(layer, x):
    """The shortest of several calls."""
    layer(x)
    took = []
    while len(took) < 5:
        start = perf_counter()
        layer(x)
        took.append(perf_counter() - start)
    return min(took)


big = nn.Linear(1024, 1024).requires_grad_(False)
forms = {
    "yours": Layer.from_float(big),
    "8 by 8 bits": Int8Linear.from_float(big),
    "4-bit weights": PackedLinear.from_float(big),
}
print("batch " + "".join(f"{name:>16}" for name in forms))
with kernels.one_thread():  # several on a busy machine wait for one another
    for batch in (1, 8, 32, 128, 512):
        x = torch.randn(batch, 1024)
        in_float = seconds(big, x)
        told = "".join(f"{in_float / seconds(form, x):16.1f}" for form in forms.values())
        print(f"{batch:>5} {told}")

# %% [markdown]
# Look for three things. *Yours* stays below 1. *8 by 8 bits* is above 1 almost everywhere, and gains most where arithmetic
# is the limit, if the processor multiplies bytes faster than floats (on x86: VNNI or AMX). *4-bit weights* gain most at
# small batches, where bytes are the limit, and less and less beyond. Two things blur the picture. The weights of one
# small layer stay in the cache, which is faster than memory (the explorer empties it before each measurement). And at
# batch 1 quantizing the activations takes a few calls, which cost more than the product itself if the layer is small.
#
# Before you quantize, ask what limits you. One sequence at a time, as in a chat: memory; take 4-bit weights. Many at
# once: arithmetic; take 8 by 8 bits.

# %% [markdown]
# ## See it on real tensors
#
# Speed is worth nothing if the answers are wrong. The MiniLM layer in three forms, its inputs made: GELU of Gaussian
# values, which is the shape of what enters this layer.

# %% tags=["minilm"]
x = functional.gelu(torch.from_numpy(rng.normal(size=(256, inputs)).astype(np.float32)))
forms = {
    "8-bit weights (yours)": layer,
    "8 by 8 bits": Int8Linear.from_float(linear),
    "4-bit weights, g128": PackedLinear.from_float(linear),
}
print("                          in a file    outputs beside float32")
for name, form in forms.items():
    print(
        f"{name:<22} {file_bytes(form) / 1e3:9.0f} kB"
        f" {sqnr_db(linear(x).numpy(), form(x).numpy()):17.1f} dB"
    )

# %% [markdown]
# 8-bit activations cost little here: a row of 1536 of them has a scale of its own. What 4-bit weights cost is another
# matter, and lab 06 measures it where it counts. (Real activations of this layer have outliers, which these do not:
# lab 08.)
#
# A trained layer with its real activations: the head of the digits network, 10 outputs, on 540 test images.

# %%
head_linear = nn.Linear(128, 10).requires_grad_(False)
head_linear.weight.copy_(torch.tensor(head))
head_linear.bias.copy_(torch.tensor(head_bias))
tokens, truth = torch.from_numpy(pooled), torch.from_numpy(labels)
in_float = head_linear(tokens)
print("                       read correctly   same answer as float   SQNR")
for name, form in (
    ("float32", head_linear),
    ("8-bit weights (yours)", Layer.from_float(head_linear)),
    ("8 by 8 bits", Int8Linear.from_float(head_linear)),
):
    out = form(tokens)
    right = (out.argmax(1) == truth).float().mean()
    agree = (out.argmax(1) == in_float.argmax(1)).float().mean()
    ratio = (
        "" if form is head_linear else f"{sqnr_db(in_float.numpy(), out.numpy()):.1f} dB"
    )
    print(f"{name:<22} {right:14.1%} {agree:22.1%} {ratio:>9}")

# %% [markdown]
# ## In the wild
#
# **An "INT8 matmul" without an integer.** A demonstration that you can find in print quantizes two matrices, dequantizes
# both, calls `torch.matmul`, and reports the memory saved. Here it is, with its own numbers (64 x 128 by 128 x 256), and
# what its tensors really take:

# %%
A = torch.from_numpy(rng.normal(size=(64, 128)).astype(np.float32) * 2)
B = torch.from_numpy(rng.normal(size=(128, 256)).astype(np.float32) * 3)


def as_printed(tensor):
    scale = tensor.abs().max() / 127
    return torch.round(tensor / scale).clamp(-128, 127), scale


(A_codes, A_scale), (B_codes, B_scale) = as_printed(A), as_printed(B)
claimed = A.numel() + B.numel()
print(f"claimed: {claimed / 1024:.0f} KB of codes")
print(f"held:    {(A_codes.nbytes + B_codes.nbytes) / 1024:.0f} KB, in {A_codes.dtype}")

ours = multiply(
    A_codes.to(torch.int8).numpy(),
    A_scale.item(),
    B_codes.to(torch.int8).numpy(),
    B_scale.item(),
)
theirs = (A_codes * A_scale) @ (B_codes * B_scale)
print(f"with integers: SQNR to the float product {sqnr_db((A @ B).numpy(), ours):.1f} dB")
print(
    f"as printed:    SQNR to the float product {sqnr_db((A @ B).numpy(), theirs.numpy()):.1f} dB"
)

# %% [markdown]
# The error that it reports is right: the two agree. That is *fake quantization*, and a good way to find out what bits cost
# in quality. It says nothing about memory or speed. `round` and `clamp` leave floats, and a byte is saved only by a dtype.
#
# **Sums that saturate in pairs.** x86 processors without VNNI multiply unsigned by signed bytes and add *pairs* of products
# in 16 bits, which saturate. Here is that instruction (`vpmaddubsw`) in NumPy, on large codes:

# %%
unsigned, signed = np.array([255, 255]), np.array([127, 127])
pair = int(np.sum(unsigned * signed))
print(f"the pair is {pair}; in 16 bits with saturation {min(pair, 2**15 - 1)}")
for num_bits in (8, 7):
    top = 2**num_bits - 1
    pair = 2 * top * 127
    print(
        f"activations of {num_bits} bits: {pair} {'fits' if pair < 2**15 else 'does not fit'}"
    )

# %% [markdown]
# For such machines PyTorch's quantizers have a switch, `reduce_range`, that gives activations 7 bits; its dynamic quantization
# has it on, so it uses 127 steps for activations, and it has one scale for a whole weight. (All of `torch.ao.quantization` is
# deprecated in favour of torchao.) It is also why
# the course tests each kernel with the largest codes before it trusts it.
#
# **What hardware offers.** Peaks that the vendor publishes, dense, in tera-operations a second and GB/s. The last two
# columns are how many operations a byte must be worth before arithmetic is the limit:

# %%
sheets = {  # float32; with matrix units float16, int8, FP8, FP4 (0: has none); GB/s
    "NVIDIA T4 (2018)": (8.1, 65, 130, 0, 0, 320),
    "NVIDIA A100 40 GB (2020)": (19.5, 312, 624, 0, 0, 1555),
    "NVIDIA H100 SXM (2022)": (67, 989, 1979, 1979, 0, 3350),
    "NVIDIA B200 (2024)": (75, 2250, 4500, 4500, 9000, 8000),
}
print("                         float32 float16  int8  FP8   FP4   memory   float16  int8")
for name, (single, half, byte, *small, memory) in sheets.items():
    eight, four = (rate or "-" for rate in small)
    print(
        f"{name:<25} {single:6} {half:7} {byte:5} {eight:>5} {four:>5} {memory:5} GB/s"
        f" {1e3 * half / memory:7.0f} {1e3 * byte / memory:6.0f}"
    )

# %% [markdown]
# Integers are not ahead everywhere any more: since Hopper 8-bit floats run at the same rate, and Blackwell's 4-bit floats, which
# have no integer counterpart there, at twice that (lab 11's grids).
#
# "Integers are 2 to 4 times faster" mixes two things. Against 16 bits it is 2, for arithmetic and for bytes alike.
# Against 32 bits it is 4 for bytes, and far more for arithmetic where a chip has units for it. Below the ridge it is the
# bytes that count, and above it the arithmetic. Energy follows the same order. For a 45 nm chip, and 1.3 to 2.6 nJ to
# fetch 64 bits from DRAM (Horowitz, 2014, "Computing's energy problem", ISSCC):

# %%
picojoules = {"8 by 8 bits, added in 32": (0.2, 0.1), "float32": (3.7, 0.9)}
for name, (product, addition) in picojoules.items():
    print(f"multiply and add, {name:<25} {product + addition:6.1f} pJ")
print(f"{'a byte from DRAM, at least':<43} {1300 / 8:6.1f} pJ")

# %% [markdown]
# Multiplying and adding in integers takes a fifteenth of the energy, and a byte from memory as much as 500 times that.

# %% [markdown]
# ## In practice
#
# In torchao one call, `quantize_`, turns all linear layers of a module into layers of this lab. It leaves the layers and swaps
# their *weights*, for tensors that hold codes and scales. Both of your layers, beside theirs:

# %% tags=["minilm"]
import logging

logging.disable(logging.WARNING)  # torchao tells of its kernels for other machines
try:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig as W8A8
    from torchao.quantization import Int8WeightOnlyConfig as W8
    from torchao.quantization import quantize_
except ImportError:
    print("Needs torchao, 0.18 or later: pip install torchao")
else:
    for name, config in (("weights", W8()), ("weights and inputs", W8A8())):
        theirs = nn.Sequential(copy.deepcopy(linear))
        quantize_(theirs, config)
        weight, db = theirs[0].weight, sqnr_db(linear(x).numpy(), theirs(x).numpy())
        print(f"{name} in 8 bits: codes {weight.qdata.dtype}, over 30 dB: {db > 30}")

# %% [markdown]
# The second chooses a scale for each row of `x` as it comes, without a zero point: the layer of the stretch exercise.

# %% [markdown]
# ## Stretch
#
# ### Exercise 3: `int8_linear` (15 minutes, ●●●)
#
# The layer that is fast: 8-bit codes on both sides. Weights are quantized beforehand, activations as they come, a scale
# for each row (lab 03's "token").
#
# | | |
# |---|---|
# | input | torch tensors: `x` (..., K) `float32`; `w_q` (N, K) `int8`; `w_scale` (N,); `bias` (N,) or None |
# | codes of `x` | symmetric, 8 bits, scale = max&#124;row&#124; / 127 for each row; any positive scale for a row of zeros |
# | product | integers; `kernels.int_matmul(a, b)` takes two `int8` matrices (M, K) and (K, N), and returns `int32` |
# | result | floats (..., N), with the bias added |
# | an empty batch | gives an empty result |
#
# By hand: the row 1.27, 0.5 has the scale 0.01 and the codes 127, 50. With weight codes 1, 2 (scale 0.1) the sum is 227,
# and 227 · 0.01 · 0.1 = 0.227.


# %%
def int8_linear(x, w_q, w_scale, bias=None):
    """Return x @ weight.T + bias, multiplied in integers."""
    ### BEGIN SOLUTION
    rows = x.reshape(-1, x.shape[-1])
    scales = rows.abs().amax(dim=1, keepdim=True) / 127
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    codes = (rows / scales).round().to(torch.int8)
    y = kernels.int_matmul(codes, w_q.t()) * (scales * w_scale)
    y = y.reshape(*x.shape[:-1], len(w_q))
    return y if bias is None else y + bias
    ### END SOLUTION


# %%
check(int8_linear)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of the five steps do you have already? Quantize rows, multiply integers, rescale, give the axes back, add the bias.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Make two axes of x first. Row scales of shape (M, 1) times weight scales of shape (N,) broadcast to (M, N), the shape of
# the sums. The weight comes as (N, K), and `int_matmul` wants (K, N): `w_q.t()` is a view, and nothing is copied.
#
# </details>

# %% tags=["minilm"]
integer_layer = or_reference(int8_linear)
w_q, w_scale = (torch.from_numpy(part) for part in quantize_per_channel(matrix.array, 0))
symmetric = integer_layer(x, w_q, w_scale, linear.bias)
asymmetric = Int8Linear.from_float(linear)(x)
for name, out in (("symmetric (yours)", symmetric), ("asymmetric", asymmetric)):
    print(f"{name:<18} rows: {sqnr_db(linear(x).numpy(), out.numpy()):.1f} dB")

# %% [markdown]
# GELU's outputs are mostly positive, so half of a symmetric grid is wasted on them. `Int8Linear` gives each row a zero
# point, and pays with one more term: $z_a$ times the sums of the weights, computed once.

# %% [markdown]
# ## Interview questions
#
# <details><summary>Why do weights usually have no zero point, when activations may?</summary>
#
# A zero point of the activations meets the column sums of the weights, which are known beforehand and go into the bias.
# A zero point of the weights meets the row sums of the activations, which change with each input.
#
# </details>
# <details><summary>Why is the sum kept in int32?</summary>
#
# A product of two 8-bit codes takes up to 16 bits, so int16 holds one of the largest, and int32 holds 131 071. float32 is
# exact up to 1024 of them.
#
# </details>
# <details><summary>What does INT8 save, exactly?</summary>
#
# Against 32 bits nearly 4 times, against 16 bits nearly 2 times. The rest is scales: 4 bytes for each output of K bytes.
# What is left in float, such as embeddings and norms, lowers it for a whole model. Lab 06 measures by how much.
#
# </details>
# <details><summary>You quantized the weights to 8 bits, and the model became slower. Why?</summary>
#
# The weights are dequantized at each call, and the product is still one of floats. Use a kernel that multiplies the codes,
# or one that unpacks them in registers. Fake quantization, with floats that merely lie on a grid, cannot save anything.
#
# </details>
# <details><summary>Batch 1 on a GPU: 8-bit weights and activations, or 4-bit weights?</summary>
#
# One row of activations uses each weight once: two operations for each weight, far below the ridge of any accelerator. The
# time is that of reading the weights, so 4 bits win. At batch 512 the arithmetic counts, and 8 by 8 bits win.
#
# </details>
# <details><summary>Dynamic or static quantization of activations?</summary>
#
# Dynamic: scales are found for each input as it comes, here one for each row. It needs no [calibration](../docs/glossary.md#calibration) data and adapts to
# each row, but costs a pass over the activations. Static: scales are fixed beforehand on calibration data (lab 07). It is
# faster, and wrong where the data differ.
#
# </details>
# <details><summary>When does a quantized linear layer fail?</summary>
#
# When one value sets the scale of many: an outlier weight in its row (groups help, lab 04), or a loud channel of the
# activations, which no scale outside of the sum can single out (lab 08). [GPTQ](../docs/glossary.md#gptq) and [AWQ](../docs/glossary.md#awq) choose better codes for hard
# weights.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - The product of codes is exact. Four terms, int32, and the scales once at the end.
# - Symmetric weights make two of the terms vanish; the zero point of activations goes into the bias.
# - Codes and scales are buffers. What a layer saves is a matter of dtypes: measure the file.
# - Dequantize-then-multiply saves memory and loses time. Multiplying codes can save both.
# - Count operations for each byte. Below the ridge bytes are the limit: fewer bits. Above it arithmetic is: other units.
