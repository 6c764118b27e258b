"""MiniLM in float and quantized: time to encode 256 sentences, quality of the embeddings, and size of the model."""

import copy
from statistics import median
from time import perf_counter

import torch

FLOAT = "float32"


def table(count=256, repeats=5, progress=lambda rounds, title: rounds):
    """A row for each model: seconds, speed-up over float, mean cosine to float, retrieval@1, MB of weights."""
    from labutils import data, mean_cosine, retrieval_at_1
    from labutils.models.footprint import model_bytes

    encoders = candidates(data.sentence_encoder())
    sentences = data.calibration_sentences()[:count]
    questions, answers = zip(*data.questions()[:count])
    seconds = {name: [] for name in encoders}
    for _ in progress(range(repeats), "encoding"):
        for name, encoder in encoders.items():  # interleaved: A B C A B C ...
            start = perf_counter()
            encoder.encode(sentences)
            seconds[name].append(perf_counter() - start)
    exact = encoders[FLOAT].encode(sentences)
    rows = []
    for name, encoder in encoders.items():
        rows.append({
            "MiniLM": name,
            "seconds": median(seconds[name]),
            "times as fast": median(seconds[FLOAT]) / median(seconds[name]),
            "mean cosine": f"{mean_cosine(encoder.encode(sentences), exact):.4f}",
            "retrieval@1": f"{retrieval_at_1(encoder.encode(questions), encoder.encode(answers)) * len(questions):.0f} "
                           f"of {len(questions)}",
            "MB": "-" if name.startswith("torchao") else f"{model_bytes(encoder.model) / 1e6:.1f}",
        })  # fmt: skip
    return rows


def candidates(encoder):
    """name -> encoder, each with its own model."""
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
    models = {name: quantize_model(encoder.model, way) for name, way in ways.items()}
    return {FLOAT: encoder} | {
        name: encoder.with_model(model) for name, model in (models | {"torchao W8A8": by_torchao}).items()
    }


if __name__ == "__main__":
    from benchmarks.tables import markdown

    torch.set_num_threads(1)
    print(markdown(table()))
