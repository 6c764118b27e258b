"""How good a network still is: an encoder's embeddings, a language model's predictions."""

import lazy_loader

# Lazily: `embeddings` needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "embeddings": ["mean_cosine", "retrieval_at_1"],
        "language": ["continuation", "next_tokens", "perplexity"],
    },
)
