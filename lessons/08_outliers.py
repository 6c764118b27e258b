# %% [markdown]
# # 08 · Outliers: a few loud channels, and where to put them
#
# **Time:** 80 minutes; stretch: 10 more. **You need:** lab 03, PyTorch, and roughly what a
# transformer block is made of; labs 05 and 07 help.
#
# At the end of this lab you can
#
# - find the channels of a transformer's activations that are many times larger than the others,
# - say what one of them does to 8-bit activations that share one scale,
# - move its size into the weights (SmoothQuant), and choose how much of it by measuring,
# - split it off and keep it in float (LLM.int8()),
# - tell where a factor can be hidden in the layer before, and where it cannot.

# %%
import copy

import numpy as np
import torch
from torch import nn

from labutils import (
    Scheme,
    check,
    data,
    explore_smoothing,
    mean_cosine,
    or_reference,
    outliers,
    predict,
    retrieval_at_1,
    sqnr_db,
)
from labutils.models import Int8Linear, linear_layers, quantize_model

# %% [markdown]
# The model of this lab is MiniLM, the sentence encoder of lab 06: six transformer blocks, 36 linear layers. Where it
# cannot be had, an untrained transformer with outliers put in by hand stands in. Then everything runs, but numbers
# and pictures have nothing to do with the text. The cell also tells torch to use one thread in this notebook from
# here on: the layers are small, and a second thread would mostly wait.

# %% tags=["nbval-ignore-output"]
try:
    encoder = data.sentence_encoder()
    print("MiniLM")
except LookupError as missing:
    from labutils.data.stand_in import untrained_encoder

    encoder = untrained_encoder()
    print(f"An untrained transformer stands in for MiniLM: {missing}")

torch.set_num_threads(1)
model = encoder.model
sentences = data.calibration_sentences()
calibration, others = sentences[:128], sentences[128:192]
float_embeddings = encoder.encode(others)


def closeness(quantized):
    """Mean cosine to the float model's embeddings, over 64 sentences; 1 is no change."""
    return mean_cosine(float_embeddings, encoder.with_model(quantized).encode(others))


# %% [markdown]
# ## Why
#
# Lab 05 multiplied integers by integers: weights in 8 bits, activations in 8 bits, and a new scale for each token,
# found while the model runs. That search for the largest magnitude takes time at every layer. It would be simpler to
# choose *one* scale for all tokens, once, on a calibration set: **static** quantization (lab 07). First, look what
# enters every linear layer while 128 sentences go through. A hook on each layer keeps the largest magnitude of every
# channel, and nothing else:

# %%
FIRST, SECOND = "encoder.layer.1.intermediate.dense", "encoder.layer.1.output.dense"
with outliers.observe(model, keep=(FIRST, SECOND)) as seen:
    encoder.encode(calibration)
maxima = (
    seen.maxima
)  # name of a layer -> the largest magnitude of each of its input channels
print(len(maxima), "layers;", FIRST, "has", len(maxima[FIRST]), "channels")

# %% tags=["minilm"]
per_token = quantize_model(model, Int8Linear)
one_scale = outliers.replace_linears(model, maxima, outliers.StaticInt8Linear)
print(f"a scale for each token     cosine {closeness(per_token):.3f}")
print(f"one scale for all tokens   cosine {closeness(one_scale):.3f}")

# %% [markdown]
# Both models have the same 8-bit weights, with a scale for each output, and both multiply integers. Far more is lost with one
# scale: 0.017 of the cosine against 0.001. Where does it go?

# %% [markdown]
# ## Play first
#
# These are the activations of one sentence, where they enter the feed-forward part of the second block: a row for each
# token, a column for each channel.

# %%
SENTENCE = "The kettle whistled just as the rain began, and nobody got up."
with outliers.observe(model, keep=(FIRST, SECOND)) as alone:
    encoder.encode([SENTENCE])
rows = alone.inputs[FIRST].abs()  # (tokens, channels)
ids = encoder.tokenizer([SENTENCE], truncation=True, max_length=256)["input_ids"][0]
readable = getattr(encoder.tokenizer, "convert_ids_to_tokens", lambda ids: map(str, ids))
tokens = list(readable(ids))

# %% Picture: activations, tokens against channels
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, ORIGINAL, QUANTIZED, THEORY, WARN

figure, (grid, bars) = new_figure(8.5, 3.6, columns=2, width_ratios=[2.2, 1])
image = grid.imshow(rows, aspect="auto", cmap="cividis", vmax=8, interpolation="nearest")
grid.set_yticks(range(len(tokens)), tokens, fontsize=7)
grid.grid(False)
grid.set(title="The same few channels are loud in many tokens", xlabel="channel")
figure.colorbar(image, ax=grid, extend="max", label="magnitude", pad=0.02)
bars.barh(range(len(tokens)), rows.amax(1), color=ORIGINAL)
bars.set_yticks([])
bars.set_ylim(len(tokens) - 0.5, -0.5)
bars.set(title="One token is loudest", xlabel="largest magnitude")
Picture(
    figure,
    "Magnitudes of activations, tokens against channels: four or five vertical lines stand out. "
    "Beside it the largest magnitude of each token: 30 for the first token, [CLS], and at most 8 "
    "for all others.",
)

# %% [markdown]
# Vertical lines: the *same* channels are loud in token after token. And in the row of `[CLS]`, the token that starts every
# sentence, one of them goes far beyond the colours. Outliers are not noise. They sit in fixed places, so something can be
# done about them before the model runs.
#
# **Predict** first.

# %% tags=["minilm"]
peaks = maxima[FIRST]
predict(
    "One 8-bit scale is set by the loudest channel: it reaches code 127. "
    "Which code does the median channel reach?",
    round(127 * float(peaks.median() / peaks.max()), 1),
    tolerance=2,
)

