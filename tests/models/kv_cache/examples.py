"""The tiny language model and the states that the tests of the cache share."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    max_position_embeddings=96,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)


def llama(dtype=torch.float64, seed=0):
    """Two layers, 3 key/value heads of 8 channels; larger weights than usual, so that attention is not uniform."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(CONFIG).eval().to(dtype)
    for name, parameter in model.named_parameters():
        if "proj" in name:
            parameter.data *= 8
    return model


def tokens(batch=1, length=60, seed=1):
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def states(batch=2, heads=3, length=50, channels=8, seed=2, dtype=torch.float32):
    """Keys or values, one channel of which is loud."""
    x = torch.randn(batch, heads, length, channels, generator=torch.Generator().manual_seed(seed))
    x[..., 2] *= 20
    return x.to(dtype)


@torch.no_grad()
def logits(model, ids, cache, sizes, **options):
    """The logits of all tokens, fed in calls of these sizes; the last size is repeated."""
    found, start, sizes = [], 0, list(sizes)
    while start < ids.shape[1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        found.append(model(ids[:, start : start + size], past_key_values=cache, **options).logits)
        start += size
    return torch.cat(found, dim=1)
