# %% [markdown]
# # 03 · Per-channel: which elements share a scale
#
# **Time:** 80 minutes; stretch: 10 more. **You need:** labs 01 and 02, NumPy; no PyTorch.
#
# At the end of this lab you can
#
# - give every channel a scale of its own, along any axis of any tensor, and take it back,
# - measure what each channel gets, which an average over all hides,
# - tell which scales can be pulled out of a matrix product and which cannot, and prove it,
# - compare four quantizers on any tensor, and count the bytes that their scales cost.

# %%
import numpy as np

from labutils import (
    PerAxis,
    PerTensor,
    Scheme,
    check,
    data,
    dequantize,
    explore_granularity,
    fake_quantize,
    or_reference,
    predict,
    quantization_error,
    quantize,
    sqnr_db,
)

network = data.digits_network()
matrices = {name: w for name, w in network.weights.items() if w.ndim > 1}  # not the biases
depthwise = matrices["block3.depthwise.weight"]  # (64, 1, 3, 3): a 3 x 3 filter a channel
square = matrices["block2.pointwise.weight"].reshape(64, 64)  # (out, in)

# %% [markdown]
# ## Why
#
# In lab 01 each weight tensor of the digits network had one scale. Here it is at 4 bits, read on the 540 test images: once
# like that, and once with a scale for every output [channel](../docs/glossary.md#channel).


# %%
def accuracy_with(num_bits, granularity):
    scheme = Scheme(num_bits, granularity=granularity)
    return network.accuracy(
        {name: fake_quantize(w, scheme) for name, w in matrices.items()}
    )


print(f"weights in 32 bits:                    {network.accuracy():.1%}")
print(f"4 bits, one scale for each tensor:     {accuracy_with(4, PerTensor()):.1%}")
print(f"4 bits, one scale for each channel:    {accuracy_with(4, PerAxis(0)):.1%}")

# %% [markdown]
# No wider codes, and nearly all of the loss is gone. This lab is about why, which elements may share a scale, and what
# the additional scales cost.

# %% [markdown]
# ## Play first
#
# A trained layer, 64 output channels with 64 weights each. On the left, each blue dot is a channel: its largest weight.
# The orange line is the step of its grid. What lies in the shaded region, below half a step, becomes 0. The distance
# between dot and line is what counts: it says how many steps the channel has. On the right is the SQNR of each channel.
#
# **Predict** first.

# %%
predict(
    "One 8-bit scale for all, codes -127 to 127. "
    "How many of these codes can a channel use whose largest weight is a hundredth of the loudest channel's?",
    3,
    tolerance=0.5,
)

# %%
predict(
    "One scale for all. Channel A is ten times quieter than channel B, and otherwise alike. "
    "By how many decibels is its SQNR lower, as long as the steps are small?",
    20 * np.log10(10),
    unit="dB",
    tolerance=1,
)

# %% [markdown]
# **Drag** the spread up: it makes the quietest channel up to 100 times quieter, and those between accordingly. **Observe**
# how many channels become all zero, and how little the black line, the SQNR over all weights, tells of it. Then press
# *axis 0*, and *axis 1*.

# %%
explorer = explore_granularity(square)
explorer

# %% [markdown]
# **Say why.** Write a sentence down for each, then unfold.
#
# <details><summary>Why does the SQNR over all hardly notice that channels are lost?</summary>
#
# With one scale, the loudest channel sets the step for everyone. Its own SQNR is fine, and since it also holds most of the
# power, so is the SQNR over all. The quiet channels pay.
#
# </details>
# <details><summary>Why does axis 0 help the quiet channels, and axis 1 not?</summary>
#
# With a scale for each channel (axis 0), the orange line follows the dots, and all channels fare alike. Along axis 1
# every scale serves one weight of *each* channel, loud and quiet ones. Steps get somewhat shorter, since not every column
# holds a weight as large as the largest of all, but they are the same for all channels, and the quietest are lost as
# before.
#
# </details>

