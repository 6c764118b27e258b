"""A GGUF file in llama.cpp.

llama.cpp comes with the PyPI package xllamacpp; where that is not installed, it takes no part.
"""

import importlib.util

KINDS = ("Q8_0", "Q4_0")


def is_installed():
    return importlib.util.find_spec("xllamacpp") is not None


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
