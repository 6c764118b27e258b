"""Folders that are written here are loaded by transformers with compressed-tensors, and compute the same."""

import json
import os
import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
library = pytest.importorskip("compressed_tensors")

from safetensors import safe_open
from torch import nn

from labutils import FP8, MXFP4, MXFP8, NF4, NVFP4, PerAxis, PerGroup, Scheme, save_compressed_tensors
from labutils.formats import quantization_config
from labutils.models import Int8Linear, QuantizedLinear, quantize_model
from tests.formats.examples import IDS, bert, full_disk, llama, outputs

pytestmark = [
    pytest.mark.filterwarnings("ignore::labutils.models.LeftInFloatWarning"),
    pytest.mark.filterwarnings("ignore:.*are both set.*"),
]

W4, W4_ZEROS, W8 = (
    Scheme(4, granularity=PerGroup(32)),
    Scheme(4, False, PerGroup(32)),
    Scheme(8, granularity=PerAxis(0)),
)
# Of the largest output: sums of 64 to 128 products in another order, through 2 layers, in units of 2^-24 and 2^-9.
FLOAT32, BFLOAT16 = 1e-5, 2.0**-6


def load(folder, kind="AutoModel", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, kind).from_pretrained(folder, **options)


def dequantizing():
    return transformers.CompressedTensorsConfig(dequantize=True)


def tensors_in(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def same_weights(quantized, loaded):
    """Whether each linear layer of a loaded model, once it has run, has the numbers of ours."""
    modules = dict(loaded.named_modules())
    ours = {name: layer for name, layer in quantized.named_modules() if hasattr(layer, "quantized")}
    return bool(ours) and all(torch.equal(modules[name].weight.float(), ours[name].weight) for name in ours)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# --- what transformers loads is what was quantized ---


@pytest.mark.parametrize("scheme", [W4, Scheme(3, granularity=PerAxis(0)), W8, Scheme(8), FP8], ids=repr)
def test_a_bert_is_loaded_with_the_weights_that_it_had(scheme, tmp_path):
    model = quantize_model(bert(add_pooling_layer=False), scheme)
    assert save_compressed_tensors(model, tmp_path) == {}
    loaded = load(tmp_path, add_pooling_layer=False)
    # PackedLinear multiplies in bfloat16 where torch's kernel does
    tolerance = FLOAT32 if scheme.num_bits == 8 else BFLOAT16
    assert relative(outputs(loaded), outputs(model)) <= tolerance
    assert same_weights(model, loaded)


def test_w8a8_quantizes_activations_as_our_layers_do(tmp_path):
    model = quantize_model(bert(add_pooling_layer=False), Int8Linear)
    save_compressed_tensors(model, tmp_path)
    assert config_of(tmp_path)["quantization_config"]["format"] == "int-quantized"
    loaded = load(tmp_path, add_pooling_layer=False)
    assert relative(outputs(loaded), outputs(model)) <= FLOAT32
    assert same_weights(model, loaded)
    float_weights = quantize_model(bert(add_pooling_layer=False), W8)
    assert relative(outputs(loaded), outputs(float_weights)) > 100 * FLOAT32, "the activations are quantized"


def test_a_symmetric_scale_of_the_library_would_give_others(tmp_path):
    """max|x| / 127.5 for codes -128 to 127: what it does with the same file if "symmetric" stands there."""
    model = quantize_model(bert(add_pooling_layer=False), Int8Linear)
    save_compressed_tensors(model, tmp_path)
    config = config_of(tmp_path)
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"]["symmetric"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(tmp_path, add_pooling_layer=False)
    assert relative(outputs(loaded), outputs(model)) > 100 * FLOAT32
    layer = loaded.encoder.layer[0].attention.self.query
    x = torch.linspace(-1, 0.9, 64).reshape(1, 1, 64)
    steps = (x / (1 / 127.5)).round().clamp(-128, 127)
    assert torch.allclose(layer(x), nn.functional.linear(steps / 127.5, layer.weight, layer.bias), atol=1e-5)


def test_of_inputs_with_two_axes_the_library_makes_one_slice(tmp_path):
    """BERT's pooler sees (batch, features): one scale for the batch there, one for each row here."""
    model = quantize_model(bert(), Int8Linear)
    save_compressed_tensors(model, tmp_path)
    loaded = load(tmp_path)
    outputs(loaded)  # what dequantizes the weights
    theirs, ours = loaded.pooler.dense, model.pooler.dense
    rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [0.01]])
    assert torch.allclose(theirs(rows[:, None])[:, 0], ours(rows), atol=1e-5)
    assert not torch.allclose(theirs(rows), ours(rows), atol=1e-3)


