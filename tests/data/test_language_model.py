"""The language model computes what transformers computes, from either file, and its tokenizer loses nothing."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from labutils.data import language_model, smollm2
from labutils.data.gguf import GGUF
from labutils.data.gguf_llama import CONFIG, LAYER, config_of, tokenizer_of
from labutils.data.stand_in import untrained_language_model

IDS = torch.arange(2, 42)[None]
TEXTS = ["A scale.", " two  spaces\n\tand a tab", "naïve Äpfel 量化 🙂", "12345 and 3.14", "<|im_end|>", ""]


@pytest.fixture(scope="module")
def small():
    return untrained_language_model()


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


# --- a model from a file ---


def rows_in_pairs(weight, num_heads):
    """A query or key weight in llama.cpp's order of rows: the inverse of what the reader does."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture
def gguf_file(small, tmp_path):
    """The stand-in, written as llama.cpp would."""
    gguf = pytest.importorskip("gguf")
    config, state = small.model.config, small.model.state_dict()
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    values = {name: getattr(config, name, None) for name in CONFIG} | {"rope_theta": 5000.0}
    for name, key in CONFIG.items():
        (writer.add_float32 if isinstance(values[name], float) else writer.add_uint32)(key, values[name])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    vocabulary = small.tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    writer.add_token_list([*tokens[:-1], "in"])
    writer.add_token_merges(["i n"])
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for i in range(config.num_hidden_layers):
        names |= {f"blk.{i}.{ours}": f"model.layers.{i}.{theirs}" for theirs, ours in LAYER.items()}
    for ours, theirs in names.items():
        weight = state[f"{theirs}.weight"].numpy()
        if ours.endswith(("attn_q", "attn_k")):
            weight = rows_in_pairs(weight, 4 if ours.endswith("q") else 2)
        writer.add_tensor(f"{ours}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "small.gguf"


@pytest.fixture
def original(small, tmp_path):
    """The stand-in in a folder as the Hub has the original: bfloat16, config.json with the names of transformers 4."""
    from safetensors.torch import save_file

    state = {n: w.bfloat16().clone() for n, w in small.model.state_dict().items() if n != "lm_head.weight"}
    save_file(state, tmp_path / smollm2.WEIGHTS)
    config = {n: v for n, v in small.model.config.to_dict().items() if n != "rope_parameters"}
    config |= {
        "architectures": ["LlamaForCausalLM"],
        "rope_theta": 5000,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / smollm2.CONFIG).write_text(json.dumps(config))
    small.tokenizer.backend_tokenizer.save(str(tmp_path / smollm2.TOKENIZER))
    return tmp_path


def test_a_gguf_file_holds_the_same_model(small, gguf_file, monkeypatch):
    monkeypatch.setattr(smollm2, "find", lambda: ({smollm2.GGUF: gguf_file}, "A test."))
    language = language_model()
    for name, weight in small.model.state_dict().items():
        assert torch.equal(language.model.state_dict()[name], weight), name
    same = transformers.LlamaForCausalLM(config_of(GGUF(gguf_file)))
    same.load_state_dict(small.model.state_dict())
    assert same.model.rotary_emb.inv_freq[1] == pytest.approx(5000 ** (-2 / 16))
    torch.testing.assert_close(logits(language.model), logits(same.eval()), rtol=0, atol=1e-5)
    assert language.encode("in it") == [256, *small.encode(" it")]  # the last token is the one that was merged
    assert language.source == "A test."


def test_the_original_is_loaded_as_transformers_loads_it(original, monkeypatch):
    monkeypatch.setattr(smollm2, "find", lambda: ({file: original / file for file in smollm2.ORIGINAL}, "A test."))
    language = language_model()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(language.model), logits(theirs), rtol=0, atol=1e-5)
    assert language.tokenizer.eos_token_id == 0
    assert language.decode(language.encode("A scale.")) == "A scale."


