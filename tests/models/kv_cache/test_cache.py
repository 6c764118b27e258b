"""A language model reads from the cache as from transformers' own, up to the quantization."""

import copy

import pytest
import torch
from transformers import DynamicCache, MistralConfig

from labutils.models.kv_cache import QuantizedCache, kv_cache_bytes
from tests.arrays.bad_inputs import refuses
from tests.models.kv_cache.examples import CONFIG, llama, logits, states, tokens

SMALL = {"group_size": 8, "window": 4}


@pytest.fixture(scope="module")
def model():
    return llama()


@pytest.fixture(scope="module")
def exact(model):
    return logits(model, tokens(), DynamicCache(), [60])


def quantized(num_bits=4, **options):
    return QuantizedCache(CONFIG, num_bits, **{**SMALL, **options})


@pytest.mark.parametrize("sizes", [[60], [20, 1], [7]], ids=str)
@pytest.mark.parametrize("options", [{"num_bits": None}, {"keys": None, "values": None}, {"window": 60}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_quantization_it_is_the_dynamic_cache_bit_by_bit(sizes, options, dtype):
    model = llama(dtype)
    ours, theirs = quantized(**options), DynamicCache()
    assert torch.equal(logits(model, tokens(), ours, sizes), logits(model, tokens(), theirs, sizes))
    assert torch.equal(ours.layers[1].cached_keys.read(), theirs.layers[1].keys)
    assert ours.nbytes == 2 * 2 * 3 * 60 * 8 * dtype.itemsize


def test_the_error_of_the_logits_shrinks_with_the_step(model, exact):
    """A step of 8 bits is 255/15 = 17 times smaller than one of 4 bits, and so is what it does to the logits."""
    error = {bits: float((logits(model, tokens(), quantized(bits), [60]) - exact).std()) for bits in (2, 4, 8)}
    assert 8 < error[4] / error[8] < 34
    assert error[8] < 0.01 * exact.std()
    assert error[4] < error[2]


def test_each_half_of_the_cache_can_be_quantized_alone(model, exact):
    error = {
        (keys, values): float((logits(model, tokens(), quantized(3, keys=keys, values=values), [60]) - exact).std())
        for keys, values in (("channel", None), ("token", None), (None, "token"), (None, "channel"))
    }
    assert all(value > 0 for value in error.values())
    assert len(set(error.values())) == 4


# The first group is complete with token 11 (window 4 and 8 more), each other 8 later.
BEGINS = [11, 8]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("exact_new, sizes", [(False, BEGINS), (True, [12, 8])], ids=["stored", "exact"])
def test_decoding_equals_calls_that_are_cut_where_a_group_is_quantized(model, bits, exact_new, sizes):
    decoded = logits(model, tokens(), quantized(bits, exact_new=exact_new), [1])
    in_calls = logits(model, tokens(), quantized(bits, exact_new=exact_new), sizes)
    torch.testing.assert_close(in_calls, decoded, rtol=1e-9, atol=1e-9)
    at_once = logits(model, tokens(), quantized(bits, exact_new=exact_new), [60])
    assert (at_once - decoded).abs().max() > 1e-4  # one call reads other precisions: not the same logits


def test_with_groups_of_one_token_and_no_window_one_call_is_decoding(model):
    options = {"keys": "token", "group_size": 1, "window": 0}
    decoded, at_once = (logits(model, tokens(), quantized(3, **options), sizes) for sizes in ([1], [60]))
    torch.testing.assert_close(at_once, decoded, rtol=1e-9, atol=1e-9)


def test_a_prompt_that_is_read_exactly_costs_nothing(model, exact):
    cache = quantized(2, exact_new=True)
    torch.testing.assert_close(logits(model, tokens(), cache, [60]), exact, rtol=0, atol=0)
    assert cache.nbytes == kv_cache_bytes(CONFIG, 60, 2, dtype=torch.float64, **SMALL)


def padded(ids, counts):
    """`ids`, their first tokens behind so many of padding, in the same length; the mask, and the positions."""
    rows, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, count in enumerate(counts):
        rows[row, count:], mask[row, count:] = ids[row, : ids.shape[1] - count], 1
    return rows, {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def test_rows_padded_by_whole_groups_are_as_they_are_alone(model):
    counts = [0, 8, 24]
    rows, options = padded(tokens(3, 72), counts)
    together = logits(model, rows, quantized(3, attention_mask=options["attention_mask"]), [72], **options)
    for row, count in enumerate(counts):
        alone = logits(model, rows[row : row + 1, count:], quantized(3), [72])
        torch.testing.assert_close(together[row : row + 1, count:], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_other_padding_moves_the_groups_and_no_more(model, known):
    rows, options = padded(tokens(2, 60), [0, 5])
    cache = quantized(8, attention_mask=options["attention_mask"] if known else None)
    together = logits(model, rows, cache, [60], **options)
    alone = logits(model, rows[1:, 5:], DynamicCache(), [55])
    assert (together[1:, 5:] - alone).std() < 0.02 * alone.std()


def test_generate_takes_it_greedily_and_with_beams(model):
    model = llama(torch.float32)
    rows, options = padded(tokens(2, 30), [0, 3])
    inputs = {"attention_mask": options["attention_mask"], "max_new_tokens": 20, "do_sample": False}
    for beams in (1, 3):
        inputs["num_beams"] = beams
        expected = model.generate(rows, **inputs)
        assert torch.equal(model.generate(rows, past_key_values=quantized(None), **inputs), expected)
        cache = quantized(8)
        assert model.generate(rows, past_key_values=cache, **inputs).shape == expected.shape
        assert cache.get_seq_length() == rows.shape[1] + 19


def test_reset_in_the_middle_leaves_nothing(model):
    cache = quantized(2, attention_mask=torch.ones(2, 40))
    logits(model, tokens(2, 40, seed=8), cache, [40])
    cache.reset()
    assert cache.nbytes == cache.get_seq_length() == 0
    again = logits(model, tokens(), cache, BEGINS)  # another batch, too
    assert torch.equal(again, logits(model, tokens(), quantized(2), BEGINS))


ROWS = {
    "reorder_cache": (torch.tensor([2, 0, 0]), [2, 0, 0]),
    "batch_select_indices": (torch.tensor([1]), [1]),
    "batch_repeat_interleave": (2, [0, 0, 1, 1, 2, 2]),
}


@pytest.mark.parametrize("method", ROWS)
def test_rows_of_the_batch_move_without_being_quantized_anew(method):
    argument, expected = ROWS[method]
    mask = torch.ones(3, 50).index_fill(1, torch.arange(4), 0) + torch.tensor([[1.0], [0.0], [0.0]])
    cache, x = quantized(attention_mask=mask), states(3)
    before = [[read.clone() for read in cache.update(x, -x, index)] for index in range(2)]
    getattr(cache, method)(argument)
    assert cache.padding.tolist() == torch.tensor([0, 4, 4])[expected].tolist()
    for layer, (keys, values) in zip(cache.layers, before):
        assert torch.equal(layer.cached_keys.read(), keys[expected])
        assert torch.equal(layer.cached_values.read(), values[expected])
    assert cache.nbytes == kv_cache_bytes(CONFIG, 50, batch=len(expected), **SMALL)


def test_the_newest_tokens_can_be_cropped_and_come_again(model):
    cache = quantized()
    logits(model, tokens(1, 50), cache, [50])
    expected = copy.deepcopy(cache)
    assert cache.layers[0].cached_keys.quantized == 40
    cache.crop(-10)
    assert cache.get_seq_length() == 40
    assert cache.nbytes < expected.nbytes
    with torch.no_grad():
        model(tokens(1, 50)[:, 40:], past_key_values=cache)
    for ours, theirs in zip(cache.layers, expected.layers):
        torch.testing.assert_close(ours.cached_keys.read(), theirs.cached_keys.read())
    assert not cache.is_croppable


def test_quantized_tokens_cannot_be_cropped():
    cache = quantized()
    for index in range(2):
        cache.update(states(), states(), index)
    refuses(ValueError, ("11 tokens cannot be removed", "only the newest 10 are in full precision"), cache.crop, -11)
    refuses(ValueError, ("minus the number of tokens", "got 3"), cache.crop, 3)
    cache.crop(0)
    assert [layer.get_seq_length() for layer in cache.layers] == [50, 50]


def test_a_longer_text_than_the_context_is_refused(model):
    cache = quantized()
    logits(model, tokens(1, 90), cache, [90])
    with pytest.raises(ValueError, match="97 tokens do not fit the model's context of 96"):
        logits(model, tokens(1, 7), cache, [7])
    assert cache.get_seq_length() == 90
    logits(model, tokens(1, 6), cache, [6])
    assert cache.get_max_length() == 96


def test_what_is_no_config_or_no_mask_is_named():
    refuses(TypeError, ("config must be a transformers config",), QuantizedCache, 4)
    refuses(ValueError, ("only full attention", "mistral"), QuantizedCache, MistralConfig(sliding_window=8))
    refuses(TypeError, ("exact_new must be True or False",), QuantizedCache, CONFIG, exact_new=1)
    refuses(ValueError, ("attention_mask must be a tensor",), quantized, attention_mask=[1])
    refuses(ValueError, ("attention_mask must be a tensor", "(3,)"), quantized, attention_mask=torch.ones(3))
    right = torch.tensor([[1, 1, 0]])
    refuses(ValueError, ("only padding on the left",), quantized, attention_mask=right)
    cache = quantized(attention_mask=torch.ones(3, 4))
    refuses(ValueError, ("3 rows, for a batch of 2",), cache.update, states(), states(), 0)