@pytest.mark.parametrize("scheme", [W4_ZEROS, Scheme(3, False, PerAxis(0)), Scheme(8, False, PerAxis(0))], ids=repr)
def test_zero_points_are_read_by_dequantizing_at_once(scheme, tmp_path):
    model = quantize_model(llama(), scheme)
    save_compressed_tensors(model, tmp_path)
    loaded = load(tmp_path, "AutoModelForCausalLM", quantization_config=dequantizing())
    assert same_weights(model, loaded)
    assert relative(outputs(loaded), outputs(model)) <= BFLOAT16


@pytest.mark.parametrize("scheme", [MXFP4, MXFP8], ids=["MXFP4", "MXFP8"])
def test_mx_formats_keep_every_number(scheme, tmp_path):
    model = quantize_model(llama(), scheme)
    save_compressed_tensors(model, tmp_path)
    loaded = load(tmp_path, "AutoModelForCausalLM", quantization_config=dequantizing())
    assert same_weights(model, loaded)
    assert relative(outputs(loaded), outputs(model)) <= FLOAT32


@pytest.mark.parametrize("scheme", [MXFP4, MXFP8, NVFP4], ids=["MXFP4", "MXFP8", "NVFP4"])
def test_block_formats_are_loaded_in_bfloat16(scheme, tmp_path):
    model = quantize_model(llama(), scheme)
    save_compressed_tensors(model, tmp_path)
    loaded = load(tmp_path, "AutoModelForCausalLM", dtype=torch.bfloat16)
    assert relative(outputs(loaded).float(), outputs(model)) <= BFLOAT16


def test_layers_of_several_schemes_are_each_stored_in_their_own(tmp_path):
    rules = {
        "*.query": W8,
        "*.key": Int8Linear,
        "*.value": None,
        "*.intermediate.*": Scheme(4, granularity=PerGroup(16)),
    }
    model = quantize_model(bert(add_pooling_layer=False), W4, rules=rules)
    save_compressed_tensors(model, tmp_path)
    config = config_of(tmp_path)["quantization_config"]
    assert config["format"] == "mixed-precision"
    assert len(config["config_groups"]) == 4
    loaded = load(tmp_path, add_pooling_layer=False)
    assert relative(outputs(loaded), outputs(model)) <= BFLOAT16
    assert same_weights(model, loaded)


def test_16_bit_models_stay_in_16_bits(tmp_path):
    model = quantize_model(llama().bfloat16(), W8)
    save_compressed_tensors(model, tmp_path)
    assert config_of(tmp_path)["dtype"] == "bfloat16"
    assert relative(outputs(load(tmp_path, "AutoModelForCausalLM")), outputs(model)) <= BFLOAT16


# --- what is in the folder ---


def test_layers_left_in_float_are_ignored_and_the_reason_is_kept(tmp_path):
    model = quantize_model(bert(transformers.BertForMaskedLM), W4, skip=["*.query"])
    tied = "its weight is also that of bert.embeddings.word_embeddings (Embedding)"
    left = save_compressed_tensors(model, tmp_path)
    assert left.pop("cls.predictions.decoder") == tied
    assert left == dict.fromkeys(
        [f"bert.encoder.layer.{i}.attention.self.query" for i in (0, 1)], "left in float on purpose"
    )
    tensors, metadata = tensors_in(tmp_path)
    assert json.loads(metadata["left_in_float"])["cls.predictions.decoder"] == tied
    ignored = config_of(tmp_path)["quantization_config"]["ignore"]
    assert sorted(ignored) == sorted([*left, "cls.predictions.decoder"])
    assert all(f"{name}.weight_packed" not in tensors for name in ignored)


def test_tied_weights_are_written_once(tmp_path):
    model = quantize_model(llama(tie_word_embeddings=True), W4)
    save_compressed_tensors(model, tmp_path)
    tensors, _ = tensors_in(tmp_path)
    assert "model.embed_tokens.weight" in tensors
    assert "lm_head.weight" not in tensors
    loaded = load(tmp_path, "AutoModelForCausalLM")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert relative(outputs(loaded), outputs(model)) <= BFLOAT16


def test_a_quantized_head_has_codes_beside_the_float_embedding(tmp_path):
    model = quantize_model(llama(tie_word_embeddings=True), W8, rules={"lm_head": W8})
    assert save_compressed_tensors(model, tmp_path) == {}
    assert config_of(tmp_path)["tie_word_embeddings"] is False
    loaded = load(tmp_path, "AutoModelForCausalLM")
    assert relative(outputs(loaded), outputs(model)) <= FLOAT32
    assert same_weights(model, loaded)


def test_a_folder_takes_the_bits_that_were_counted(tmp_path):
    """4 bits a code and 16 a scale of 32; in 32 codes of 4 bits there is no gap between words."""
    model = quantize_model(bert(add_pooling_layer=False), W4)
    save_compressed_tensors(model, tmp_path)
    tensors, _ = tensors_in(tmp_path)
    stored = sum(t.nbytes for name, t in tensors.items() if name.endswith(("weight_packed", "weight_scale")))
    weights = sum(layer.in_features * layer.out_features for layer in model.modules() if hasattr(layer, "quantized"))
    assert stored * 8 == weights * 4.5