def test_another_architecture_or_tokenizer_is_an_error(gguf_file):
    file = GGUF(gguf_file)
    file.metadata["general.architecture"] = "falcon"
    with pytest.raises(ValueError, match="holds a model of the architecture 'falcon', not 'llama'"):
        config_of(file)
    file.metadata["tokenizer.ggml.pre"] = "falcon"
    with pytest.raises(ValueError, match="has a tokenizer .*'falcon'.*, and only"):
        tokenizer_of(file)


def test_a_library_that_is_missing_is_named():
    code = """
import sys
sys.modules["transformers"] = None
from labutils.data import language_model, smollm2
smollm2.find = lambda: ({}, "")
try:
    language_model()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "language_model needs transformers, which is not installed: `pip install transformers`\n"


# --- the object ---


def test_the_head_shares_the_embeddings_weight_and_nothing_is_trained(small):
    assert small.model.lm_head.weight is small.model.model.embed_tokens.weight
    assert not any(parameter.requires_grad for parameter in small.model.parameters())
    assert not small.model.training


def test_building_a_model_leaves_the_learners_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    untrained_language_model()
    assert torch.rand(1) == expected


def test_every_stand_in_has_the_same_weights_of_its_own(small):
    other = untrained_language_model()
    assert torch.equal(logits(small.model), logits(other.model))
    assert other.model is not small.model and other.source == "Untrained: random weights."


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_inverts_encoding(small, text):
    assert small.decode(small.encode(text)) == text


def test_with_model_keeps_the_tokenizer_and_the_source(small):
    model = torch.nn.Linear(2, 2)
    other = small.with_model(model)
    assert other.model is model and other.tokenizer is small.tokenizer and other.source == small.source
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        small.with_model("model")


@pytest.mark.parametrize("text", [None, 3, ["a"], b"a"])
def test_only_text_is_encoded(small, text):
    with pytest.raises(TypeError, match="text must be a string, got"):
        small.encode(text)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([257], ValueError, "a token id must be below the vocabulary's size, 257, got 257"),
        ([-1], ValueError, "a token id must be at least 0, got -1"),
        ([0.5], TypeError, "a token id must be a whole number"),
    ],
)
def test_only_token_ids_are_decoded(small, ids, error, message):
    with pytest.raises(error, match=message):
        small.decode(ids)


def test_ids_may_be_of_any_library(small):
    ids = small.encode("A scale.")
    assert small.decode(np.array(ids)) == small.decode(torch.tensor(ids)) == "A scale."


# --- the real one ---


def test_the_real_model_is_what_the_labs_say_of_it(language):
    assert sum(parameter.numel() for parameter in language.model.parameters()) == 134_515_008
    config = language.model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert {parameter.dtype for parameter in language.model.parameters()} == {torch.float32}


IDS_OF = {  # as by transformers' own conversion of the GGUF file; the last one after it was told to split numbers
    "A scale maps codes to floats.": [49, 3964, 7034, 9606, 288, 30595, 30],
    " two  spaces\n\tand a tab\n": [827, 216, 5600, 198, 197, 397, 253, 10147, 198],
    "naïve Äpfel 量化 🙂": [3546, 46494, 5549, 222, 96, 34520, 216, 48387, 45662, 47526],
    "in 2025 and 3.14": [254, 216, 34, 32, 34, 37, 284, 216, 35, 30, 33, 36],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
    "def f(x):\n    return x**2": [1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34],
    "They'll say it's 7 o'clock": [4948, 3060, 1643, 357, 506, 216, 39, 263, 23, 17466],
    "٣ ½ x² 8k": [164, 113, 216, 16738, 1792, 19133, 216, 40, 91],
}


@pytest.mark.parametrize("text", IDS_OF)
def test_the_real_tokenizers_ids(language, text):
    assert language.encode(text) == IDS_OF[text]
    assert language.decode(IDS_OF[text]) == text