# %% [markdown]
# The explorer shows the layer's 384 channels, sorted by loudness: the largest activation of each (blue) and the largest
# weight that meets it (orange). The slider alpha divides loud channels by more than quiet ones, and multiplies their weights
# by the same, so that the product stays what it was. On the right is the quality of the layer's *output*, activations with
# one scale, weights with one for each output.
#
# **Drag** alpha from 0 to 1. Then drag the bits. **Observe** how blue gets flat, and when orange stops being so.

# %% tags=["minilm"]
weights = {name: layer.weight.detach() for name, layer in linear_layers(model).items()}
explore_smoothing(seen.inputs[FIRST], weights[FIRST])

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>Why is the best alpha neither 0 nor 1?</summary>
#
# At alpha = 0 the weights are all of one size and the activations suffer. At 1 it is the other way round. The best
# place lies between, and at 8 bits it is worth 13 dB over doing nothing: more than two bits, for free.
#
# </details>

# %% [markdown]
# ## Build it
#
# ### Moving a factor
#
# An output of a linear layer is a sum over its input channels. Any factor $s_j$ can be moved from the input to the weight:
#
# $$y_i = \sum_j x_j\, W_{ij} = \sum_j \frac{x_j}{s_j}\, (s_j W_{ij})$$
#
# In lab 03 you saw that a *scale of quantization* for each input channel cannot leave the sum. This factor does not have to:
# it goes into the weight before anything is quantized. [SmoothQuant](../docs/glossary.md#smoothquant) chooses it from the largest magnitudes of the two, with a
# **migration strength** $\alpha$:
#
# $$s_j = \frac{\max|X_j|^{\alpha}}{\max|W_j|^{1-\alpha}}$$
#
# By hand, three channels, two outputs, alpha = 0.5:
#
# | channel | 0 | 1 | 2 |
# |---|---|---|---|
# | $\max \lvert X_j\rvert$ | 16 | 1 | 4 |
# | column of $W$ | 0.5, -1 | -0.25, 1 | 0.25, 0.125 |
# | $\max\lvert W_j\rvert$ | 1 | 1 | 0.25 |
# | $s_j$ | 4 / 1 = 4 | 1 / 1 = 1 | 2 / 0.5 = 4 |
# | activations after | 16 / 4 = 4 | 1 | 4 / 4 = 1 |
# | weights after | 1 · 4 = 4 | 1 | 0.25 · 4 = 1 |
#
# At 0.5 both have the same maxima afterwards. At 1 all activations have the maximum 1, at 0 all weights have.
#
# ### Exercise 1: `smooth_scales` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `activation_max`, a tensor `(in_features,)` of magnitudes; `weight`, a tensor `(out_features, in_features)`; `alpha`, 0 to 1 |
# | result | a float tensor `(in_features,)`: $s_j$ as above |
# | a channel that was never active, or whose weights are all 0 | has nothing to move: its scale is 1 |
# | your input | stays as it is |


# %%
def smooth_scales(activation_max, weight, alpha=0.5):
    """Return what to divide each input channel by, and multiply its weights with."""
    ### BEGIN SOLUTION
    weight_max = weight.abs().amax(dim=0)
    scales = activation_max**alpha / weight_max ** (1 - alpha)
    nothing_to_move = (activation_max == 0) | (weight_max == 0)
    return torch.where(nothing_to_move, torch.ones_like(scales), scales)
    ### END SOLUTION


# %%
check(smooth_scales)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many scales are there for a weight of shape (2, 3)? Which axis of it must go?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Magnitudes of the weight first, then the maximum over the outputs: one number for each input channel. Then a power of each
# of the two maxima, and a quotient. Look for zeros in *either* of them at the end.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# max|X| to the power alpha, divided by max|W| to the power 1 - alpha. `torch.where` chooses between 1 and that, element by
# element.
#
# </details>

# %% [markdown]
# ### Exercise 2: `smooth_linear` (10 minutes, ●●○)
#
# A layer that computes the same as before, its input divided and its weight multiplied. The lab gives you the module that
# divides: `outliers.Divide(scales)`. `nn.Sequential` runs one module after the other.
#
# | | |
# |---|---|
# | input | `linear`, an `nn.Linear`; `scales`, a tensor `(in_features,)`, positive |
# | result | one `nn.Module` in which one `nn.Linear` holds the multiplied weight: first divide, then this layer |
# | bias | as it was, or none where there was none |
# | `linear` | stays as it is: the float model is still needed |


# %%
def smooth_linear(linear, scales):
    """Return a module that gives what linear gives, from activations that are smoother."""
    ### BEGIN SOLUTION
    smoothed = copy.deepcopy(linear)
    with torch.no_grad():
        smoothed.weight.mul_(scales)
    return nn.Sequential(outliers.Divide(scales), smoothed)
    ### END SOLUTION


# %%
check(smooth_linear)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of weight and bias meets the input? Only that one has to know that the input was divided.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `copy.deepcopy` makes a layer of your own, bias and all. An input channel is a *column* of its weight, and columns lie along
# the last axis, where a vector of scales lines up by itself. Torch wants `torch.no_grad()` around a change of a parameter.
#
# </details>

# %% [markdown]
# Is it really the same function? Smooth all 36 layers, quantize nothing, and compare the embeddings. Until your functions
# pass, the cells from here on use the course's own.

# %%
scales_of, smooth = or_reference(smooth_scales), or_reference(smooth_linear)