# %% [markdown]
# ## Build it
#
# ### What is kept and what is reduced
#
# Which elements share a scale is called **[granularity](../docs/glossary.md#granularity)**. A scale comes from a maximum, and
# a maximum is taken *over* some axes. The rest is kept. For the weight of a convolution, shape (64, 32, 3, 3) = (out, in, height, width):
#
# | elements that share a scale | `axis` (kept) | reduced | scales | weights for each |
# |---|---|---|---|---|
# | the whole tensor | - | 0, 1, 2, 3 | 1 | 18 432 |
# | an output channel | 0 | 1, 2, 3 | 64 | 288 |
# | an input channel | 1 | 0, 2, 3 | 32 | 576 |
# | a row of the kernel (the 3 x 3 filter) | 2 | 0, 1, 3 | 3 | 6 144 |
#
# Beware of the word `axis`. In `np.max(x, axis=0)` it is the axis that *disappears*. In quantization it is the axis that
# *stays*: "[per channel](../docs/glossary.md#per-channel) along axis 0" means one scale for each index of axis 0.
#
# By hand, two channels at 8 bits along axis 0:
#
# | channel | $x$ | | | largest | scale | codes | | |
# |---|---|---|---|---|---|---|---|---|
# | 0 | 0.05 | **-0.254** | 0.1015 | 0.254 | 0.254 / 127 = 0.002 | 25 | -127 | 51 |
# | 1 | **2.54** | 0.3 | -1.013 | 2.54 | 2.54 / 127 = 0.02 | 127 | 15 | -51 |
#
# With the one scale 0.02 for both, channel 0 would have had the codes 2 (or 3), -13 and 5.
#
# ### Exercise 1: `quantize_per_channel` (15 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, floats with one axis or more; `axis`, where the channels are, also negative; `num_bits` from 2 to 16 |
# | result | `q, scales` |
# | `q` | the shape of `x`; `int8` up to 8 bits, `int16` above; symmetric, as in lab 01 |
# | `scales` | an array of shape `(x.shape[axis],)`, also where there is one channel; positive |
# | a channel that is all zero | codes 0, any positive scale: take 1 |
# | tiny channels | no smallest scale |
# | your input | stays as it is |


