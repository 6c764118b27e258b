"""The language model in llama.cpp: GGUF files of other types made from the installed one, and their decoding speed.

llama.cpp comes with the PyPI package xllamacpp; where that is not installed, it takes no part.
"""

import importlib.util

KINDS = ("Q8_0", "Q4_0")


def is_installed():
    return importlib.util.find_spec("xllamacpp") is not None


def write(path, source, kind):
    """A copy of the GGUF file `source` in which the linear weights are of `kind`; the embedding stays in Q8_0."""
    import gguf

    reader, quantized = gguf.GGUFReader(source), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            of_items = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], of_items)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    for tensor in reader.tensors:
        if tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quants.quantize(floats, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A GGUF file in llama.cpp, on so many threads."""

    def __init__(self, path, threads):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(path), 512, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(params)

    def write(self, tokens, prompt="Once"):
        """The text of so many tokens, each the most likely one; the default prompt is one token, too."""
        asked = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        return self.server.handle_completions(asked)["choices"][0]["text"]