def smoothed(alpha, make=None):
    """A rule for one layer: smooth it, then make something of the nn.Linear inside."""

    def rule(linear, input_max):
        scales = scales_of(input_max, linear.weight.detach(), alpha)
        module = smooth(linear, scales)
        if make is None:
            return module
        return quantize_model(module, lambda inner: make(inner, input_max / scales))

    return rule


in_float = outliers.replace_linears(model, maxima, smoothed(0.5))
off = np.abs(encoder.with_model(in_float).encode(others) - float_embeddings).max()
print("embeddings differ by less than 1e-5:", bool(off < 1e-5))

# %% [markdown]
# Float rounding, and no more. Now the same with integers, in this one layer:

# %% tags=["minilm"]
x = seen.inputs[FIRST]
layer = linear_layers(model)[FIRST]
y = layer(x)
print("one scale for all activations of this layer, 8 bits")
for name, rule in (
    ("as it is", outliers.StaticInt8Linear),
    ("smoothed, alpha = 0.5", smoothed(0.5, outliers.StaticInt8Linear)),
    ("smoothed, alpha = 0.75", smoothed(0.75, outliers.StaticInt8Linear)),
):
    print(
        f"{name:<24} SQNR of its output {sqnr_db(y, rule(layer, maxima[FIRST])(x)):3.0f} dB"
    )

# %% [markdown]
# ### Splitting
#
# There is another way: leave the loud channels out of the integers. A matrix product is a sum over channels, so it can be
# cut in two, regular channels in int8, outlier channels in float. That is half of LLM.int8(); the other half is a scale for each
# row and each column of the integer part, where this lab's static layers have one for all rows. It calls a channel an outlier
# if any magnitude in it is above 6.
#
# By hand, two tokens, three channels, threshold 6:
#
# | | channel 0 | channel 1 | channel 2 |
# |---|---|---|---|
# | $x$ | 0.5, 2 | **-9**, 3 | 1, -1 |
# | largest magnitude | 2 | 9 > 6 | 1 |
# | `regular` | 0.5, 2 | 0, 0 | 1, -1 |
# | `outliers` | 0, 0 | -9, 3 | 0, 0 |
#
# The harmless 3 goes along: a product can leave out a column, but no single value.
#
# ### Exercise 3: `split_outliers` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, a float tensor with channels along its last axis, such as `(tokens, channels)` or `(batch, tokens, channels)`; `threshold`, a magnitude |
# | result | `regular, outliers`, both of the shape of `x`, and `regular + outliers` is `x` |
# | an outlier channel | has a magnitude above the threshold somewhere: all of it is in `outliers`, and 0 in `regular` |
# | every other channel | is in `regular`, and 0 in `outliers` |
# | your input | stays as it is |


# %%
def split_outliers(x, threshold=6.0):
    """Return (regular, outliers): x without its outlier channels, and these alone."""
    ### BEGIN SOLUTION
    largest = x.abs().reshape(-1, x.shape[-1]).amax(dim=0)
    loud = largest > threshold
    return x.masked_fill(loud, 0.0), x.masked_fill(~loud, 0.0)
    ### END SOLUTION


# %%
check(split_outliers)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many yes-or-no answers do you need for an x of shape (2, 5, 8)?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# One answer for each channel: reduce every axis but the last. A reshape to two axes, the channels kept, makes that one
# maximum. The answers then line up with the last axis of `x`, whatever comes before it.
#
# </details>

# %% tags=["minilm"]
split = or_reference(split_outliers)


def eight_bits(t):
    """The tensor in 8 bits with one scale, and back."""
    scale = t.abs().max() / 127
    return (t / scale).round() * scale


weight, bias = layer.weight.detach(), layer.bias.detach()
print("threshold   channels in float   SQNR of the output, activations quantized")
for threshold in (40, 20, 10, 6, 4):
    regular, loud = split(x, threshold)
    back = eight_bits(regular) @ weight.T + loud @ weight.T + bias
    count = int(loud.any(dim=0).sum())
    print(f"{threshold:>9} {count:19} {sqnr_db(y, back):17.1f} dB")

# %% [markdown]
# (Here the activations are quantized and put back, to see them alone; the weights are float.) One channel of 384 taken out
# gains 11 dB, ten gain 18. `outliers.SplitLinear` does the same with integers.

# %% [markdown]
# ## Drag your own code
#
# Now *your* `smooth_scales` is under the slider, and the layer is another one: the second matrix of the same feed-forward
# part, 1536 channels, whose outlier weights you met in lab 04.

# %% tags=["minilm"]
second = explore_smoothing(seen.inputs[SECOND], weights[SECOND])
half = second.compute({"alpha": 0.5, "num_bits": 8})
predict(
    "In the first layer alpha = 0.5 gained 8 dB at 8 bits. "
    "What does it gain in this one (a loss is negative)?",
    round(half.sqnr_db - half.plain_db, 1),
    unit="dB",
    tolerance=2,
)

# %% tags=["minilm"]
explore_smoothing(seen.inputs[SECOND], weights[SECOND], scales=smooth_scales)

# %% [markdown]
# It *loses* almost 6 dB, and only from 0.6 on is smoothing any good. Look at the far right of the left picture: in this
# layer one channel is the loudest of the activations *and* of the weights.

# %% tags=["minilm"]
print("                      loudest channel                loudest / median")
print("layer                 activations   weights          activations   weights   at 0.5")
for block in range(6):
    name = f"encoder.layer.{block}.output.dense"
    a, w = maxima[name], weights[name].abs().amax(0)
    spread = [float(t.max() / t.median()) for t in (a, w)]
    after = a / scales_of(a, weights[name], 0.5)
    spread.append(float(after.max() / after.median()))
    told = "".join(f"{value:10.1f}" for value in spread)
    print(f"block {block}, second {int(a.argmax()):14} {int(w.argmax()):9} {told:>39}")

