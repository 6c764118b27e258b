"""What the cache gives back lies within half a step of what came, and its bytes are those of the formula."""

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from labutils.models.kv_cache import CacheFormat, kv_cache_bytes
from labutils.models.kv_cache.cache import QuantizedCache, QuantizedLayer
from labutils.models.kv_cache.footprint import CacheShape
from tests.arrays.bad_inputs import refuses, table
from tests.models.kv_cache.examples import CONFIG, states

SHAPE = CacheShape.of(CONFIG)
PAIRS = list(itertools.product(("channel", "token", None), repeat=2))
SMALL = {"group_size": 8, "window": 4}


def layer(num_bits=4, exact_new=False, **options):
    return QuantizedLayer(CacheFormat(num_bits, **{**SMALL, **options}), SHAPE, exact_new)


def steps(x, by, bits, symmetric):
    """The step of each element of (batch, heads, tokens, channels), 8 tokens a group, in full precision."""
    groups = x.unflatten(2, (-1, 8))
    axis = 3 if by == "channel" else 4
    low, high = groups.amin(axis, keepdim=True).clamp(max=0), groups.amax(axis, keepdim=True).clamp(min=0)
    step = torch.maximum(high, -low) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2**bits - 1)
    return step.expand_as(groups).flatten(2, 3)


