"""GGUF files that are written here are read by our reader, by the package gguf and by llama.cpp itself."""

import os
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn

from labutils import PerAxis, PerGroup, Scheme, quantize, save_gguf
from labutils.data import gguf_llama
from labutils.data.gguf import GGUF
from labutils.data.language_model import llama as llama_of
from labutils.data.stand_in import untrained_language_model
from labutils.formats.gguf_llama import in_pairs
from labutils.models import Int8Linear, quantize_model
from tests.formats.examples import bert, full_disk, llama

pytestmark = pytest.mark.filterwarnings("ignore::labutils.models.LeftInFloatWarning")

GROUPS = PerGroup(32)
Q8, Q4, Q4_ZEROS = Scheme(8, granularity=GROUPS), Scheme(4, granularity=GROUPS), Scheme(4, False, GROUPS)
TEXT = "A scale maps 42 codes to floats."


@pytest.fixture(scope="module")
def small():
    return untrained_language_model()


def read_back(path):
    """The model and the tokenizer in a file, by our reader."""
    file = GGUF(path)
    config = gguf_llama.config_of(file)
    return llama_of(config, gguf_llama.weights_of(file, config)), gguf_llama.tokenizer_of(file)


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# --- a Llama ---


@pytest.mark.parametrize("options", [{}, {"kind": "F16"}], ids=["float32", "float16"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "own head"])
def test_a_float_model_comes_back_as_it_was(options, tied, small, tmp_path):
    model = small.model if tied else llama(tie_word_embeddings=False, vocab_size=257, pad_token_id=0)
    save_gguf(model, tmp_path / "m.gguf", **{"kind": "F32", "embedding": "F32", "tokenizer": small.tokenizer} | options)
    again, tokenizer = read_back(tmp_path / "m.gguf")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert ids == small.encode(TEXT)
    assert again.config.tie_word_embeddings == tied
    assert relative(logits(again, ids), logits(model, ids)) <= (2.0**-8 if options else 1e-6)