# %% [markdown]
# In the first four blocks, the channel that shouts is the one with the largest weights. A weight's size, too, is moved, by
# the exponent $1-\alpha$: into the activations. At 0.5 both end with $\sqrt{\max|X_j| \max|W_j|}$, and there the channel
# stands out more than before: 12.8 times the median becomes 19.4 times. But outlier *weights* do little harm where every
# output has a scale of its own. So for these layers it is right to move much, and take over little: a large alpha.

# %% [markdown]
# ## See it on real tensors
#
# ### The whole model
#
# All 36 layers with one activation scale each, alpha swept:

# %% tags=["minilm"]
STATIC = outliers.StaticInt8Linear
sweep = {None: closeness(outliers.replace_linears(model, maxima, STATIC))}
for alpha in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0):
    sweep[alpha] = closeness(
        outliers.replace_linears(model, maxima, smoothed(alpha, STATIC))
    )
for alpha in (None, 0.7, 0.8, 0.9, 1.0):
    told = "without smoothing" if alpha is None else f"alpha = {alpha}"
    print(f"{told:<18} cosine {sweep[alpha]:.3f}")
times = (1 - sweep[0.5]) / (1 - sweep[None])
print(
    f"alpha = 0.5        cosine {sweep[0.5]:.2f}: {times:.0f} times the loss without smoothing"
)

# %% Picture: the loss of cosine against alpha tags=["minilm"]
figure, panel = new_figure(8.5, 3.3)
alphas = [alpha for alpha in sweep if alpha is not None]
panel.plot(alphas, [1 - sweep[alpha] for alpha in alphas], "o-", color=QUANTIZED)
panel.axhline(1 - sweep[None], color=THEORY, ls="--", lw=1.4)
panel.annotate(
    "without smoothing", (0.3, 1 - sweep[None]), (0, -12), textcoords="offset points"
)
rows_level = 1 - closeness(per_token)
panel.axhline(rows_level, color=GOOD, ls="--", lw=1.4)
panel.annotate(
    "a scale for each token", (0.3, rows_level), (0, 5), textcoords="offset points"
)
panel.set(
    title="At 0.5 smoothing does harm; at 0.8 most of the loss is gone",
    xlabel="alpha",
    ylabel="1 - cosine to float",
    yscale="log",
)
Picture(
    figure,
    "The loss of cosine against alpha on a logarithmic axis: far above the line without "
    "smoothing at 0.3, crossing it near 0.6, lowest between 0.8 and 0.85, where it "
    "comes near the line of a scale for each token, and rising again to 1.",
)

# %% [markdown]
# The usual 0.5 is three times worse than no smoothing at all. From 0.6 on it helps; between 0.8 and 0.9 most of the loss is
# gone, 0.002 of 0.017 is left, and a scale and zero point for each token are little better. SmoothQuant's authors chose 0.5
# for OPT and BLOOM and 0.75 for GLM-130B. It is a setting to be swept, and a sweep takes seconds.
#
# Is it really the second feed-forward matrices? Smooth them alone, or all but them:

# %% tags=["minilm"]
names = {id(module): name for name, module in linear_layers(model).items()}


def is_second(linear):
    name = names[id(linear)]
    return name.endswith("output.dense") and "attention" not in name


def only(chosen, alpha):
    """Smooth the layers that are chosen, quantize all."""
    rule = smoothed(alpha, STATIC)
    return lambda linear, m: (rule if chosen(linear) else STATIC)(linear, m)


print(f"none smoothed: cosine {sweep[None]:.2f}")
for alpha in (0.5, 0.8):
    six, rest = (
        closeness(outliers.replace_linears(model, maxima, only(chosen, alpha)))
        for chosen in (is_second, lambda linear: not is_second(linear))
    )
    print(f"alpha = {alpha}, the six alone: {six:.2f}, all but the six: {rest:.2f}")

# %% [markdown]
# Yes. 0.5 helps everywhere else and does all its harm in these six layers; 0.8 helps in both. An alpha for each layer is
# allowed: nothing ties them together.
#
# ### Does it find the right answer?
#
# Cosine is a means. The encoder is there to find things: 193 questions, 193 answers, how many questions are nearest to their
# own answer?

# %% tags=["minilm"]
asked, replies = map(list, zip(*data.questions()))


def found(quantized):
    """How many of the questions have their own answer as the nearest one."""
    other = encoder.with_model(quantized)
    share = retrieval_at_1(other.encode(asked), other.encode(replies))
    return round(share * len(asked))


models = {
    "float": model,
    "one scale": one_scale,
    "smoothed, 0.5": outliers.replace_linears(model, maxima, smoothed(0.5, STATIC)),
    "smoothed, 0.8": outliers.replace_linears(model, maxima, smoothed(0.8, STATIC)),
    "split at 6": outliers.replace_linears(model, maxima, outliers.SplitLinear),
    "a scale for each token": per_token,
}
right = {name: found(quantized) for name, quantized in models.items()}
cosines = {"float": 1.0, "one scale": sweep[None], "smoothed, 0.5": sweep[0.5]}
cosines |= {"smoothed, 0.8": sweep[0.8], "split at 6": closeness(models["split at 6"])}
cosines["a scale for each token"] = closeness(per_token)

# %% Picture: questions answered and cosine, six models tags=["minilm"]
figure, (left, panel) = new_figure(8.5, 3.0, columns=2, sharey=True)
colours = [THEORY, WARN, WARN, GOOD, GOOD, ORIGINAL]
for axes, values, form in ((left, right, "{:.0f}"), (panel, cosines, "{:.3f}")):
    for place, (value, colour) in enumerate(zip(values.values(), colours)):
        axes.plot(value, place, "o", ms=9, color=colour)
        axes.annotate(
            form.format(value), (value, place), (9, -4), textcoords="offset points"
        )