# %%
def quantize_per_channel(x, axis, num_bits=8):
    """Return (q, scales): the codes of x, and a scale for each index along axis."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scales = np.abs(x).max(axis=others, keepdims=True) / quant_max
    scales = np.where(scales == 0, 1, scales)
    q = np.clip(np.round(x / scales), -quant_max - 1, quant_max)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scales.reshape(-1)
    ### END SOLUTION


# %%
check(quantize_per_channel)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Start from your `quantize_symmetric`. Only the maximum changes, and what follows from it: the test for 0 must now work
# for many scales at once, and the scales must line up with `x` in the division.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# NumPy can take a maximum over several axes: `axis` may be a tuple. Which axes are in it? With `keepdims=True` the
# result divides `x` without any further thought.
#
# </details>
# <details><summary>Hint 3: the details</summary>
#
# `axis % x.ndim` turns -1 into the last axis. `np.where` replaces the zeros among the scales. After dividing,
# `reshape(-1)` makes the scales flat; `squeeze()` would also remove a channel axis of length 1.
#
# </details>

# %% [markdown]
# ### Exercise 2: `dequantize_per_channel` (6 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `q`, integer codes; `scales` of shape `(q.shape[axis],)`, `float32`; `axis`, also negative |
# | result | `float32`, the shape of `q`: each code times the scale of its channel |


# %%
def dequantize_per_channel(q, scales, axis):
    """Return the float32 values that the codes q stand for."""
    ### BEGIN SOLUTION
    shape = [1] * q.ndim
    shape[axis] = -1
    return q.astype(np.float32) * scales.astype(np.float32).reshape(shape)
    ### END SOLUTION


# %%
check(dequantize_per_channel)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is `np.ones((2, 3)) * np.array([1, 2])`? And what is `np.ones((3, 3)) * np.array([1, 2, 3])`: which axis did the
# three numbers go along?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# NumPy lines shapes up at their *end*. To lie along `axis`, the scales need the shape (1, ..., C, ..., 1) with C in
# place `axis`. In a list of ones, one entry is another; and a list understands -1 as an index.
#
# </details>

# %% [markdown]
# Here is what your functions do to the 64 filters of a depthwise layer at 3 bits. Each row is a filter with its 9
# weights, the quietest on top. Until your functions pass, the cells from here on use the course's own.

# %%
per_channel = or_reference(quantize_per_channel)
back = or_reference(dequantize_per_channel)

filters = depthwise.reshape(64, 9)
filters = filters[np.argsort(np.abs(filters).max(axis=1))]
one_scale, _ = per_channel(filters.reshape(1, -1), 0, num_bits=3)  # one channel holds all
many_scales, scales = per_channel(filters, 0, num_bits=3)
print("codes in use, quietest filter first")
for name, q in (("one scale", one_scale.reshape(64, 9)), ("a scale each", many_scales)):
    print(f"{name:<13}", *(len(np.unique(codes)) for codes in q[::9]))

# %% Picture: the codes of 64 filters at 3 bits, with one scale and with a scale each
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import ORIGINAL, QUANTIZED, THEORY

figure, panels = new_figure(7.5, 4.2, columns=2, sharey=True)
told = "One scale: {} of 64 reach ±3", "A scale each: {} of 64 do"
for panel, q, title in zip(panels, (one_scale.reshape(64, 9), many_scales), told):
    image = panel.imshow(q, cmap="RdBu", vmin=-3, vmax=3, aspect="auto")
    panel.set(
        title=title.format(np.sum(np.abs(q).max(axis=1) == 3)),
        xlabel="weight of the filter",
    )
    panel.grid(False)
panels[0].set_ylabel("filter, quietest first")
figure.colorbar(image, ax=panels, label="code", ticks=range(-3, 4))
Picture(
    figure,
    "Codes of 64 filters at 3 bits as colours. With one scale the quiet filters are pale, "
    "for they use the codes -1, 0 and 1 only. "
    "With a scale each, every filter reaches the outermost codes.",
)

# %% [markdown]
# ## Drag your own code
#
# The explorer again, over the 64 depthwise filters, and now its buttons run *your* `quantize_per_channel`. Even *tensor*
# does: a tensor with one scale is a single channel that holds everything. Leave the spread at 1: these filters differ by
# themselves. At how many bits are filters lost with one scale, and at how many with a scale for each?
#
# <details><summary>Answer</summary>
#
# With one scale none at 3 bits, but fifty of the 64 at 2. With a scale for each, none: the largest weight of a filter
# always gets the largest code.
#
# </details>

# %%
explore_granularity(filters, quantize=quantize_per_channel)

# %% [markdown]
# ## What each channel gets
#
# Rounding noise is $\Delta^2/12$ (lab 01), in a channel with its own step $\Delta_c$ as much as in a tensor with one step
# $\Delta = \max_c \Delta_c$. So a channel that gets a scale of its own has $\Delta^2 / \Delta_c^2$ times less noise: nothing
# is won in the loudest, 40 dB in one that is a hundred times quieter. Over all elements the mean is ruled by the loud
# channels, which keep their noise. To see the others you need an instrument that looks at each of them.
#
# ### Exercise 3: `sqnr_per_channel` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `original` and `dequantized`, floats of one shape; `axis`, where the channels are, also negative |
# | result | an array of shape `(original.shape[axis],)`: the SQNR of each channel in decibels |
# | SQNR | $10 \log_{10}(\text{mean of } x^2 / \text{mean of } e^2)$, over the elements of the channel (lab 01) |
# | a channel that came back exactly | `inf`, also where it is all zero (zeros always come back exactly: every grid here holds 0.0) |
# | tiny channels | no smallest noise: only an error of exactly 0 is `inf` |
#
# By hand, channels along axis 0: $[3, 4]$ comes back as $[3, 3.5]$. Its power is 25/2, its noise 0.25/2: a ratio of 100,
# 20 dB. $[0.1, 0.2]$ comes back as $[0.2, 0.2]$: 0.05/2 over 0.01/2 is 5, which is 7 dB. Over both together it is 19.8 dB: the
# quiet channel does not show.


# %%
def sqnr_per_channel(original, dequantized, axis):
    """Return the SQNR of each channel along axis, in decibels."""
    ### BEGIN SOLUTION
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    signal = np.mean(original.astype(np.float64) ** 2, axis=others)
    noise = np.mean((original.astype(np.float64) - dequantized) ** 2, axis=others)
    exact = noise == 0
    ratio = np.where(exact, np.inf, signal / np.where(exact, 1, noise))
    return 10 * np.log10(ratio)
    ### END SOLUTION


# %%
check(sqnr_per_channel)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two means, one ratio, one logarithm. Which axes do the means run over? You have written that line already.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `np.mean`, like `np.max`, takes a tuple of axes. Square first, then take the mean, and the logarithm last of all.
#
# </details>
# <details><summary>Hint 3: the details</summary>
#
# Where the noise is 0, nothing may be divided: `np.where` puts 1 there before the division and `inf` after it.
#
# </details>

# %% [markdown]
# Now three matrices at 8 bits: one whose rows differ in scale, as examples in courses make them, and two trained layers of
# the network. Before you run it: where will the two averages hide the most?

# %%
quality = or_reference(sqnr_per_channel)

blocks = np.repeat([10, 0.1, 1], [64, 64, 128])  # 64 loud rows, 64 quiet ones
looked_at = {
    "rows times 10, 0.1 and 1": np.random.default_rng(0).normal(size=(256, 512))
    * blocks[:, None],
    "block2.pointwise": square,
    "block3.depthwise": depthwise,
}
print("                              SQNR over all          worst channel")
print("                          one scale   one each   one scale   one each")
for name, w in looked_at.items():
    flat, step = per_channel(w.reshape(1, -1), 0)
    alike = back(flat, step, 0).reshape(w.shape)
    each = back(*per_channel(w, 0), 0)
    pairs = ((sqnr_db(w, b), quality(w, b, 0).min()) for b in (alike, each))
    (all_alike, worst_alike), (all_each, worst_each) = pairs
    print(
        f"{name:<25} {all_alike:7.1f} dB {all_each:7.1f} dB"
        f" {worst_alike:8.1f} dB {worst_each:7.1f} dB"
    )

# %% [markdown]
# In the first matrix it is eight decibels over all, little more than a bit, and nearly forty in the worst row: with one
# scale nothing of it is left, with its own it is as good as any. So is it eight decibels or forty? That depends on what
# the network does with a quiet channel. If its output is *rescaled*, as [batch norm](../docs/glossary.md#batch-norm) does, it counts as much as a loud one.
#
# Before a network is quantized, batch norm is **folded** into the layer before it. For each channel it computes
# $\gamma (y - \mu) / \sigma + \beta$. So the channel's weights are multiplied by $\gamma / \sigma$, its bias $b$
# becomes $\gamma (b - \mu) / \sigma + \beta$, and the norm is gone. The digits network comes folded.

# %% [markdown]
# ## Which scales can leave the sum
#
# Scales are only cheap if the products are made of integers, and the scales are applied once, to the result. For a
# linear layer with [tokens](../docs/glossary.md#token) $t$ (the rows of its input), inputs $i$ and outputs $o$, and a scale for each token and
# each output channel:
#
# $$y_{to} = \sum_i x_{ti}\, w_{oi} \approx \sum_i (s_t\, q_{ti})(r_o\, p_{oi}) = s_t\, r_o \underbrace{\sum_i q_{ti}\, p_{oi}}_{\text{integers}}$$
#
# Both scales leave the sum, since neither knows $i$. A scale $r_i$ for each *input* channel cannot:
#
# $$\sum_i (s_t\, q_{ti})(r_i\, p_{oi}) = s_t \sum_i r_i\, q_{ti}\, p_{oi}$$
#
# The rule: **a scale may vary along the axes that survive the product, and not along the one that is summed over.** First
# the legal axes, on real activations (a "token" here is a pixel of a feature map, with 64 channels):

# %%
images, labels = data.digits("test")
flow = network.activations(images)
tokens = np.moveaxis(flow["block2.depthwise"], 1, -1).reshape(-1, 64)  # (34560, 64)
x_q, x_scales = per_channel(tokens[:1000], 0)  # a scale for each token
w_q, w_scales = per_channel(square, 0)  # a scale for each output channel

in_floats = back(x_q, x_scales, 0) @ back(w_q, w_scales, 0).T
in_integers = x_q.astype(np.int32) @ w_q.astype(np.int32).T  # (1000, 64), exact
rescaled = in_integers * x_scales[:, None] * w_scales
largest = np.abs(in_floats).max()
assert np.abs(rescaled - in_floats).max() < 1e-5 * largest
print("per token and per output channel: the scales leave the sum")

# %% [markdown]
# Now the same with a scale for each *input* channel. The matrix is square, so all shapes fit, and nothing complains. Only
# an assert does:

# %%
w_q, w_scales = per_channel(square, 1)  # a scale for each input channel

in_floats = back(x_q, x_scales, 0) @ back(w_q, w_scales, 1).T
in_integers = x_q.astype(np.int32) @ w_q.astype(np.int32).T
rescaled = in_integers * x_scales[:, None] * w_scales
off = np.abs(rescaled - in_floats).max() / largest
try:
    assert off < 1e-5, f"off by {off:.0%} of the largest output"
except AssertionError as error:
    print("AssertionError:", error)

# %% [markdown]
# The assert is right, and no other factor could satisfy it: each output is a sum of 64 terms, every one with a scale of
# its own. The scales would have to be multiplied in 64 times, in float, before the sum.
#
# | in $y = x\,w^\top$ | scale along | can leave the sum? |
# |---|---|---|
# | weights | out | yes: per channel |
# | weights | in | no |
# | activations | tokens | yes: per token |
# | activations | features | no |
# | either | groups of the inputs | one partial sum for each group (lab 04) |
#
# A depthwise convolution sums over the 3 x 3 window only. There the channel axis survives, and both sides may have a
# scale for each channel.
#
# Whether a scale for each token also *helps* depends on the activations: where a few *features* are loud for all tokens, as
# in large language models, it helps little (lab 08). The stretch exercise measures it here.

# %% [markdown]
# ## See it on real tensors
#
# The whole network, weights only, one scale for each tensor against one for each output channel, with your functions:

# %%
widths = (8, 6, 5, 4, 3, 2)
right = {"one scale a tensor": [], "one scale a channel": []}
for num_bits in widths:
    rounded = {}, {}
    for name, w in matrices.items():
        q, scales = per_channel(w.reshape(1, -1), 0, num_bits)
        rounded[0][name] = back(q, scales, 0).reshape(w.shape)
        rounded[1][name] = back(*per_channel(w, 0, num_bits), 0)
    for counts, weights in zip(right.values(), rounded):
        counts.append(network.accuracy(weights))
for name, shares in right.items():
    print(f"{name:<19} at {widths} bits:", *(f"{share:.0%}" for share in shares))

# %% Picture: accuracy against bits, with one scale a tensor and one a channel
figure, panel = new_figure(7, 3.2)
for (name, shares), colour in zip(right.items(), (ORIGINAL, QUANTIZED)):
    panel.plot(widths, 100 * np.array(shares), "o-", color=colour, ms=5, label=name)
panel.axhline(10, color=THEORY, ls="--", lw=1.2, label="guessing")
panel.set(
    title="With a scale a channel, the network holds out about a bit longer",
    xlabel="bits",
    ylabel="read correctly (%)",
    ylim=(0, 103),
)
panel.invert_xaxis()
panel.legend(loc="center left")
Picture(
    figure,
    "Accuracy against bits. Per tensor it falls from 99% at 8 bits to 87% at 4 and 28% at 3. "
    "Per channel it stays near 99% down to 4 bits and is at 96% at 3.",
)

# %% [markdown]
# Read it with care. One image is 0.2 points, so differences of a few tenths, as at 8 to 5 bits, are chance. At 4 and 3
# bits they are not. And this is one trained network of many: trained from other seeds, per channel at 3 bits gave
# anything from 54% to 96%. That per channel is better there is typical; the number is not.
#
# Which layer is to blame? All layers per channel at 4 bits, and one at a time [per tensor](../docs/glossary.md#per-tensor), beside what your function says of
# the worst channel of that layer:


# %%
def mixed(num_bits, per_tensor):
    """Accuracy with one scale for the named tensor, and a scale a channel for the others."""
    rounded = {}
    for name, w in matrices.items():
        granularity = PerTensor() if name == per_tensor else PerAxis(0)
        rounded[name] = fake_quantize(w, Scheme(num_bits, granularity=granularity))
    return network.accuracy(rounded)


print("one scale for             worst channel    read correctly")
for name, w in matrices.items():
    worst = quality(w, fake_quantize(w, Scheme(4)), 0).min()
    print(f"{name:<24} {worst:>11.1f} dB {mixed(4, name):>16.1%}")

# %% [markdown]
# Most of the damage is done by the first layer, the stem. It has not the worst channel, but all that follows is built on
# its 32 channels. The SQNR of weights does not tell which layer matters; lab 06 measures that.

# %% [markdown]
# ## Four quantizers, four tensors
#
# Symmetric or asymmetric (lab 02) is one choice, per tensor or per channel another. The four combinations are the
# corners of a square. Which corner is best depends on the tensor.
#
# In this course a quantizer is its choices: `Scheme(num_bits, symmetric, granularity)` names them, `quantize(x, scheme)`
# carries them out, and `dequantize` comes back. You have written everything that is inside.

# %%
w = np.array([[-0.2, 0.3, 0.82], [-2.1, 0.5, 3.0]], dtype=np.float32)
quantized = quantize(w, Scheme(num_bits=8, symmetric=False, granularity=PerAxis(0)))
print("codes      ", *quantized.codes, quantized.codes.dtype)
print("scales     ", quantized.scale.round(4))
print("zero points", quantized.zero_point)
print("back       ", *dequantize(quantized).round(2))

# %% [markdown]
# ### Exercise 4: `compare_quantization_methods` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, floats with one axis or more, channels along axis 0; `num_bits` |
# | result | a dict with the keys `symmetric_per_tensor`, `asymmetric_per_tensor`, `symmetric_per_channel`, `asymmetric_per_channel` |
# | each value | the dict of errors that `quantization_error(original, quantized, dequantized)` returns (lab 01) |
# | tools | `quantize`, `dequantize`, `Scheme`, `PerTensor()`, `PerAxis(0)`, `quantization_error` |


# %%
def compare_quantization_methods(x, num_bits=8):
    """Return {method: errors} for the four combinations of symmetry and granularity."""
    ### BEGIN SOLUTION
    errors = {}
    for granularity, shared in (("per_tensor", PerTensor()), ("per_channel", PerAxis(0))):
        for symmetry, symmetric in (("symmetric", True), ("asymmetric", False)):
            quantized = quantize(x, Scheme(num_bits, symmetric, shared))
            errors[f"{symmetry}_{granularity}"] = quantization_error(
                x, quantized.codes, dequantize(quantized)
            )
    return errors
    ### END SOLUTION


# %%
check(compare_quantization_methods)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write it for one method first, look at what comes out, and then make two loops of two.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# The codes are in `quantized.codes`. The error is between `x` and what `dequantize` makes of `quantized`, in this order.
#
# </details>

# %% [markdown]
# Four tensors: trained weights; the ReLU activations of a layer; the same layer's sums sent through a GELU instead; and
# values with a heavy tail (Student's t with 2 degrees of freedom: now and then one is a hundred times larger than
# most). Channels along axis 0.

# %%
from scipy.special import ndtr  # the Gaussian distribution function: GELU is x * ndtr(x)

compare = or_reference(compare_quantization_methods)

sums = tokens @ square.T + network.weights["block2.pointwise.bias"]  # before the ReLU
tensors = {
    "weights": square,
    "ReLU output": np.maximum(sums, 0).T,
    "GELU output": (sums * ndtr(sums)).T.astype(np.float32),
    "heavy tail": np.random.default_rng(3).standard_t(2, (64, 4096)).astype(np.float32),
}
methods = {
    "symmetric per tensor": "symmetric_per_tensor",
    "asymmetric per tensor": "asymmetric_per_tensor",
    "symmetric per channel": "symmetric_per_channel",
    "asymmetric per channel": "asymmetric_per_channel",
}
found = {
    name: {method: compare(x, 4)[key]["sqnr_db"] for method, key in methods.items()}
    for name, x in tensors.items()
}
print("decibels won at 4 bits    asymmetric    per channel    both")
for name, sqnr in found.items():
    base, *others = sqnr.values()
    won = [level - base for level in others]
    print(f"{name:<24} {won[0]:>8.1f} dB {won[1]:>11.1f} dB {won[2]:>7.1f} dB")

# %% Picture: four tensors, and the SQNR at 4 bits of four quantizers for each
figure, (shapes, panel) = new_figure(
    8.5, 3.6, columns=2, width_ratios=[1, 2.6], sharey=True
)
rows = range(len(tensors))[::-1]
for row, (name, x) in zip(rows, tensors.items()):
    counts, edges = np.histogram(x / np.abs(x).max(), 81, range=(-1, 1))
    silhouette = row - 0.32 + 0.64 * np.sqrt(counts / counts.max())
    shapes.fill_between(edges[:-1], row - 0.32, silhouette, color=THEORY, alpha=0.45, lw=0)
    for symmetry, colour, shift in (
        ("symmetric", ORIGINAL, 0.13),
        ("asymmetric", QUANTIZED, -0.13),
    ):
        start, end = (
            found[name][f"{symmetry} per {shared}"] for shared in ("tensor", "channel")
        )
        panel.plot([start, end], [row + shift] * 2, color=colour, lw=2)
        panel.plot([start], [row + shift], "o", mfc="white", mec=colour, mew=2, ms=8)
        panel.plot([end], [row + shift], "o", color=colour, ms=8)
for label, colour, face in (
    ("symmetric, one scale", ORIGINAL, "white"),
    ("symmetric, a scale a channel", ORIGINAL, ORIGINAL),
    ("asymmetric, one scale", QUANTIZED, "white"),
    ("asymmetric, a scale a channel", QUANTIZED, QUANTIZED),
):
    panel.plot([], [], "o", mec=colour, mfc=face, mew=2, ms=8, label=label)
panel.set(title="One-sided values want a zero point, all want channels")
panel.set(xlabel="SQNR at 4 bits (dB)", xlim=(0, 33), ylim=(-0.6, 3.6))
panel.legend(loc="lower right")
shapes.set_yticks(rows, list(tensors))
shapes.set(title="Values, -max to max", xlabel="x / max|x|")
for axes in (shapes, panel):
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
Picture(
    figure,
    "For each of four tensors, its histogram, and the SQNR at 4 bits of four quantizers: "
    "asymmetric lies 6 dB ahead for ReLU, channels win 2 to 5 dB everywhere, and the heavy tail "
    "stays below 11 dB.",
)

# %% [markdown]
# - **ReLU**: a bit from asymmetry, since half the codes were idle, and half a bit from channels. The two add up.
# - **GELU**: the same story, weaker on both counts.
# - **Weights**: asymmetric per tensor wins a tenth of a bit, for their range reaches about as far both ways. That is not
#   worth a zero point. Channels are what counts. (Within a channel there is a little more to win: 64 values reach less
#   evenly both ways than 4096.)
# - **Heavy tail**: asymmetric wins next to nothing. Channels win most of what there is to win, by locking each outlier
#   into one channel, and still the best corner is only about as good as the *worst* corner of the ReLU. Within a channel,
#   one outlier rules as ever: it takes smaller groups (lab 04), clipping (lab 01), or another way with outliers (lab 08).
#
# And asymmetric quantization is not free: its zero points have to be taken care of in every matrix product (lab 05). For
# weights, most libraries stay symmetric per channel.

# %% [markdown]
# ## What the scales cost
#
# A scale in float32 takes 32 bits, shared by the weights of its channel. The fewer these are, the more it is for each: a
# depthwise filter has 9 weights, and its scale adds 3.6 bits to each of them. But such layers are small. For the whole
# network, what counts is accuracy for the bytes:

# %%
count = sum(w.size for w in matrices.values())
channels = sum(len(w) for w in matrices.values())
for num_bits, granularity in (
    (6, PerTensor()),
    (5, PerTensor()),
    (4, PerTensor()),
    (4, PerAxis(0)),
):
    per_axis = isinstance(granularity, PerAxis)
    size = count * num_bits / 8 + 4 * (channels if per_axis else len(matrices))
    name = "channel" if per_axis else "tensor"
    right_now = accuracy_with(num_bits, granularity)
    print(f"{num_bits} bits, a scale a {name:<8} {size / 1000:5.1f} kB  {right_now:.1%}")

# %% [markdown]
# All these scales take less room than one more bit for every weight, and buy at least as much. (In float16 they would
# take half of it.)
#
# **Biases** stay as they are. There is one for each channel, and what they are added to is a sum over many products,
# already in high precision. In integer kernels (code that multiplies codes) a bias is an int32 with the scale (scale of
# the input) x (scale of the weight), so that it can be added to the integer sum directly (lab 05).

# %% [markdown]
# ## In the wild
#
# **Where is the output channel?** It depends on the layer and the library, and the wrong axis raises no error.
#
# | weight | shape | `axis` |
# |---|---|---|
# | PyTorch `Linear`, `Conv2d` | (out, in), (out, in, h, w) | 0 |
# | PyTorch `ConvTranspose2d` | (in, out, h, w) | 1 |
# | TensorFlow Lite convolution | (out, h, w, in) | 0 |
# | TensorFlow Lite depthwise convolution | (1, h, w, out) | 3 |
#
# (PyTorch's observers long refused per-channel quantization of transposed convolutions: issue 54816. TensorFlow Lite's
# 8-bit specification fixes dimension 3 for depthwise weights.) Our depthwise weight in the layout of the last row:

# %%
lite = np.moveaxis(depthwise, 0, -1)  # (1, 3, 3, 64)
for axis in (0, 3):
    q, scales = per_channel(lite, axis, num_bits=4)
    quality = sqnr_db(lite, back(q, scales, axis))
    print(f"{lite.shape} along axis {axis}: {len(scales):>2} scales, {quality:.1f} dB")

# %% [markdown]
# Along axis 0 there is one "channel". It is per tensor under the name of per channel, and only the SQNR tells.
#
# **Scales that were squeezed.** Functions of this kind often end with `scales.squeeze()` in what they return, and leave it
# to their callers to multiply. With a matrix that is not square, forgetting the new axis is an error. With a square one
# it is an answer:

# %%
q, scales = per_channel(square, 0)  # (64, 64) and (64,)
forgotten = q * scales  # the scales go along the last axis
right_axis = q * scales[:, np.newaxis]
print(f"scales along axis 0: {sqnr_db(square, right_axis):5.1f} dB")
print(f"scales along axis 1: {sqnr_db(square, forgotten):5.1f} dB")
tall = matrices["block3.pointwise.weight"].reshape(128, 64)
q, scales = per_channel(tall, 0)
try:
    q * scales
except ValueError:
    print("and with 128 x 64 weights: ValueError, the shapes do not fit")

# %% [markdown]
# Hidden sizes of transformers make many weights square. Test on a shape whose axes all differ.
#
# **A quantizer that changes its input.** [SmoothQuant](../docs/glossary.md#smoothquant)'s `quantize_activation_per_token_absmax` works in place, and takes
# 1e-5 for the largest magnitude of a token where it is smaller than that. In NumPy:


# %%
def quantize_activation_per_token(t):
    """As SmoothQuant does it: simulated quantization, in place, with a floor."""
    scales = np.maximum(np.abs(t).max(axis=-1, keepdims=True), np.float32(1e-5)) / 127
    t /= scales
    np.round(t, out=t)
    t *= scales
    return t


hidden = tokens[:4].copy()
kept = hidden.copy()
hidden[3] = kept[3] = kept[3] * np.float32(1e-8)  # one token is very quiet
out = quantize_activation_per_token(hidden)
print("the caller's array is now the quantized one:", out is hidden)
lost = np.count_nonzero(kept[3]) - np.count_nonzero(out[3])
print(f"of the quiet token, {lost} of {np.count_nonzero(kept[3])} values became 0")

# %% [markdown]
# Where a model adds such an array to something later, as a residual connection does, it adds the rounded one. The checks
# of this course compare your input before and after.

# %% [markdown]
# ## In practice
#
# In PyTorch you call `fake_quantize_per_channel_affine` with the axis that stays. In torchao the question "which elements
# share a scale" is the *block size*: `(1, w.shape[1])` is one row, `w.shape` the whole tensor. Where PyTorch is installed
# (this lab does without), your scales and its rounding give what yours give:

# %% tags=["nbval-ignore-output"]
try:
    import torch
except ImportError:
    print("PyTorch is not installed: nothing to compare with")
else:
    q, scales = per_channel(square, 0, num_bits=4)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.tensor(square),
        torch.tensor(scales),
        torch.zeros(64, dtype=torch.int32),
        0,
        -8,
        7,
    )
    difference = np.abs(theirs.numpy() - back(q, scales, 0)).max()
    print(f"largest difference to yours: {difference:.6f}")

# %% [markdown]
# ## Stretch
#
# ### Exercise 5: `quantize_per_token` (8 minutes, ●●○)
#
# Activations in a transformer have the shape (batch, tokens, features). A scale for each token keeps *two* axes, which
# `quantize_per_channel` cannot.
#
# | | |
# |---|---|
# | input | `x`, floats of shape (..., features), with one axis or more; `num_bits` |
# | result | `q, scales`; symmetric, as before |
# | `scales` | shape `(*x.shape[:-1], 1)`, so that `q * scales` is the reconstruction |
# | a token that is all zero | codes 0, any positive scale: take 1 |
# | tiny tokens, your input | no smallest scale; stays as it is |
#
# By hand: the tokens $[0, 1.27]$ and $[-12.7, 3]$ have the scales 0.01 and 0.1, and the codes $[0, 127]$ and $[-127, 30]$.


# %%
def quantize_per_token(x, num_bits=8):
    """Return (q, scales) with a scale for each vector along the last axis."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    largest = np.abs(x).max(axis=-1, keepdims=True)
    scales = np.where(largest == 0, 1, largest / quant_max)
    q = np.clip(np.round(x / scales), -quant_max - 1, quant_max)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scales
    ### END SOLUTION


