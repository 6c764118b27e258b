"""Small models of the architectures that are met in practice, with random weights, and an input for each."""

import torch
from torch import nn

WIDTH, LAYERS, HEADS, VOCABULARY = 32, 2, 2, 64


def _tokens(*shape):
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(1))


def _common(**options):
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "vocab_size": VOCABULARY}
    return sizes | options


def _decoder(**options):
    return _common(intermediate_size=2 * WIDTH, num_key_value_heads=1, max_position_embeddings=32, **options)


def bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**_common(intermediate_size=2 * WIDTH))), {"input_ids": _tokens(2, 7)}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, vocab_size=VOCABULARY, n_positions=32)
    return GPT2LMHeadModel(config), {"input_ids": _tokens(2, 7)}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_decoder())), {"input_ids": _tokens(2, 7)}


def gemma():
    from transformers import GemmaConfig, GemmaForCausalLM

    return GemmaForCausalLM(GemmaConfig(head_dim=16, **_decoder())), {"input_ids": _tokens(2, 7)}


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(num_local_experts=4, **_decoder())
    return MixtralForCausalLM(config), {"input_ids": _tokens(4, 16)}


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=WIDTH, d_kv=16, d_ff=64, num_layers=LAYERS, num_heads=HEADS, vocab_size=VOCABULARY)
    return T5ForConditionalGeneration(config), {"input_ids": _tokens(2, 7), "decoder_input_ids": _tokens(2, 3)}


def vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=16, patch_size=4, intermediate_size=2 * WIDTH, **_common())
    return ViTModel(config), {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


def whisper():
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=VOCABULARY, num_mel_bins=8, max_source_positions=16,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    features = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(1))
    return WhisperModel(config), {"input_features": features, "decoder_input_ids": _tokens(2, 3)}


def torch_encoder():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS), {"src": torch.randn(2, 7, WIDTH)}


def torch_transformer():
    made = nn.Transformer(WIDTH, HEADS, 1, 1, 2 * WIDTH, batch_first=True)
    return made, {"src": torch.randn(2, 7, WIDTH), "tgt": torch.randn(2, 3, WIDTH)}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 10)

    def forward(self, x):
        return self.head(self.cells(x)[0])


def recurrent():
    return Recurrent(), {"x": torch.randn(2, 7, WIDTH)}


class SharedBlocks(nn.Module):
    """As ALBERT does: one block, run three times."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())] * 3)
        self.last = nn.Linear(WIDTH, WIDTH, bias=False)
        self.last.weight = self.blocks[0][0].weight

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def shared_blocks():
    return SharedBlocks(), {"x": torch.randn(2, 7, WIDTH)}


ARCHITECTURES = {
    "BERT": bert,
    "GPT-2": gpt2,
    "Llama": llama,
    "Gemma": gemma,
    "Mixtral": mixtral,
    "T5": t5,
    "ViT": vit,
    "Whisper": whisper,
    "nn.TransformerEncoder": torch_encoder,
    "nn.Transformer": torch_transformer,
    "LSTM": recurrent,
    "shared blocks": shared_blocks,
}


def build(name):
    """The model in eval mode, the same each time, and its inputs by keyword."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made, inputs = ARCHITECTURES[name]()
        return made.eval(), inputs


def output(made, inputs):
    """The model's first output."""
    with torch.no_grad():
        found = made(**inputs)
    return found if isinstance(found, torch.Tensor) else found[0]