left.set_yticks(range(len(right)), list(right))
left.invert_yaxis()
left.set(title="Right answers found", xlim=(155, 177), xlabel=f"of {len(asked)} questions")
panel.set(title="Closeness to float", xlim=(0.94, 1.012), xlabel="mean cosine")
Picture(
    figure,
    "Points for six models: how many questions find their answer, and the cosine to float. "
    "One scale loses a few questions, smoothed at 0.5 a dozen; smoothed at 0.8, split at 6 "
    "and a scale for each token are where float is.",
)

# %% tags=["minilm"]
print("found, smoothed at 0.8 > one scale > smoothed at 0.5:",
      right["smoothed, 0.8"] > right["one scale"] > right["smoothed, 0.5"])  # fmt: skip
for name, digits in (
    ("one scale", 3),
    ("smoothed, 0.5", 2),
    ("smoothed, 0.8", 3),
    ("split at 6", 3),
):
    print(f"{name:<15} cosine {cosines[name]:.{digits}f}")

# %% [markdown]
# The picture has the counts. Where this was written, float found 172, one scale 169, smoothed at 0.5 found 160 and at 0.8
# 173. Do not read a question or two: with other float rounding, on another processor, counts move by a few, and 173 is not
# better than 172. The order of the last three does not change.
#
# ### Where it does not win
#
# Three comparisons that the headline leaves out. **Weights with one scale, too**:

# %% tags=["minilm"]
PER_TENSOR = Scheme(8)  # the granularity of the weight, too


def coarse(linear, input_max):
    return STATIC(linear, input_max, PER_TENSOR)


plain = closeness(outliers.replace_linears(model, maxima, coarse))
tried = {
    alpha: closeness(outliers.replace_linears(model, maxima, smoothed(alpha, coarse)))
    for alpha in (0.5, 0.6, 0.7, 0.8)
}
print(f"one scale for the weight, too: cosine {plain:.2f} without smoothing")
for alpha, value in tried.items():
    print(f"alpha = {alpha}: {value:.2f}")
print("any of them better than none:", max(tried.values()) > plain)

# %% [markdown]
# No alpha is any good here. Outlier weights do harm now, and whatever is taken from the activations makes them worse.
# Smoothing has only two places to put an outlier, and here both are taken. **A scale for each token**, and **splitting**:

# %% tags=["minilm"]
rules = {
    "each token, not smoothed": lambda linear, m: Int8Linear(linear),
    "each token, smoothed, 0.5": smoothed(0.5, lambda inner, m: Int8Linear(inner)),
    "one scale, smoothed, 0.8": smoothed(0.8, STATIC),
    "one scale, split at 6": outliers.SplitLinear,
    "one scale, split at 4": lambda linear, m: outliers.SplitLinear(linear, m, 4.0),
}
away = {}
for name, rule in rules.items():
    away[name] = 1 - closeness(outliers.replace_linears(model, maxima, rule))
    print(f"{name:<27} 1 - cosine {away[name]:.1g}")
nearest = 1 - max(value for alpha, value in sweep.items() if alpha)
print("split at 4 nearer than any alpha:", away["one scale, split at 4"] < nearest)
above = {t: sum(int((m > t).sum()) for m in maxima.values()) for t in (6, 4)}
total = sum(len(m) for m in maxima.values())
print(f"channels above 6: {above[6]} of {total}, above 4: {above[4]}")

# %% [markdown]
# Splitting at 4 is nearer to float than any alpha with one scale, and keeps only 2% of the channels in float. What it costs
# is a second product and a gather in every layer, at every call; its authors report that it is slower than float16 for smaller
# models. Smoothing costs nothing while the model runs, *if* the division can be hidden. And with a scale for each token 0.5
# does no harm: `[CLS]` then has a scale of its own, and its outliers hurt nobody else.

# %% [markdown]
# ### Hiding the division
#
# `Divide` is a pass over all activations. SmoothQuant gets rid of it: the operation before the layer does it on the way. A
# LayerNorm ends with a multiplication and an addition for each channel, so divide *those* by $s$. That works where the layer
# is the norm's only reader. In a **pre-norm** transformer it is. In MiniLM, which is **post-norm** as BERT was, the norm's
# output goes to the layer *and* past it, into the residual sum:
#
# | | |
# |---|---|
# | pre-norm | $h + \mathrm{FFN}(\mathrm{Norm}(h))$: the norm's output is read by the layer alone |
# | post-norm | $n + \mathrm{FFN}(n)$ with $n = \mathrm{Norm}(h)$: the residual reads it, too, and nobody multiplies it back |
#
# One transformer layer of PyTorch in both orders, a factor moved from its norm to its first linear layer:

# %%
from labutils import answers

spread = torch.logspace(-1, 1, 64)  # factors from 0.1 to 10
x = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(0))
for order, norm in (("pre-norm", "norm2"), ("post-norm", "norm1")):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(64, 4, 256, norm_first=order == "pre-norm").eval()
    folded = copy.deepcopy(block)
    setattr(folded, norm, answers.fold_division(getattr(folded, norm), spread))
    with torch.no_grad():
        folded.linear1.weight.mul_(spread)
        off = (folded(x) - block(x)).abs().max()
    print(f"{order:<10} outputs equal to 1e-5: {bool(off < 1e-5)}")

# %% [markdown]
# And in MiniLM itself, one norm of the second block:

# %% tags=["minilm"]
scales = scales_of(maxima[FIRST], weights[FIRST], 0.8)
broken = copy.deepcopy(model)
block = broken.encoder.layer[1]
block.attention.output.LayerNorm = answers.fold_division(
    block.attention.output.LayerNorm, scales
)
with torch.no_grad():
    block.intermediate.dense.weight.mul_(scales)
print(f"cosine to float, nothing quantized: {closeness(broken):.2f}")

# %% [markdown]
# That is a broken model, and no quantizer had a hand in it. So this lab divides at the layer's input. There is one place in
# MiniLM where folding is exact: from the **values** of the attention to its output layer. Between the two stands a weighted
# mean over tokens, which takes each channel for itself and lets a factor through. You will use it now, the other way round.
#
# ### Outliers, planted
#
# In larger models outliers are larger: the LLM.int8() paper finds them up to 20 times the other values and more. Let us plant
# one. Multiply one output of the value layer by $f$ and divide the weights that read it by $f$. With a power of two not a
# single bit of the float model's answers changes:

# %% tags=["minilm"]
CHANNEL = 100


def planted(factor):
    """MiniLM with one channel of every attention's values made louder, and its maxima."""
    louder, known = copy.deepcopy(model), dict(maxima)
    for number, block in enumerate(louder.encoder.layer):
        attention = block.attention
        factors = torch.ones(attention.output.dense.in_features)
        factors[CHANNEL] = factor
        attention.self.value, attention.output.dense = outliers.rescale(
            attention.self.value, attention.output.dense, factors
        )
        name = f"encoder.layer.{number}.attention.output.dense"
        known[name] = known[name] * factors
    return louder, known


louder, _ = planted(1024.0)
same = np.array_equal(encoder.with_model(louder).encode(others), float_embeddings)
print("the same embeddings, bit for bit:", same)

# %% tags=["minilm"]
FACTORS = (16, 64, 256, 1024)
rules = {
    "one scale": STATIC,
    "a scale for each token": lambda linear, m: Int8Linear(linear),
    "one scale, smoothed, 0.8": smoothed(0.8, STATIC),
    "one scale, split at 6": outliers.SplitLinear,
}
cliff = {name: [] for name in rules}
for factor in FACTORS:
    louder, known = planted(float(factor))
    for name, rule in rules.items():
        cliff[name].append(closeness(outliers.replace_linears(louder, known, rule)))
print("planted, times            " + "".join(f"{factor:>7}" for factor in FACTORS))
for name, values in cliff.items():
    print(f"{name:<26}" + "".join(f"{value:7.1f}" for value in values))

# %% Picture: cosine against a planted outlier tags=["minilm"]
figure, panel = new_figure(8.5, 3.0)
for (name, values), colour, width in zip(
    cliff.items(), (WARN, ORIGINAL, GOOD, THEORY), (1.5, 1.5, 6, 1.5)
):
    panel.plot(FACTORS, values, "o-", color=colour, lw=width, label=name)
panel.set_xscale("log", base=2)
panel.set_xticks(FACTORS, [f"{factor}" for factor in FACTORS])
panel.set(
    title="One channel of 384 is enough to fall off",
    xlabel="how much louder one channel was made",
    ylabel="cosine to float",
)
panel.legend(loc="lower left")
Picture(
    figure,
    "Cosine to float against the factor of a planted outlier. One scale falls from near 1 to "
    "about 0.5, a scale for each token falls later, to about 0.9, smoothed and split stay "
    "level near 1.",
)

# %% [markdown]
# There is the cliff. A scale for each token only puts it off, since this channel is loud in *every* token. Smoothing
# does not even notice: where activations are $f$ times larger and weights $f$ times smaller, $s_j$ is $f$ times larger for
# every alpha, and what is quantized is the same as before.

# %%
a, w = torch.tensor([3.0, 1.0]), torch.tensor([[0.5, -1.0]])
factors = torch.tensor([1024.0, 1.0])
for alpha in (0.0, 0.5, 0.8):
    before, after = scales_of(a, w, alpha), scales_of(a * factors, w / factors, alpha)
    told = [round(float(v), 2) for v in after / before]
    print(f"alpha = {alpha}: scales times {told}")

# %% [markdown]
# ### Rotating instead
#
# Smoothing multiplies channels by numbers that undo each other. Any invertible matrix $R$ would do: $xW^T = (xR)(WR^{-T})^T$.
# A **[rotation](../docs/glossary.md#rotation)** has $R^{-1} = R^T$: activations and weights are multiplied by the same matrix, $(xR)(WR)^T$, and every row
# keeps its length. A **[Hadamard matrix](../docs/glossary.md#hadamard-matrix)** is a rotation that holds nothing but $+1/\sqrt{n}$ and $-1/\sqrt{n}$. Each new channel
# is a sum over all old ones with signs, so a loud channel is spread evenly:

# %%
from labutils.models import rotation

loud = torch.tensor([[0.1, -0.2, 8.0, 0.1]])
R = rotation.hadamard(4)
print("signs:", (R * 2).int().tolist())
print("one loud channel, rotated:", [round(float(v), 2) for v in (loud @ R)[0]])
print("rotated back:             ", [round(float(v), 2) for v in (loud @ R @ R.T)[0]])

# %% [markdown]
# Smoothing had to choose a side for every outlier. Here neither side takes it: 8 became four times 4, which is
# $8/\sqrt{4}$, and over 384 channels it would be $8/\sqrt{384} = 0.4$ for each. All 36 layers of MiniLM rotated; channels get
# random signs first, so that those which lean to one side do not add up:

# %% tags=["minilm"]
rotated = rotation.rotate_model(model, seed=0)
turned = encoder.with_model(rotated)
same = np.abs(turned.encode(others) - float_embeddings).max() < 1e-5
print("the rotated float model computes the same, to 1e-5:", bool(same))
with outliers.observe(rotated) as seen_rotated:
    turned.encode(calibration)