def test_other_files_stay_and_the_folder_can_be_written_again(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for scheme in (W8, W4):
        save_compressed_tensors(quantize_model(bert(), scheme), tmp_path / ".")
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert "encoder.layer.0.attention.self.query.weight_packed" in tensors_in(tmp_path)[0]


def test_the_model_stays_as_it_is(tmp_path):
    model = quantize_model(llama(tie_word_embeddings=True), W4)
    before, config = {k: v.clone() for k, v in model.state_dict().items()}, model.config.to_dict()
    save_compressed_tensors(model, tmp_path)
    assert model.config.to_dict() == config
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_configuration_is_what_the_library_understands():
    config = quantization_config({"query": W4, "key": W8, "head": None}, int8_inputs=["key"])
    parsed = library.quantization.QuantizationConfig.model_validate(config)
    assert parsed.config_groups["group_0"].weights.group_size == 32
    assert parsed.config_groups["group_1"].input_activations.dynamic is True
    assert parsed.config_groups["group_1"].targets == ["key"]
    assert parsed.ignore == ["head"]


# --- what goes wrong ---


def test_a_full_disk_leaves_what_was_there(tmp_path):
    model = quantize_model(bert(), W8)
    save_compressed_tensors(model, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(Exception, match="(?i)file too large|os error"), full_disk(at=20_000):
        save_compressed_tensors(quantize_model(bert(), W4), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(Exception, match="(?i)file too large|os error"), full_disk(at=20_000):
        save_compressed_tensors(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Behind(nn.Sequential):
    """A layer behind a division, as smoothing leaves it: transformers has no place for it."""


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: bert(), ValueError, "BertModel has no quantized layer"),
        (lambda: nn.Sequential(QuantizedLinear(nn.Linear(4, 4))), TypeError, "one of transformers, .* got Sequential"),
        (lambda: "a folder", TypeError, "got str"),
        (lambda: quantize_model(bert(), Scheme(12)), ValueError, "2 to 8 bits, got 12"),
        (lambda: quantize_model(bert(), Scheme(grid=NF4)), ValueError, r"attention\.output\.dense: .* nothing for"),
        (lambda: quantize_model(bert(), Scheme(4, granularity=PerGroup(48))), ValueError, "query: .*not divide"),
        (
            lambda: quantize_model(bert(), lambda linear: Behind(nn.Identity(), QuantizedLinear(linear))),
            ValueError,
            r"query\.1 is no nn.Linear in BertModel|dense\.1 is no nn.Linear in BertModel",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_a_file_is_there(make, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        save_compressed_tensors(make(), tmp_path / "new")
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError):
        save_compressed_tensors(quantize_model(bert(), W8), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("schemes", "inputs", "error", "sentence"),
    [
        ({"a": None}, [], ValueError, "nothing quantized"),
        ({"a": 4}, [], TypeError, "a: expected a Scheme, or None for float, got 4"),
        ({"a": W8, "b": None}, ["b"], ValueError, "b has 8-bit inputs, but no quantized weight"),
        ({"a": Scheme(4, granularity=PerAxis(1))}, [], ValueError, "a: .* per output"),
    ],
)
def test_a_configuration_of_nothing_is_refused(schemes, inputs, error, sentence):
    with pytest.raises(error, match=sentence):
        quantization_config(schemes, inputs)


# --- with trained weights ---


def test_minilm_is_loaded_from_4_bit_groups(trained, tmp_path):
    model = quantize_model(trained.model, W4)
    save_compressed_tensors(model, tmp_path)
    loaded = load(tmp_path, add_pooling_layer=False)
    assert relative(outputs(loaded, IDS + 1000), outputs(model, IDS + 1000)) <= BFLOAT16
    assert same_weights(model, loaded)


def test_w8a8_of_minilm_is_the_same_layer_by_layer(trained, tmp_path):
    model = quantize_model(trained.model, Int8Linear)
    save_compressed_tensors(model, tmp_path)
    loaded, seen = load(tmp_path, add_pooling_layer=False), {}
    outputs(loaded)  # what dequantizes the weights
    for name, layer in model.named_modules():
        if isinstance(layer, Int8Linear):
            layer.register_forward_hook(lambda _, args, y, name=name: seen.update({name: (args[0], y)}))
    outputs(model, IDS + 1000)
    errors = []
    for name, (x, y) in seen.items():
        theirs = loaded.get_submodule(name)(x)
        errors.append(((theirs - y).abs().amax(-1) / y.abs().amax(-1)).flatten())
    off = float((torch.cat(errors) > FLOAT32).double().mean())
    # x / scale, of 64 steps on average, is rounded by 2^-18 of a step: of 1536 in a row, none is so near to a half in
    # 97 rows of 100 and more.
    assert len(seen) == 36
    assert off < 0.03


def test_a_folder_with_another_checkpoints_index_is_refused(tmp_path):
    llama().save_pretrained(tmp_path, max_shard_size="50KB")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="an index of another checkpoint"):
        save_compressed_tensors(quantize_model(llama(), W4), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("other", [W4, W8, Scheme(8, False, PerGroup(32))], ids=repr)
def test_zero_points_beside_another_scheme_are_refused(other, tmp_path):
    """With dequantize=True, which zero points need, the library takes all layers for the first scheme."""
    model = quantize_model(llama(), W4_ZEROS, rules={"*k_proj": other})
    with pytest.raises(ValueError, match="has zero points"):
        save_compressed_tensors(model, tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_how_a_model_writes_text_comes_back(tmp_path):
    model = quantize_model(llama(), W4)
    model.generation_config.eos_token_id = [5, 7]
    save_compressed_tensors(model, tmp_path)
    assert load(tmp_path, "LlamaForCausalLM").generation_config.eos_token_id == [5, 7]


def without_a_block(model):
    del model.model.layers[1]


def without_a_module(model):
    model.model.layers[1].mlp = nn.Identity()


@pytest.mark.parametrize("change", [without_a_block, without_a_module])
def test_a_model_without_what_its_config_promises_is_refused(change, tmp_path):
    model = llama()
    change(model)
    with pytest.raises(ValueError, match=r"model\.layers\.1\..* is missing: transformers would make it up"):
        save_compressed_tensors(quantize_model(model, W4), tmp_path / "less")
    assert not (tmp_path / "less").exists()