@pytest.mark.parametrize("by", ["channel", "token"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("scale_dtype, rounding", [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_no_element_moves_by_more_than_half_a_step(by, symmetric, bits, scale_dtype, rounding):
    cached = layer(bits, keys=by, values=by, symmetric=symmetric, scale_dtype=scale_dtype)
    keys, values = states(seed=3), states(seed=4)
    for read, x in zip(cached.update(keys, values), (keys, values)):
        old = cached.cached_keys.quantized
        assert old == 40
        half = steps(x[:, :, :old], by, bits, symmetric) / 2 * (1 + rounding)
        assert ((read - x)[:, :, :old].abs() <= half * (1 + 1e-5) + 1e-6).all()
        assert (read - x)[:, :, :old].abs().max() > 0
        assert torch.equal(read[:, :, old:], x[:, :, old:])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_attention_errs_by_no_more_than_the_steps_allow(bits):
    keys, values, queries = states(seed=3), states(seed=4), states(seed=5, length=1) / 20
    exact = scaled_dot_product_attention(queries, keys, values)
    read = scaled_dot_product_attention(queries, *layer(bits, window=2).update(keys, values))
    # A score moves by d <= sum |q| step / 2 / sqrt(channels), so a weight by a factor within exp(+-2 d).
    moved = (steps(keys[:, :, :48], "channel", bits, False) * queries.abs()).sum(-1).amax(-1) / 2 / 8**0.5
    step = steps(values[:, :, :48], "token", bits, False).amax((-1, -2))
    bound = step / 2 + (torch.exp(2 * moved) - 1) * values.abs().amax((-1, -2))
    assert ((read - exact).abs().amax((-1, -2)) <= bound * 1.002).all()
    assert (read - exact).abs().max() > 0


def test_outliers_in_a_channel_want_a_scale_for_each_channel():
    keys = states()
    error = {
        by: (layer(4, keys=by).update(keys, keys)[0] - keys)[..., [0, 1, 3]].abs().mean() for by in ("channel", "token")
    }
    assert error["token"] > 3 * error["channel"]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("keys, values", PAIRS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_state_does_not_depend_on_the_calls_in_which_tokens_came(bits, keys, values, symmetric):
    options = {"keys": keys, "values": values, "symmetric": symmetric}
    at_once, in_turn = layer(bits, **options), layer(bits, exact_new=True, **options)
    read = at_once.update(states(seed=3), states(seed=4))
    for size, x, y in zip((1, 20, 3, 26), *(states(seed=s).split((1, 20, 3, 26), 2) for s in (3, 4))):
        before = in_turn.get_seq_length()
        exact = in_turn.update(x, y)
        assert torch.equal(exact[0][:, :, before:], x)
        assert exact[0].shape[2] == before + size
    for one, other, given in zip(at_once._both, in_turn._both, read):
        assert torch.equal(one.read(), given)
        assert torch.equal(one.newest, other.newest)
        pairs = () if one.blocks is None else zip(one.blocks.tensors, other.blocks.tensors)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("bits", [None, 2, 3, 4, 8])
@pytest.mark.parametrize("keys, values", PAIRS)
@pytest.mark.parametrize(
    "options",
    [{}, {"symmetric": True}, {"group_size": 5, "window": 0}, {"group_size": 7, "scale_dtype": torch.bfloat16}],
    ids=str,
)
def test_measured_bytes_are_those_of_the_formula(bits, keys, values, options):
    options = SMALL | {"keys": keys, "values": values} | options
    for dtype, chunks in ((torch.float32, (50,)), (torch.float16, (3, 1, 9, 17, 20)), (torch.bfloat16, (35, 15))):
        cache, tokens = QuantizedCache(CONFIG, bits, **options), 0
        assert cache.nbytes == kv_cache_bytes(CONFIG, 0, bits, **options) == 0
        for chunk in states(dtype=dtype).split(chunks, dim=2):
            tokens += chunk.shape[2]
            for index in range(2):
                cache.update(chunk, chunk, index)
            assert cache.nbytes == kv_cache_bytes(CONFIG, tokens, bits, batch=2, dtype=dtype, **options)


def test_bytes_of_a_cache_by_hand():
    # 2 layers, 3 heads, 8 channels; of 20 tokens, 16 are quantized in two groups of 8, and 4 are in float16.
    keys = 2 * 8 * (8 * 2 // 8 + 2) + 2 * 2  # 8 rows a group of 2 bytes and a scale, 8 zero points of 2 bits
    values = 2 * 8 * (8 * 2 // 8 + 2) + 2 * 2  # 8 tokens a group, 8 channels each: the same
    expected = 2 * 3 * (keys + values + 2 * 4 * 8 * 2)
    assert kv_cache_bytes(CONFIG, 20, num_bits=2, dtype=torch.float16, **SMALL) == expected
    assert kv_cache_bytes(CONFIG, 20, num_bits=None, dtype=torch.float16) == 2 * 3 * 20 * 8 * 2 * 2


def test_zeros_tiny_and_huge_values():
    zeros = torch.zeros(1, 1, 12, 4)
    assert all(torch.equal(read, zeros) for read in layer(2).update(zeros, zeros))
    tiny = torch.full((1, 1, 12, 4), 1e-12)
    assert layer(4).update(tiny, tiny)[0].isfinite().all()  # a step of float16 is at least 6e-8
    huge = torch.full((1, 1, 12, 4), 1e7)
    refuses(ValueError, ("keys need a scale of 666667", "bfloat16"), layer(4).update, huge, huge)
    read = layer(4, scale_dtype=torch.bfloat16).update(huge, huge)[0]
    assert torch.allclose(read, huge, rtol=0.05)


BAD_STATES = {
    "a list": ([1.0], TypeError, ("keys must be a float tensor, got list",)),
    "integers": (torch.ones(1, 3, 2, 8, dtype=torch.int8), TypeError, ("keys must be a float tensor", "torch.int8")),
    "three axes": (torch.ones(3, 2, 8), ValueError, ("(batch, heads, tokens, channels)", "(3, 2, 8)")),
    "another batch": (torch.ones(1, 3, 2, 8), ValueError, ("holds keys of shape (2, 3, ..., 8)", "(1, 3, 2, 8)")),
    "other heads": (torch.ones(2, 4, 2, 8), ValueError, ("(2, 4, 2, 8)", "reset it")),
    "another dtype": (torch.ones(2, 3, 2, 8).half(), ValueError, ("torch.float32", "torch.float16")),
    "NaN": (torch.full((2, 3, 2, 8), torch.nan), ValueError, ("keys hold NaN or Inf",)),
}


@pytest.mark.parametrize("x, kind, words", **table(BAD_STATES))
def test_what_cannot_be_added_is_refused_and_nothing_has_changed(x, kind, words):
    cached = layer()
    before = [read.clone() for read in cached.update(states(), states())]
    refuses(kind, words, cached.update, x, states())
    assert all(torch.equal(a.read(), b) for a, b in zip(cached._both, before))


BAD_OPTIONS = {
    "1 bit": ({"num_bits": 1}, ValueError, ("num_bits must be between 2 and 8", "got 1")),
    "16 bits": ({"num_bits": 16}, ValueError, ("between 2 and 8", "None for full precision, got 16")),
    "bits a string": ({"num_bits": "4"}, TypeError, ("num_bits must be a whole number",)),
    "keys by row": ({"keys": "row"}, ValueError, ('keys must be "channel", "token" or None, got \'row\'',)),
    "values by row": ({"values": 0}, ValueError, ("values must be", "got 0")),
    "symmetric 1": ({"symmetric": 1}, TypeError, ("symmetric must be True or False",)),
    "no group": ({"group_size": 0}, ValueError, ("group_size must be at least 1",)),
    "a negative window": ({"window": -1}, ValueError, ("window must be at least 0",)),
    "float32 scales": ({"scale_dtype": torch.float32}, ValueError, ("scale_dtype", "torch.float32")),
    "an unknown option": ({"residual": 3}, TypeError, ("no option residual", "group_size")),
}


@pytest.mark.parametrize("options, kind, words", **table(BAD_OPTIONS))
def test_options_that_are_none_are_named(options, kind, words):
    refuses(kind, words, QuantizedCache, CONFIG, **options)
    refuses(kind, words, kv_cache_bytes, CONFIG, 10, **options)


def test_tokens_and_batches_that_cannot_be_are_named():
    refuses(ValueError, ("97 tokens do not fit the model's context of 96",), kv_cache_bytes, CONFIG, 97)
    refuses(ValueError, ("tokens must be at least 0",), kv_cache_bytes, CONFIG, -1)
    refuses(ValueError, ("batch must be at least 1",), kv_cache_bytes, CONFIG, 5, batch=0)
    refuses(TypeError, ("config must be a transformers config", "got dict"), kv_cache_bytes, {}, 5)