for name in (FIRST, SECOND):
    before, after = maxima[name], seen_rotated.maxima[f"{name}.1"]
    told = " to ".join(f"{float(m.max() / m.median()):.0f}" for m in (before, after))
    print(f"{name.split('.')[3]:<13} loudest channel over the median one: {told}")

# %% tags=["minilm"]
held = {
    name: closeness(outliers.replace_linears(rotated, seen_rotated.maxima, rule))
    for name, rule in (("a scale for each output", STATIC), ("one scale", coarse))
}
for (name, after), before in zip(held.items(), (sweep[None], plain)):
    times = round((1 - before) / (1 - after), -1)
    print(
        f"weights: {name:<24} cosine {before:.2f}, rotated {times:.0f} times less is lost"
    )
print("less than 0.001 is lost:", held["a scale for each output"] > 0.999)
print("nearer than any alpha:", held["a scale for each output"] > max(sweep.values()))

# %% [markdown]
# One scale for all tokens, chosen beforehand, and the loss falls from 0.017 to less than 0.001: better than every alpha. It
# also wins where smoothing could not, with one scale for each whole weight, because rotated weights are spread evenly as well.
# What it costs: a product with $R$ at each layer's input. A Hadamard matrix needs $n \log n$ additions for it and not $n^2$
# multiplications, and in a pre-norm model most of them fold into the weights before (QuaRot, Ashkboos et al., 2024, arXiv:2404.00456).
# Lab 12 builds the matrix and the rotated layer, and goes down to 4 bits with them, on a language model whose loudest channel is
# 2,400 times the median one.

# %% [markdown]
# ## In the wild
#
# **A silent channel.** SmoothQuant's published code keeps its scales from being 0 with a floor of 1e-5. A channel that was
# silent during calibration then gets the scale 1e-5: its weights are almost erased, and its activations are multiplied by
# 100,000 should it ever speak. Two channels, one silent in the calibration set:

# %%
activation_max = torch.tensor([2.0, 0.0])
small = nn.Linear(2, 1, bias=False)
small.weight = nn.Parameter(torch.tensor([[1.0, 1.0]]), requires_grad=False)
spoken = torch.tensor([[1.0, 0.5]])  # now it speaks
with_floor = (activation_max**0.5 / small.weight.abs().amax(0) ** 0.5).clamp(min=1e-5)
for name, scales in (
    ("a floor of 1e-5", with_floor),
    ("1, as you wrote it", scales_of(activation_max, small.weight, 0.5)),
):
    divided = spoken / scales
    step = divided.abs().max() / 127  # one scale, found as the activations come
    back = (divided / step).round() * step
    y = float((back @ (small.weight * scales).T)[0, 0])
    told = [f"{v:.4g}" for v in divided[0].tolist()]
    print(f"{name:<20} divided: {', '.join(told):<14} output {y:.2f}, should be 1.50")

# %% [markdown]
# **One norm, three readers.** Queries, keys and values read the same norm. If the division is folded into it, they must share
# one vector of scales: SmoothQuant takes the maximum over the columns of all three weights together. Dividing at each layer's
# input, as here, leaves each its own.
#
# **The 6.** LLM.int8()'s threshold was found on language models from 125 million to 13 billion parameters. It has no unit that
# would carry over. In MiniLM 4 was better, and in a network whose activations live in [0, 1] there
# is nothing above 6 at all. Count before you trust it.
#
# **Where outliers come from** is not fully known. They grow during training, appear with size, sit in a few fixed channels
# and often in tokens that mean nothing, such as `[CLS]`, full stops and commas. How loud are the tokens of our sentence?

# %% tags=["minilm"]
for name in (FIRST, SECOND):
    loudest = alone.inputs[name].abs().amax(1)
    order = loudest.argsort(descending=True)[:4].tolist()
    told = ", ".join(f"{tokens[i]!r} {float(loudest[i]):.1f}" for i in order)
    print(f"{name.split('.')[3]:<13} {told}")

# %% [markdown]
# `[CLS]` is about four and six times as loud as the next token. One reading: an attention head that finds nothing to
# do must still look somewhere, and learns to look at a token that means nothing; the feed-forward part before it
# makes that token stand out (Bondarenko et al., 2023, "Quantizable transformers", arXiv:2306.12929, who study BERT
# among others).

# %% [markdown]
# ## In practice
#
# torchao has SmoothQuant in three steps: `prepare` puts observers in, some batches go through, `convert` computes the scales and
# quantizes. It is still among its prototypes. On the second layer of the feed-forward part, beside your scales:

# %% tags=["minilm"]
try:
    from torchao.prototype.smoothquant import SmoothQuantConfig
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
except ImportError:
    print("Needs torchao, 0.18 or later: pip install torchao")
else:
    layer, x = model.get_submodule(SECOND), seen.inputs[SECOND]
    base, level = Int8DynamicActivationInt8WeightConfig(), {}
    for alpha in (None, 0.5, 0.8):
        theirs = nn.Sequential(copy.deepcopy(layer))
        quantize_(theirs, SmoothQuantConfig(base, "prepare", alpha))
        theirs(x)  # calibration
        quantize_(theirs, SmoothQuantConfig(base, "convert", alpha))
        level[alpha] = sqnr_db(layer(x), theirs(x))
        if alpha is not None:
            ours = scales_of(x.abs().amax(dim=0), layer.weight, alpha)
            same = torch.allclose(1 / theirs[0].weight.act_pre_scale, ours, rtol=1e-4)
            print(f"alpha = {alpha}: the same scales as yours: {same}")
    print("alpha = 0.5 costs 2 to 4 dB:", 2 < level[None] - level[0.5] < 4)
    print("alpha = 0.8 costs less than 1 dB:", level[None] - level[0.8] < 1)