@pytest.mark.parametrize(("scheme", "kind"), [(Q8, "Q8_0"), (Q4, "Q4_0"), (Q4_ZEROS, "Q4_1")])
def test_quantized_layers_come_back_with_their_codes(scheme, kind, small, tmp_path):
    model = quantize_model(small.model, scheme)
    save_gguf(small.with_model(model), tmp_path / "m.gguf", embedding="F32")
    file = GGUF(tmp_path / "m.gguf")
    assert {t.type.name for name, t in file.tensors.items() if "attn_q" in name} == {kind}
    again, _ = read_back(tmp_path / "m.gguf")
    modules = dict(again.named_modules())
    for name, layer in model.named_modules():
        if hasattr(layer, "quantized"):
            # 2^-11 of a value for the scale; for Q4_1 also of the minimum, which is 15 steps at most
            minimum = 15 * layer.quantized.scale.max() if kind == "Q4_1" else 0
            slack = 2.0**-11 * (layer.weight.abs() + minimum)
            assert ((modules[name].weight - layer.weight).abs() <= slack).all(), name


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"])
def test_the_package_gguf_reads_the_same_numbers(kind, small, tmp_path):
    gguf = pytest.importorskip("gguf")
    save_gguf(small, tmp_path / "m.gguf", kind=kind)
    ours, theirs = GGUF(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ours.tensors[tensor.name].shape)
        assert np.array_equal(values, ours.read(tensor.name))
    fields = {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert fields == ours.metadata
    assert ours.metadata["general.file_type"] == gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"]
    assert ours.metadata["tokenizer.ggml.pre"] == "smollm"


def test_rows_are_put_in_pairs_and_back():
    rows = np.arange(24.0).reshape(12, 2)
    assert np.array_equal(gguf_llama.in_halves(in_pairs(rows, 3), 3), rows)
    assert np.array_equal(in_pairs(rows, 3)[:4], rows[[0, 2, 1, 3]])


def test_tokens_that_the_tokenizer_lacks_are_padding(small, tmp_path):
    model = llama(vocab_size=260)
    save_gguf(model, tmp_path / "m.gguf", tokenizer=small.tokenizer)
    metadata = GGUF(tmp_path / "m.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"][-3:] == ["[PAD257]", "[PAD258]", "[PAD259]"]
    assert metadata["tokenizer.ggml.token_type"][-4:] == [1, 5, 5, 5]


# --- any tensors ---


def test_tensors_of_any_name_are_written(tmp_path):
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    quantized = quantize(x, Q4)
    tensors = {"a/b.c": x, "bias": x[0], "codes": quantized, "torch": torch.from_numpy(x), "three": x.reshape(2, 3, 64)}
    save_gguf(tensors, tmp_path / "t.gguf", kind="Q8_0", metadata={"general.name": "any", "n": -3, "list": [1.5, 2.0]})
    file = GGUF(tmp_path / "t.gguf")
    kinds = {name: tensor.type.name for name, tensor in file.tensors.items()}
    assert kinds == {"a/b.c": "Q8_0", "bias": "F32", "codes": "Q4_0", "torch": "Q8_0", "three": "Q8_0"}
    assert np.abs(file.read("a/b.c") - x).max() <= np.abs(x).max() / 127
    assert np.array_equal(file.read("three").reshape(6, 64), file.read("torch"))
    assert [file.metadata[key] for key in ("general.name", "n", "list")] == ["any", -3, [1.5, 2.0]]


def test_a_file_may_take_the_place_of_its_source(tmp_path):
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    save_gguf({"x": x}, tmp_path / "t.gguf", kind="F32")
    file = GGUF(tmp_path / "t.gguf")
    save_gguf({"x": file.read("x")}, tmp_path / "t.gguf", kind="Q4_0")
    assert np.array_equal(file.read("x"), x), "what is open stays readable"
    assert GGUF(tmp_path / "t.gguf").tensors["x"].type.name == "Q4_0"


# --- what goes wrong ---


def test_a_full_disk_leaves_what_was_there(small, tmp_path):
    save_gguf({"x": np.ones((2, 32), np.float32)}, tmp_path / "m.gguf")
    before = (tmp_path / "m.gguf").read_bytes()
    with pytest.raises(OSError), full_disk(at=50_000):
        save_gguf(small, tmp_path / "m.gguf", kind="F32")
    assert (tmp_path / "m.gguf").read_bytes() == before
    assert os.listdir(tmp_path) == ["m.gguf"]


X = np.ones((2, 32), np.float32)


@pytest.mark.parametrize(
    ("source", "options", "error", "sentence"),
    [
        (lambda: bert(), {}, ValueError, "the architecture 'bert' cannot be written"),
        (lambda: nn.Linear(4, 4), {}, ValueError, "the architecture None"),
        (lambda: llama(hidden_act="gelu"), {}, ValueError, "activation 'silu' .*got activation 'gelu'"),
        (lambda: llama(attention_bias=True), {}, ValueError, r"q_proj\.bias has no place"),
        (lambda: quantize_model(llama(), Int8Linear), {}, ValueError, "lm_head: GGUF has no type for"),
        (lambda: quantize_model(llama(), Scheme(4, granularity=PerAxis(0))), {}, ValueError, "no type for"),
        (lambda: llama(), {"kind": "Q5_0"}, ValueError, "F32, F16, Q8_0, Q4_0, Q4_1, got 'Q5_0'"),
        (lambda: llama(), {"tokenizer": "gpt2"}, TypeError, "got str"),
        (lambda: {}, {}, ValueError, "no tensors"),
        (lambda: "model.gguf", {}, TypeError, "got str"),
        (lambda: {"x": [1.0]}, {}, TypeError, "x: expected an array"),
        (
            lambda: {"x": X[:, :20]},
            {},
            ValueError,
            r"x: Q8_0 needs rows of whole blocks .*\(2, 20\)",
        ),
        (lambda: {"x": X * np.nan}, {}, ValueError, "x: .*NaN"),
        (lambda: {"x": X.astype(int)}, {}, TypeError, "x: .*int"),
        (lambda: {"x" * 64: X}, {}, ValueError, "1 to 63 bytes"),
        (lambda: {3: X}, {}, ValueError, "a string of 1 to 63 bytes, got 3"),
        (lambda: {"x": X.reshape(1, 1, 1, 2, 32)}, {}, ValueError, "1 to 4 axes"),
        (lambda: {"x": quantize(X, Scheme(8))}, {}, ValueError, "x: GGUF has no type"),
        (lambda: {"x": X}, {"metadata": {"key": None}}, TypeError, "key: .*got None"),
        (lambda: {"x": X}, {"metadata": {"key": np.float16(1)}}, TypeError, "key: .*float16"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(source, options, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        save_gguf(source(), tmp_path / "new" / "m.gguf", **options)
    assert os.listdir(tmp_path) == []


def test_tokenizers_that_llama_cpp_would_cut_otherwise_are_refused(small, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(ValueError, match="WordPiece .* only byte-level BPE"):
        save_gguf(replace(small, tokenizer=tokenizer), tmp_path / "m.gguf")
    with pytest.raises(ValueError, match="has token 256, but the embedding only 64 rows"):
        save_gguf(llama(), tmp_path / "m.gguf", tokenizer=small.tokenizer)


# --- with trained weights ---


def continued(model, ids, tokens):
    """Greedy continuation; and by how much the likeliest token was ahead of the next, at least."""
    new, cache, margin = list(ids), None, np.inf
    for _ in range(tokens):
        with torch.no_grad():
            out = model(torch.tensor([new[cache.get_seq_length() if cache else 0 :]]), past_key_values=cache)
        cache, (best, second) = out.past_key_values, out.logits[0, -1].topk(2).values
        new.append(int(out.logits[0, -1].argmax()))
        margin = min(margin, float(best - second))
    return new[len(ids) :], margin


def test_llama_cpp_continues_a_text_as_our_layers_do(language, tmp_path):
    pytest.importorskip("xllamacpp")
    from benchmarks.llama_cpp import LlamaCpp

    model = quantize_model(language.model, Q8)
    save_gguf(language.with_model(model), tmp_path / "m.gguf")
    prompt = "Photosynthesis is the process by which"
    ours, margin = continued(model, language.encode(prompt), tokens=6)
    assert margin > 0.1, "llama.cpp quantizes activations to 8 bits, and a closer choice could tip"
    assert LlamaCpp(tmp_path / "m.gguf", threads=1).write(6, prompt) == language.decode(ours)


@pytest.mark.parametrize("metadata", [{"general.alignment": 64}, {3: 1}])
def test_metadata_that_would_not_be_true_are_refused(metadata, tmp_path):
    with pytest.raises(ValueError, match="metadata has strings for keys"):
        save_gguf({"w": np.ones((2, 32))}, tmp_path / "x.gguf", metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def with_other_heads(model):
    model.config.num_attention_heads *= 2


def with_fewer_words(model):
    model.config.vocab_size = 5


def with_a_wider_block(model):
    model.model.layers[1].mlp.up_proj = nn.Linear(64, 160, bias=False)


@pytest.mark.parametrize("change", [with_other_heads, with_fewer_words, with_a_wider_block])
def test_tensors_that_do_not_fit_the_config_are_refused(change, tmp_path):
    model = llama()
    change(model)
    with pytest.raises(ValueError, match="by the config it should be"):
        save_gguf(model, tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []
