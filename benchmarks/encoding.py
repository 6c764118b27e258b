"""MiniLM in float and quantized: how fast 256 sentences are encoded, what is left of them, and what the model takes."""

import copy
from statistics import median
from time import perf_counter

import torch

FLOAT = "float32"


def table(count=256, repeats=5, progress=lambda rounds, title: rounds):
    """Rows: seconds, times as fast as float, mean cosine to float, retrieval@1 over all questions, MB held."""
    from labutils import data, mean_cosine, retrieval_at_1
    from labutils.models.conversion import model_bytes

    encoders = candidates(data.sentence_encoder())
    sentences = data.calibration_sentences()[:count]
    asked, answers = zip(*data.questions()[:count])
    seconds = {who: [] for who in encoders}
    for _ in progress(range(repeats), "encoding"):
        for who, encoder in encoders.items():  # A B C A B C ...
            start = perf_counter()
            encoder.encode(sentences)
            seconds[who].append(perf_counter() - start)
    exact = encoders[FLOAT].encode(sentences)
    rows = []
    for who, encoder in encoders.items():
        rows.append({
            "MiniLM": who,
            "seconds": median(seconds[who]),
            "times as fast": median(seconds[FLOAT]) / median(seconds[who]),
            "mean cosine": f"{mean_cosine(encoder.encode(sentences), exact):.4f}",
            "retrieval@1": f"{retrieval_at_1(encoder.encode(asked), encoder.encode(answers)) * len(asked):.0f} "
                           f"of {len(asked)}",
            "MB": "-" if who.startswith("torchao") else f"{model_bytes(encoder.model) / 1e6:.1f}",
        })  # fmt: skip
    return rows


def candidates(encoder):
    """who -> encoder, each with a model of its own."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
    from labutils.models.conversion import quantize_model
    from labutils.models.layers import Int8Linear

    by_torchao = copy.deepcopy(encoder.model)
    quantize_(by_torchao, Int8DynamicActivationInt8WeightConfig())
    ways = {
        "labutils W8A8": Int8Linear,
        "labutils int8 weights": Scheme(8, granularity=PerAxis(0)),
        "labutils int4 weights, g32": Scheme(4, symmetric=False, granularity=PerGroup(32)),
    }
    models = {who: quantize_model(encoder.model, way) for who, way in ways.items()}
    return {FLOAT: encoder} | {
        who: encoder.with_model(model) for who, model in (models | {"torchao W8A8": by_torchao}).items()
    }


if __name__ == "__main__":
    from benchmarks.tables import markdown

    torch.set_num_threads(1)
    print(markdown(table()))
