"""Quantization labs: the functions, checks and explorers that the notebooks are built on.

>>> from labutils import check, explore_bits

Importing is light: each name is loaded when it is first used, and labs 00 to 04 run where torch is not installed. Six
rooms, from the ground up: arrays, data, models, formats, course, labs. A room imports only from those before it.
"""

import lazy_loader

from labutils.labs.catalogue import EXPLORERS

ROOMS = ("arrays", "data", "models", "formats", "course", "labs")  # from the ground up

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=ROOMS,
    submod_attrs={
        "arrays": ["calibration", "packing", "theory"],
        "arrays.affine": ["choose_qparams", "dequantize", "fake_quantize", "qparams_of_range", "quantize"],
        "arrays.block_formats": ["FP8", "MXFP4", "MXFP8", "NVFP4"],
        "arrays.codebooks": ["kmeans_codebook"],
        "arrays.grids": ["E2M1", "E4M3", "E5M2", "E8M0", "NF4", "Codebook", "FloatGrid", "Integers"],
        "arrays.metrics": ["quantization_error", "sqnr_db"],
        "arrays.scheme": ["PerAxis", "PerGroup", "PerTensor", "Scheme"],
        "course": ["doctor", "palette"],
        "course.predict": ["predict"],
        "course.report": ["CheckFailed"],
        "course.report_card": ["file_report_card", "report_card"],
        "formats": ["quantize_shards", "save_compressed_tensors", "save_gguf"],
        "labs": ["answers"],
        "labs.board": ["board"],
        "labs.check": ["check", "examine", "or_reference"],
        "models": ["kernels", "outliers", "training"],
        "models.evaluation": ["mean_cosine", "retrieval_at_1"],
    }
    | {f"labs.{file}": [name] for name, file in EXPLORERS.items()},
)
