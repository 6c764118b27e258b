"""Tiny models of transformers with random weights, and a disk that is full."""

from contextlib import contextmanager

import pytest

resource = pytest.importorskip("resource")  # not on Windows
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from labutils.data.sentences import quietly

IDS = torch.arange(30).reshape(3, 10) % 64
SIZES = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def bert(kind=transformers.BertModel, **options):
    return model_of(kind, transformers.BertConfig(**SIZES, num_attention_heads=2), **options)


def llama(**options):
    config = transformers.LlamaConfig(**SIZES | options, num_attention_heads=4, num_key_value_heads=2)
    return model_of(transformers.LlamaForCausalLM, config)


def model_of(kind, config, **options):
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(0)
        model = kind(config, **options)
        for parameter in model.parameters():  # biases, too, and weights large enough to matter
            torch.nn.init.normal_(parameter, std=0.2)
        return model.eval().requires_grad_(False)


def outputs(model, ids=IDS):
    """Logits or last hidden states."""
    with torch.no_grad():
        return model(ids)[0]


@contextmanager
def full_disk(at):
    """Writing a file beyond so many bytes fails: as on a full disk, after some of it has been written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