# %% [markdown]
# Your scales, and your finding: with a scale for each token nothing is gained, and 0.5 does harm in this layer.

# %% [markdown]
# ## Stretch
#
# ### Exercise 4: `fold_division` (10 minutes, ●●○)
#
# The lab used the course's version of this above. Write it yourself: the module before a layer, made so that its outputs come out
# divided.
#
# | | |
# |---|---|
# | input | `before`, an `nn.LayerNorm`, an `nn.RMSNorm` or an `nn.Linear`; `scales`, a tensor with a positive number for each of its *outputs* |
# | result | a module of the same kind, whose outputs are those of `before` divided by `scales`, with no operation added |
# | all else | as it was: eps, no bias where there was none |
# | `before` | stays as it is |
#
# By hand: a norm with weight 3 and bias 1 in a channel, and the scale 2 there: weight 1.5 and bias 0.5.


# %%
def fold_division(before, scales):
    """Return a copy of a norm or linear layer whose outputs are divided by scales."""
    ### BEGIN SOLUTION
    folded = copy.deepcopy(before)
    with torch.no_grad():
        one_each = scales[:, None] if folded.weight.ndim == 2 else scales
        folded.weight.div_(one_each)
        if getattr(folded, "bias", None) is not None:
            folded.bias.div_(scales)
    return folded
    ### END SOLUTION


# %%
check(fold_division)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write the output of each module as one line with weight and bias in it. Divide the line by s. Where does s end up?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Weight *and* bias are divided. A norm's weight has one number for each output; a linear layer's has a row for each output,
# so the scales need a second axis there. A copy of the module keeps everything else.
#
# </details>

# %% [markdown]
# With it the attention's output layers can be smoothed without any division left in the model. (In block 0 there is something to
# smooth; in the others no channel is loud at this place.)

# %% tags=["minilm"]
fold = or_reference(fold_division)
free = copy.deepcopy(model)
for number, block in enumerate(free.encoder.layer):
    attention = block.attention
    name = f"encoder.layer.{number}.attention.output.dense"
    scales = scales_of(maxima[name], weights[name], 0.8)
    attention.self.value = fold(attention.self.value, scales)
    with torch.no_grad():
        attention.output.dense.weight.mul_(scales)
off = np.abs(encoder.with_model(free).encode(others) - float_embeddings).max()
print("embeddings differ by less than 1e-5:", bool(off < 1e-5))

name, reach = "encoder.layer.0.attention.output.dense", []
for each in (model, free):
    with outliers.observe(each) as watched:
        encoder.with_model(each).encode(others)
    reach.append(float(watched.maxima[name].max() / watched.maxima[name].median()))
print("block 0, the loudest channel over the median:")
print(f"{reach[0]:.1f} before, {reach[1]:.1f} smoothed")

# %% [markdown]
# ## Interview questions
#
# <details><summary>Why are activations harder to quantize than weights?</summary>
#
# Weights are known beforehand, change never, and can have a scale for each output. Activations come while the model runs; a
# scale for each of their *channels* cannot leave the sum over channels, and outliers sit in channels. So one loud channel sets
# the scale of all others, of its token or of the whole tensor.
#
# </details>
# <details><summary>What does SmoothQuant's alpha do, and how do you choose it?</summary>
#
# It says how much of a channel's size moves from the activations into the weights: all of it at 1, and at 0 the weights'
# differences move into the activations. Sweep it on a calibration set. It depends on the model, on the layer, and on the
# granularity of both sides: for MiniLM 0.8 with a static scale, and no
# smoothing at all with per-tensor weights; with a scale for each token there is little left to gain.
#
# </details>
# <details><summary>Smoothing leaves the float model's function as it is. Then why does it change the quantized one?</summary>
#
# Rounding is not linear. The error of each side is set by its largest magnitude, and smoothing changes which magnitude that
# is. Divided channels use more codes; multiplied weights lose some, but they have a scale for each output.
#
# </details>
# <details><summary>Where can the division be folded, and where not?</summary>
#
# Into the operation before, if that ends with a factor for each channel (a norm, a linear layer) and if nobody else reads its
# output. A pre-norm LayerNorm qualifies, a value projection does, a ReLU between lets a positive factor through. A post-norm
# LayerNorm does not, since the residual reads it, and GELU does not let a factor through.
#
# </details>
# <details><summary>LLM.int8() or SmoothQuant?</summary>
#
# Splitting is more exact and needs no calibration, if outliers are looked for as they come; it costs a second product. Smoothing
# is done beforehand and is free at run time where it folds, but has to be calibrated, and needs somewhere to put the size.
#
# </details>
# <details><summary>A scale for each token makes outliers harmless. True?</summary>
#
# Only outliers of single tokens, like `[CLS]` here. A channel that is loud in every token sets every token's scale: the planted
# outlier took the cosine to 0.9 with a scale for each token.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - Outliers of activations sit in fixed channels, and often in one token. Draw channels against tokens before you choose.
# - A factor for each input channel can move between activations and weights without changing the layer. That is exact.
# - How much to move is to be measured. On MiniLM alpha = 0.5 was worse than nothing, 0.8 nearly as good
#   as a scale for each token.
# - A channel that is loud in activations *and* in weights is why: 0.5 makes it louder.
# - Splitting is near to float and costs a second product. With per-tensor weights smoothing had nothing left to win.
# - A rotation spreads an outlier over all channels, and helps both sides at once. It costs a product at each layer's input.
# - Fold a factor only into what nobody else reads.
