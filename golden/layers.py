"""Layers: outputs, the gradients of every parameter and float input, and running statistics. f64, PyTorch's parameter names."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common import F64, Group, Rng

G = Group("layers")


def make(name, cls, *args, **kw):
    """A layer in f64 with every parameter randomised, and its generator."""
    r = Rng(f"layers/{name}")
    module = cls(*args, **kw).to(F64)
    r.randomise(module)
    return module, r


def simple():
    def layer(name, cls, config, *shape, train=True):
        module, r = make(name, cls, **config)
        module.train(train)
        G.module(name, module, {"input": r.normal(*shape)}, {"layer": cls.__name__} | config | {"training": train})

    layer("linear", nn.Linear, dict(in_features=4, out_features=6), 2, 5, 4)
    layer("linear_no_bias", nn.Linear, dict(in_features=4, out_features=6, bias=False), 3, 4)
    for name, padding_idx in {"embedding": None, "embedding_padding_idx": 2}.items():
        config = dict(num_embeddings=7, embedding_dim=4, padding_idx=padding_idx)
        module, _ = make(name, nn.Embedding, **config)
        tokens = torch.tensor([[1, 2, 2, 0, 6], [3, 1, 1, 5, 2]])
        G.module(name, module, {"input": tokens}, {"layer": "Embedding"} | config)
    layer("conv1d", nn.Conv1d, dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=1, groups=2), 3, 4, 9)
    layer("conv2d", nn.Conv2d, dict(in_channels=3, out_channels=4, kernel_size=[3, 2], stride=[2, 1], padding=[1, 2], dilation=[1, 2]), 2, 3, 6, 7)
    layer("conv2d_no_bias", nn.Conv2d, dict(in_channels=4, out_channels=6, kernel_size=3, groups=2, bias=False), 2, 4, 5, 6)
    config = dict(in_channels=4, out_channels=6, kernel_size=[3, 2], stride=[2, 3], padding=[1, 0], output_padding=[1, 2], groups=2)
    layer("conv_transpose2d", nn.ConvTranspose2d, config, 2, 4, 3, 5)

    bn = dict(num_features=3, eps=1e-4, momentum=0.2)
    for train in (True, False):
        mode = "train" if train else "eval"
        layer(f"batch_norm1d_{mode}", nn.BatchNorm1d, bn, 5, 3, train=train)
        layer(f"batch_norm1d_3d_{mode}", nn.BatchNorm1d, bn, 2, 3, 5, train=train)
        layer(f"batch_norm2d_{mode}", nn.BatchNorm2d, bn, 2, 3, 4, 5, train=train)
    layer("batch_norm2d_cumulative", nn.BatchNorm2d, bn | {"momentum": None}, 2, 3, 4, 5)
    layer("batch_norm2d_no_affine", nn.BatchNorm2d, bn | {"affine": False}, 2, 3, 4, 5)
    layer("batch_norm2d_no_running_eval", nn.BatchNorm2d, bn | {"track_running_stats": False}, 2, 3, 4, 5, train=False)
    layer("layer_norm", nn.LayerNorm, dict(normalized_shape=[6], eps=1e-4), 2, 5, 6)
    layer("layer_norm_two_dims", nn.LayerNorm, dict(normalized_shape=[5, 6]), 2, 5, 6)
    layer("layer_norm_no_bias", nn.LayerNorm, dict(normalized_shape=[6], bias=False), 2, 5, 6)
    layer("rms_norm", nn.RMSNorm, dict(normalized_shape=[6], eps=1e-5), 2, 5, 6)
    layer("group_norm", nn.GroupNorm, dict(num_groups=3, num_channels=6, eps=1e-4), 2, 6, 4, 5)


CAUSAL5 = torch.ones(5, 5, dtype=torch.bool).triu(1)  # true = may NOT attend, as in nn.MultiheadAttention


def padding(lengths, t):
    """Key padding mask: true = padding."""
    return torch.arange(t) >= torch.tensor(lengths)[:, None]


def multihead_attention():
    # batch 3, Tq 5, Tk 7, width 8, heads 2
    def mha(name, tk=5, kdim=None, self_attention=False, attn_mask=None, key_padding_mask=None, need_weights=True, average=True, **kw):
        config = dict(embed_dim=8, num_heads=2, batch_first=True) | kw
        if kdim:
            config |= dict(kdim=kdim, vdim=kdim - 1)
        module, r = make(name, nn.MultiheadAttention, **config)
        inputs = {"query": r.normal(3, 5, 8)}
        if not self_attention:
            inputs |= {"key": r.normal(3, tk, kdim or 8), "value": r.normal(3, tk, kdim - 1 if kdim else 8)}
        masks = {"attn_mask": attn_mask, "key_padding_mask": key_padding_mask}
        masks = {n: m for n, m in masks.items() if m is not None}

        def forward(m, query, key=None, value=None, **masks):
            key, value = (query, query) if key is None else (key, value)
            y, weights = m(query, key, value, need_weights=need_weights, average_attn_weights=average, **masks)
            return {"out": y, "weights": weights} if need_weights else {"out": y}

        more = dict(layer="MultiheadAttention", self_attention=self_attention, need_weights=need_weights, average_attn_weights=average)
        G.module(name, module, inputs | masks, config | more, forward, nograd=["attn_mask"])

    mha("mha_self", self_attention=True)
    mha("mha_self_no_weights", self_attention=True, need_weights=False)
    mha("mha_self_per_head_weights", self_attention=True, average=False)
    mha("mha_self_causal", self_attention=True, attn_mask=CAUSAL5)
    mha("mha_self_causal_no_weights", self_attention=True, attn_mask=CAUSAL5, need_weights=False)
    mha("mha_self_padding", self_attention=True, key_padding_mask=padding([4, 2, 5], 5))
    mha("mha_self_causal_padding_per_head", self_attention=True, attn_mask=CAUSAL5, key_padding_mask=padding([4, 2, 5], 5), average=False)
    mha("mha_cross", tk=7)
    mha("mha_cross_padding", tk=7, key_padding_mask=padding([7, 3, 6], 7))
    mha("mha_cross_additive_mask", tk=7, attn_mask=Rng("layers/mha/additive").normal(5, 7))
    mha("mha_cross_additive_mask_per_head", tk=7, attn_mask=Rng("layers/mha/additive6").normal(6, 5, 7), average=False)  # [B * heads, Tq, Tk]
    mha("mha_cross_other_widths", tk=7, kdim=6)  # separate q_proj_weight, k_proj_weight, v_proj_weight
    mha("mha_no_bias", tk=7, bias=False)


def transformer_layers():
    common = dict(d_model=8, nhead=2, dim_feedforward=12, dropout=0.0, batch_first=True)
    src_padding, tgt_padding = padding([7, 3, 6], 7), padding([4, 2, 5], 5)
    causal7 = torch.ones(7, 7, dtype=torch.bool).triu(1)
    for norm_first in (False, True):
        for activation in ("relu", "gelu"):
            tag = f"{'pre' if norm_first else 'post'}_norm_{activation}"
            config = common | dict(norm_first=norm_first, activation=activation)

            name = f"encoder_layer_{tag}"
            module, r = make(name, nn.TransformerEncoderLayer, **config)
            G.module(name, module, {"src": r.normal(3, 7, 8)}, {"layer": "TransformerEncoderLayer"} | config)
            name = f"encoder_layer_{tag}_causal_padding"
            module, r = make(name, nn.TransformerEncoderLayer, **config)
            forward = lambda m, src, src_mask, src_key_padding_mask: m(src, src_mask, src_key_padding_mask)  # noqa: E731
            inputs = {"src": r.normal(3, 7, 8), "src_mask": causal7, "src_key_padding_mask": src_padding}
            G.module(name, module, inputs, {"layer": "TransformerEncoderLayer"} | config, forward)

            name = f"decoder_layer_{tag}"
            module, r = make(name, nn.TransformerDecoderLayer, **config)
            inputs = {"tgt": r.normal(3, 5, 8), "memory": r.normal(3, 7, 8)}
            G.module(name, module, inputs, {"layer": "TransformerDecoderLayer"} | config)
            name = f"decoder_layer_{tag}_causal_padding"
            module, r = make(name, nn.TransformerDecoderLayer, **config)
            forward = lambda m, tgt, memory, **masks: m(tgt, memory, **masks)  # noqa: E731
            masks = {"tgt_mask": CAUSAL5, "tgt_key_padding_mask": tgt_padding, "memory_key_padding_mask": src_padding}
            inputs = {"tgt": r.normal(3, 5, 8), "memory": r.normal(3, 7, 8)} | masks
            G.module(name, module, inputs, {"layer": "TransformerDecoderLayer"} | config, forward)


def recurrent():
    # batch 3, time 5, input 4, hidden 6
    LENGTHS = torch.tensor([3, 5, 2])

    def run(m, input, h_0=None, c_0=None, lengths=None):
        lstm = isinstance(m, nn.LSTM)
        state = None if h_0 is None else ((h_0, c_0) if lstm else h_0)
        if lengths is None:
            out, state = m(input, state)
        else:
            time = 0 if not m.batch_first else 1
            packed = pack_padded_sequence(input, lengths, batch_first=m.batch_first, enforce_sorted=False)
            out, state = m(packed, state)
            out, _ = pad_packed_sequence(out, batch_first=m.batch_first, total_length=input.shape[time])
        h_n, c_n = state if lstm else (state, None)
        return {"out": out, "h_n": h_n} | ({"c_n": c_n} if lstm else {})

    def rnn(name, cls, state=False, packed=False, **kw):
        config = dict(input_size=4, hidden_size=6, num_layers=1, bidirectional=False, batch_first=True) | kw
        module, r = make(name, cls, **config)
        inputs = {"input": r.normal(3, 5, 4) if config["batch_first"] else r.normal(5, 3, 4)}
        if state:
            shape = (config["num_layers"] * (1 + config["bidirectional"]), 3, 6)
            inputs["h_0"] = r.normal(*shape)
            if cls is nn.LSTM:
                inputs["c_0"] = r.normal(*shape)
        if packed:
            inputs["lengths"] = LENGTHS
        G.module(name, module, inputs, {"layer": cls.__name__} | config, run)

    for cls in (nn.RNN, nn.LSTM, nn.GRU):
        kind = cls.__name__.lower()
        for layers in (1, 2):
            for both in (False, True):
                tag = f"{kind}_{layers}_layer_{'bi' if both else 'uni'}"
                shape = dict(num_layers=layers, bidirectional=both)
                rnn(f"{tag}_state", cls, state=True, **shape)
                rnn(f"{tag}_state_packed", cls, state=True, packed=True, **shape)
        rnn(f"{kind}_zero_state", cls)
        rnn(f"{kind}_zero_state_packed", cls, packed=True, bidirectional=True)
        rnn(f"{kind}_no_bias", cls, state=True, bias=False)
        rnn(f"{kind}_time_first", cls, state=True, batch_first=False, num_layers=2, bidirectional=True)
    rnn("rnn_relu", nn.RNN, state=True, nonlinearity="relu")


for make_cases in (simple, multihead_attention, transformer_layers, recurrent):
    make_cases()
G.save()
