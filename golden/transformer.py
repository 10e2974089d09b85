"""Parts of transformers since Llama: rotary position embedding by Hugging Face's functions, gated activations, norms of sums, and Llama's block. f64."""

import os

import torch
import torch.nn.functional as F
from torch import nn

from common import F64, Group, Rng

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded
from transformers import LlamaConfig  # noqa: E402
from transformers.models.gptj import modeling_gptj as gptj  # noqa: E402
from transformers.models.llama import modeling_llama as llama  # noqa: E402

G = Group("transformer")


def tables(positions, dim, base):
    """Cosines and sines of the angles position · base^(−2i/dim): [..., dim/2]."""
    frequencies = base ** (-torch.arange(0, dim, 2, dtype=F64) / dim)
    angles = positions.to(F64)[..., None] * frequencies
    return angles.cos(), angles.sin()


def halves(x, cos, sin):
    """Llama's: x [B, H, T, D], tables [T, D/2] or [B, 1, T, D/2]."""
    cos, sin = (torch.cat((t, t), -1).reshape(-1, x.shape[2], x.shape[3]) for t in (cos, sin))
    return llama.apply_rotary_pos_emb(x, x, cos, sin)[0]


def interleaved(x, cos, sin):
    """GPT-J's, which has x as [B, T, H, D] and tables [1, T, D/2]."""
    return gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin[None], cos[None]).transpose(1, 2)


def first(turn):
    """Only the features that the tables are for are turned (GPT-NeoX's rotary_pct, GPT-J's rotary_dim)."""

    def partial(x, cos, sin):
        r = 2 * cos.shape[-1]
        return torch.cat((turn(x[..., :r], cos, sin), x[..., r:]), -1)

    return partial


def rope():
    def case(name, fn, positions, dim, pairs, base=10000.0):
        r = Rng(f"transformer/{name}")
        cos, sin = tables(positions, dim, base)
        if positions.dim() == 2:  # of each sequence
            cos, sin = cos[:, None], sin[:, None]
        inputs = {"x": r.normal(2, 3, 5, 8), "cos": cos, "sin": sin, "positions": positions}
        config = {"dim": dim, "base": base, "pairs": pairs}
        G.op(name, lambda x, cos, sin, positions, **_: fn(x, cos, sin), inputs, config, nograd=["cos", "sin"])

    case("rope_halves", halves, torch.arange(5), 8, "halves")
    case("rope_offset", halves, torch.arange(1000, 1005), 8, "halves", base=500000.0)
    case("rope_positions", halves, torch.tensor([[0, 1, 2, 3, 4], [0, 0, 7, 3, 1]]), 8, "halves")
    case("rope_partial", first(halves), torch.arange(5), 4, "halves")
    case("rope_interleaved", interleaved, torch.arange(5), 8, "interleaved")
    case("rope_interleaved_partial", first(interleaved), torch.arange(3, 8), 6, "interleaved")


def gated():
    activations = {
        "glu": torch.sigmoid,
        "reglu": F.relu,
        "geglu": F.gelu,
        "geglu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "swiglu": F.silu,
    }
    for name, f in activations.items():
        r = Rng(f"transformer/{name}")
        G.op(name, lambda gate, up, f=f: f(gate) * up, {"gate": r.away(2, 3, 5), "up": r.normal(2, 3, 5)})
    for name, act in {"gated_mlp_silu": "silu", "gated_mlp_gelu_tanh": "gelu_pytorch_tanh"}.items():
        r = Rng(f"transformer/{name}")
        config = LlamaConfig(hidden_size=6, num_attention_heads=2, intermediate_size=10, hidden_act=act, mlp_bias=act != "silu")
        module = llama.LlamaMLP(config).to(F64)
        r.randomise(module)
        G.module(name, module, {"input": r.normal(2, 5, 6)}, {"dim": 6, "hidden_dim": 10, "bias": config.mlp_bias})


def norms_of_sums():
    """A pre-norm transformer wants the sum with the residual too."""

    def add_rms_norm(x, residual, weight, eps):
        sum = x + residual
        return {"y": F.rms_norm(sum, [5], weight, eps), "sum": sum}

    def add_layer_norm(x, residual, weight, bias, eps):
        sum = x + residual
        return {"y": F.layer_norm(sum, [5], weight, bias, eps), "sum": sum}

    for fn in (add_rms_norm, add_layer_norm):
        r = Rng(f"transformer/{fn.__name__}")
        inputs = {"x": r.normal(2, 3, 5), "residual": r.normal(2, 3, 5), "weight": r.normal(5)}
        G.op(fn.__name__, fn, inputs | ({"bias": r.normal(5)} if fn is add_layer_norm else {}), {"eps": 1e-5})


def block():
    """Llama's decoder layer: two query heads for each head of keys. Its norms compute in f32, so PyTorch's take their place."""
    r = Rng("transformer/llama_block")
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa")
    module = llama.LlamaDecoderLayer(config, 0)
    module.input_layernorm = nn.RMSNorm(16, eps=1e-5)
    module.post_attention_layernorm = nn.RMSNorm(16, eps=1e-5)
    module = module.to(F64).eval()
    r.randomise(module)
    cos, sin = (torch.cat((t, t), -1)[None] for t in tables(torch.arange(7), 4, 10000.0))

    def forward(m, x):
        out = m(x, position_embeddings=(cos, sin))
        return out[0] if isinstance(out, tuple) else out

    G.module("llama_block", module, {"x": r.normal(2, 7, 16)}, {"dim": 16, "hidden_dim": 24, "heads": 4, "kv_heads": 2, "eps": 1e-5}, forward)


for make in (rope, gated, norms_of_sums, block):
    make()
G.save()