# %%
check(quantize_per_token)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One axis is reduced, however many there are: which?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `keepdims=True` leaves exactly the shape that is asked for. Compare each scale with 0 separately.
#
# </details>

# %% [markdown]
# The feature maps of the network, a scale for each pixel of each image, at 8 bits:

# %%
per_token = or_reference(quantize_per_token)
for name in ("stem", "block2.depthwise", "block3.depthwise"):
    maps = np.moveaxis(flow[name], 1, -1)  # (540, 8, 8, channels)
    q, scales = per_token(maps)
    whole = fake_quantize(maps, Scheme(8))
    print(
        f"{name:<17} {maps.shape!s:<17} one scale {sqnr_db(maps, whole):.1f} dB, "
        f"per token {sqnr_db(maps, (q * scales).astype(np.float32)):.1f} dB"
    )

# %% [markdown]
# ## Interview questions
#
# <details><summary>Why is per-channel quantization standard for weights, but not for activations?</summary>
#
# The scale of an output channel does not depend on the index that is summed over, so it leaves the matrix product and is
# applied once to each result. A scale for each *feature* of the activations does depend on it, and would have to be
# multiplied in before the sum. What can leave on that side is a scale for each token.
#
# </details>
# <details><summary>A weight has shape (out, in). Is it `axis=0` or `axis=1`?</summary>
#
# In quantization libraries `axis` is the axis that is kept, so 0: one scale for each output. In NumPy and torch
# reductions it is the axis that disappears, so the maximum runs over 1. Say which you mean; a square matrix will not.
#
# </details>
# <details><summary>Per-channel scales raise the SQNR by 5 dB only. Why does accuracy rise by so much more?</summary>
#
# SQNR over all elements is ruled by the loud channels, whose step did not change. The quiet channels gain
# 20 log10(loudest / quietest). If later layers depend on them, as after folded batch norm, that is what counts.
#
# </details>
# <details><summary>Why do depthwise convolutions suffer so much from one scale?</summary>
#
# Each output channel comes from one filter of 9 weights. If its codes are few, no other weights average the error out.
# And folding batch norm multiplies every filter by its own factor, which drives the ranges apart.
#
# </details>
# <details><summary>What do per-channel scales cost?</summary>
#
# Bytes: one scale for each channel, 32 / n [bits per weight](../docs/glossary.md#bits-per-weight) with n weights a channel; nothing for a channel of 4096
# weights, much for one of 9. Time: one multiplication for each output, which is done anyway when int32 sums are turned
# back into floats.
#
# </details>
# <details><summary>When do per-channel scales not help?</summary>
#
# When all channels have the same range already, and when the outliers are within every channel. Then smaller groups,
# clipping or moving the outliers elsewhere are the remedies.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - `axis` is what is kept. Reduce all the others, keep their places (`keepdims`) to divide, and flatten at the end.
# - With one scale, the loudest channel sets the step for all. A channel that is r times quieter loses 20 log10 r decibels.
# - A scale may leave the sum if it does not vary along the summed axis: out for weights, tokens for activations.
# - SQNR over all elements hides what happens to quiet channels. Look at the worst channel, and at the task.
# - Symmetry and granularity are choices of their own, and what they win at least adds up here. Neither heals a heavy tail.
