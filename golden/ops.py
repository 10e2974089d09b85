"""Functional ops: forward, and the gradient of every float input. f64.

Every tensor argument is an `input.*` named as in torch (running statistics are `buffer.*`); the rest of the call is in the config.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from common import Group, Rng

G = Group("ops")


def elementwise():
    def unary(name, fn, x=None, **config):
        r = Rng(f"ops/{name}")
        G.op(name, fn, {"input": r.normal(3, 5) if x is None else x(r)}, config)

    away = lambda r: r.away(3, 5)  # noqa: E731
    positive = lambda r: r.uniform(3, 5, low=0.2, high=3.0)  # noqa: E731
    wide = lambda r: r.away(4, 5) * 4  # noqa: E731

    unary("gelu_exact", F.gelu, wide, approximate="none")
    unary("gelu_tanh", F.gelu, wide, approximate="tanh")
    unary("silu", F.silu, wide)
    unary("softplus", F.softplus)
    unary("softplus_beta", F.softplus, wide, beta=2.5, threshold=6.0)  # linear above the threshold
    unary("elu", F.elu, away)
    unary("elu_alpha", F.elu, away, alpha=0.7)
    unary("leaky_relu", F.leaky_relu, away)
    unary("leaky_relu_slope", F.leaky_relu, away, negative_slope=0.2)
    unary("relu", F.relu, away)
    unary("sigmoid", torch.sigmoid, wide)
    unary("logsigmoid", F.logsigmoid, wide)
    unary("tanh", torch.tanh)
    unary("erf", torch.erf)
    unary("expm1", torch.expm1)
    unary("expm1_small", torch.expm1, lambda r: r.normal(3, 5, std=1e-6))
    unary("log1p", torch.log1p, lambda r: r.uniform(3, 5, low=-0.7, high=3.0))
    unary("log1p_small", torch.log1p, lambda r: r.normal(3, 5, std=1e-6))
    unary("exp", torch.exp)
    unary("log", torch.log, positive)
    unary("sqrt", torch.sqrt, positive)
    unary("rsqrt", torch.rsqrt, positive)
    unary("sin", torch.sin)
    unary("cos", torch.cos)
    unary("abs", torch.abs, away)
    unary("clamp", torch.clamp, lambda r: r.distinct(3, 5), min=-0.8, max=1.1)
    unary("pow_scalar", lambda input, exponent: input.pow(exponent), positive, exponent=2.7)
    unary("pow_negative_base", lambda input, exponent: input.pow(exponent), away, exponent=3.0)

    r = Rng("ops/binary")
    broadcast = lambda: (r.normal(3, 1, 5), r.normal(4, 1))  # noqa: E731
    for name, fn in {"add": torch.add, "sub": torch.sub, "mul": torch.mul}.items():
        a, b = broadcast()
        G.op(f"{name}_broadcast", fn, {"input": a, "other": b})
    G.op("div_broadcast", torch.div, {"input": r.normal(3, 1, 5), "other": r.away(4, 1, gap=0.4)})
    G.op("pow_broadcast", torch.pow, {"input": r.uniform(3, 1, 5, low=0.3, high=2), "exponent": r.normal(4, 1)})
    G.op("maximum_broadcast", torch.maximum, {"input": r.distinct(3, 1, 5), "other": r.normal(4, 1)})
    G.op("minimum_broadcast", torch.minimum, {"input": r.distinct(3, 1, 5), "other": r.normal(4, 1)})
    G.op("where_broadcast", torch.where, {"condition": r.bool(4, 5), "input": r.normal(3, 1, 5), "other": r.normal(4, 1)})


def softmaxes():
    for fn in (F.softmax, F.log_softmax):
        for dim in (-1, 1):
            r = Rng(f"ops/{fn.__name__}{dim}")
            G.op(f"{fn.__name__}_dim{dim}".replace("-1", "_last"), fn, {"input": r.normal(2, 3, 5, std=2)}, {"dim": dim})
    # far apart: the naive formula overflows
    x = torch.tensor([[800.0, 801.5, 799.0], [-900.0, 3.0, 2.0]], dtype=torch.float64)
    G.op("softmax_large", F.softmax, {"input": x}, {"dim": -1})
    G.op("log_softmax_large", F.log_softmax, {"input": x}, {"dim": -1})


def norms():
    r = Rng("ops/norms")
    x, w, b = r.normal(2, 3, 5), r.normal(5), r.normal(5)
    G.op("layer_norm", F.layer_norm, {"input": x, "weight": w, "bias": b}, {"normalized_shape": [5]})
    G.op("layer_norm_no_affine", F.layer_norm, {"input": x}, {"normalized_shape": [5], "eps": 1e-3})
    G.op("layer_norm_two_dims", F.layer_norm, {"input": x, "weight": r.normal(3, 5), "bias": r.normal(3, 5)}, {"normalized_shape": [3, 5]})
    G.op("rms_norm", F.rms_norm, {"input": x, "weight": w}, {"normalized_shape": [5], "eps": 1e-5})
    G.op("rms_norm_no_affine", F.rms_norm, {"input": x}, {"normalized_shape": [5], "eps": 1e-3})

    def stats(c):
        return {"running_mean": r.normal(c), "running_var": r.uniform(c, low=0.5, high=2)}

    affine = {"weight": r.normal(3), "bias": r.normal(3)}
    for name, x in {"2d": r.normal(4, 3), "3d": r.normal(2, 3, 5), "4d": r.normal(2, 3, 4, 5)}.items():
        for training in (True, False):
            config = {"training": training, "momentum": 0.2, "eps": 1e-4}
            G.op(f"batch_norm_{name}_{'train' if training else 'eval'}", F.batch_norm, {"input": x} | affine, config, buffers=stats(3))
    G.op("batch_norm_no_affine_train", F.batch_norm, {"input": r.normal(2, 3, 5)}, {"training": True}, buffers=stats(3))

    x = r.normal(2, 6, 4, 5)
    G.op("group_norm", F.group_norm, {"input": x, "weight": r.normal(6), "bias": r.normal(6)}, {"num_groups": 3})
    G.op("group_norm_no_affine", F.group_norm, {"input": r.normal(2, 6, 5)}, {"num_groups": 2, "eps": 1e-3})


def classification_losses():
    r = Rng("ops/classification")
    for reduction in ("mean", "sum", "none"):
        config = {"reduction": reduction}
        x, t = r.normal(6, 4), torch.tensor([3, 0, 2, 1, 1, 0])
        ignored = t.clone()
        ignored[[1, 4]] = -100
        ignored2 = t.clone()
        ignored2[[0, 3]] = 2
        w = r.uniform(4, low=0.3, high=2)
        ce = lambda name, inputs, nograd=(), **more: G.op(  # noqa: E731
            f"cross_entropy_{name}_{reduction}", F.cross_entropy, inputs, config | more, nograd
        )
        ce("plain", {"input": x, "target": t})
        ce("weight", {"input": x, "target": t, "weight": w}, ["weight"])
        ce("ignore_default", {"input": x, "target": ignored})
        ce("ignore_2", {"input": x, "target": ignored2}, ignore_index=2)
        ce("smooth", {"input": x, "target": t}, label_smoothing=0.1)
        ce("weight_ignore_smooth", {"input": x, "target": ignored, "weight": w}, ["weight"], label_smoothing=0.2)
        ce("positions", {"input": r.normal(2, 4, 5), "target": r.int(4, 2, 5)})  # classes in dimension 1
        probs = F.softmax(r.normal(6, 4), -1)
        ce("probs", {"input": x, "target": probs}, ["target"])
        ce("probs_weight_smooth", {"input": x, "target": probs, "weight": w}, ["target", "weight"], label_smoothing=0.2)
        logp = F.log_softmax(r.normal(6, 4), -1)
        G.op(f"nll_{reduction}", F.nll_loss, {"input": logp, "target": t}, config)
        G.op(f"nll_weight_ignore_{reduction}", F.nll_loss, {"input": logp, "target": ignored, "weight": w}, config, ["weight"])
        p, y = r.uniform(3, 5, low=0.05, high=0.95), r.uniform(3, 5)
        fixed = ["target", "weight", "pos_weight"]
        G.op(f"bce_{reduction}", F.binary_cross_entropy, {"input": p, "target": y}, config, fixed)
        G.op(f"bce_weight_{reduction}", F.binary_cross_entropy, {"input": p, "target": y, "weight": r.uniform(3, 5)}, config, fixed)
        logits, y = r.normal(3, 5, std=3), r.bool(3, 5).double()
        bce = F.binary_cross_entropy_with_logits
        G.op(f"bce_logits_{reduction}", bce, {"input": logits, "target": y}, config, fixed)
        G.op(f"bce_logits_pos_weight_{reduction}", bce, {"input": logits, "target": y, "pos_weight": r.uniform(5, low=0.5, high=3)}, config, fixed)
        G.op(f"bce_logits_weight_{reduction}", bce, {"input": logits, "target": y, "weight": r.uniform(3, 5)}, config, fixed)


def redraw(draw, hinge):
    """Draws until the hinge's argument has both signs and keeps away from its kink."""
    while True:
        xs = draw()
        h = hinge(*xs)
        if (h > 0).any() and (h < 0).any() and h.abs().min() > 0.02:
            return xs


def regression_losses():
    r = Rng("ops/regression")
    for reduction in ("mean", "sum", "none"):
        config = {"reduction": reduction}
        target = r.normal(3, 5)
        pair = {"input": target + r.away(3, 5, gap=0.05), "target": target}
        G.op(f"mse_{reduction}", F.mse_loss, pair, config)
        G.op(f"l1_{reduction}", F.l1_loss, pair, config)
        G.op(f"smooth_l1_{reduction}", F.smooth_l1_loss, pair, config | {"beta": 0.7})
        G.op(f"huber_{reduction}", F.huber_loss, pair, config | {"delta": 0.7})
        y = torch.tensor([1.0, -1, 1, -1, -1, 1], dtype=torch.float64)
        x1, x2 = redraw(lambda: (r.normal(6, 5), r.normal(6, 5)), lambda x1, x2: (F.cosine_similarity(x1, x2) - 0.1)[y < 0])
        G.op(f"cosine_embedding_{reduction}", F.cosine_embedding_loss, {"input1": x1, "input2": x2, "target": y}, config | {"margin": 0.1}, ["target"])
        for name, power in {"": 2.0, "_p1": 1.0}.items():
            a, p, n = redraw(
                lambda: (r.normal(6, 5), r.normal(6, 5), r.normal(6, 5)),
                lambda a, p, n: F.pairwise_distance(a, p, power) - F.pairwise_distance(a, n, power) + 0.8,
            )
            triplet = {"anchor": a, "positive": p, "negative": n}
            G.op(f"triplet_margin{name}_{reduction}", F.triplet_margin_loss, triplet, config | {"margin": 0.8, "p": power})
        x, y = redraw(lambda: (r.normal(3, 5), r.signs(3, 5)), lambda x, y: (1.2 - x)[y < 0])
        G.op(f"hinge_embedding_{reduction}", F.hinge_embedding_loss, {"input": x, "target": y}, config | {"margin": 1.2}, ["target"])
        x1, x2, y = redraw(lambda: (r.normal(7), r.normal(7), r.signs(7)), lambda x1, x2, y: -y * (x1 - x2) + 0.3)
        G.op(f"margin_ranking_{reduction}", F.margin_ranking_loss, {"input1": x1, "input2": x2, "target": y}, config | {"margin": 0.3}, ["target"])
    for reduction in ("mean", "sum", "none", "batchmean"):
        logp, q = F.log_softmax(r.normal(3, 5), -1), F.softmax(r.normal(3, 5), -1)
        G.op(f"kl_div_{reduction}", F.kl_div, {"input": logp, "target": q}, {"reduction": reduction, "log_target": False})
        G.op(f"kl_div_log_target_{reduction}", F.kl_div, {"input": logp, "target": q.log()}, {"reduction": reduction, "log_target": True})
    G.op("cosine_similarity", F.cosine_similarity, {"x1": r.normal(3, 5), "x2": r.normal(3, 5)}, {"dim": 1})


def attention():
    def sdpa(attn_mask=None, **kw):
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(kw.pop("query"), kw.pop("key"), kw.pop("value"), attn_mask, **kw)

    r = Rng("ops/attention")
    # batch 2, heads 3, Tq 5, Tk 7, head dimension 4, value dimension 6
    qkv = lambda tq=5, tk=7, kv_heads=3, h=3: {  # noqa: E731
        "query": r.normal(2, h, tq, 4), "key": r.normal(2, kv_heads, tk, 4), "value": r.normal(2, kv_heads, tk, 6)}
    G.op("sdpa_plain", sdpa, qkv(tk=5))
    G.op("sdpa_tq_ne_tk", sdpa, qkv())
    G.op("sdpa_scale", sdpa, qkv(), {"scale": 0.3})
    G.op("sdpa_causal", sdpa, qkv(tk=5), {"is_causal": True})
    # PyTorch aligns the causal triangle to the top left: query i sees keys 0..=i whatever Tq and Tk are
    G.op("sdpa_causal_top_left_tq_lt_tk", sdpa, qkv(5, 7), {"is_causal": True})
    G.op("sdpa_causal_top_left_tq_gt_tk", sdpa, qkv(7, 5), {"is_causal": True})
    mask = r.bool(2, 1, 5, 7)
    mask[..., 0] = True
    G.op("sdpa_bool_mask", sdpa, qkv() | {"attn_mask": mask})  # true = may attend
    G.op("sdpa_bool_mask_2d", sdpa, qkv() | {"attn_mask": mask[0, 0]})
    empty = mask.clone()
    empty[1, 0, 2] = False  # a query that may attend to nothing: its output is 0
    G.op("sdpa_bool_mask_empty_row", sdpa, qkv() | {"attn_mask": empty})
    G.op("sdpa_additive_mask", sdpa, qkv() | {"attn_mask": r.normal(3, 5, 7)})
    G.op("sdpa_additive_mask_inf", sdpa, qkv() | {"attn_mask": torch.where(mask, 0.0, -torch.inf).double()}, nograd=["attn_mask"])
    G.op("sdpa_gqa", sdpa, qkv(kv_heads=2, h=6), {"enable_gqa": True})
    G.op("sdpa_gqa_one_kv_head", sdpa, qkv(kv_heads=1, h=3), {"enable_gqa": True})
    G.op("sdpa_gqa_causal", sdpa, qkv(tk=5, kv_heads=2, h=4), {"enable_gqa": True, "is_causal": True})


def convolutions():
    r = Rng("ops/convolutions")

    def conv(name, fn, x, w, bias=True, **config):
        out = w[1] * config.get("groups", 1) if "transpose" in name else w[0]
        inputs = {"input": r.normal(*x), "weight": r.normal(*w)}
        G.op(name, fn, inputs | ({"bias": r.normal(out)} if bias else {}), config)

    conv("conv1d", F.conv1d, (2, 3, 9), (4, 3, 2))
    conv("conv1d_no_bias", F.conv1d, (2, 3, 9), (4, 3, 2), bias=False)
    conv("conv1d_stride_padding", F.conv1d, (2, 3, 9), (4, 3, 4), stride=2, padding=3)
    conv("conv1d_dilation", F.conv1d, (2, 3, 10), (5, 3, 3), dilation=3, padding=1)
    conv("conv1d_groups", F.conv1d, (2, 6, 9), (9, 2, 4), groups=3, stride=2)
    conv("conv1d_depthwise_causal", F.conv1d, (2, 6, 9), (6, 1, 4), groups=6, padding=3)
    conv("conv2d", F.conv2d, (2, 3, 6, 7), (4, 3, 2, 3))
    conv("conv2d_no_bias", F.conv2d, (2, 3, 6, 7), (4, 3, 2, 3), bias=False)
    conv("conv2d_1x1", F.conv2d, (2, 3, 4, 5), (6, 3, 1, 1))
    conv("conv2d_stride_padding", F.conv2d, (2, 3, 6, 7), (4, 3, 3, 2), stride=[2, 3], padding=[2, 1])
    conv("conv2d_dilation", F.conv2d, (2, 3, 7, 8), (4, 3, 2, 3), dilation=[3, 2], padding=1)
    conv("conv2d_groups", F.conv2d, (2, 4, 5, 6), (6, 2, 3, 2), groups=2, padding=1)
    conv("conv2d_depthwise", F.conv2d, (2, 3, 5, 6), (6, 1, 3, 2), groups=3, stride=2, padding=1)
    conv("conv2d_all", F.conv2d, (2, 4, 8, 9), (6, 2, 3, 2), groups=2, stride=[2, 1], padding=[1, 2], dilation=[1, 3])
    t = F.conv_transpose2d
    conv("conv_transpose2d", t, (2, 3, 4, 5), (3, 4, 2, 3))
    conv("conv_transpose2d_no_bias", t, (2, 3, 4, 5), (3, 4, 2, 3), bias=False)
    conv("conv_transpose2d_stride_padding", t, (2, 3, 4, 5), (3, 4, 3, 4), stride=[2, 3], padding=[1, 2])
    conv("conv_transpose2d_output_padding", t, (2, 3, 4, 5), (3, 4, 3, 2), stride=[2, 3], padding=1, output_padding=[1, 2])
    conv("conv_transpose2d_groups", t, (2, 4, 3, 5), (4, 3, 2, 3), groups=2, stride=2)
    conv("conv_transpose2d_dilation", t, (2, 3, 4, 5), (3, 4, 2, 3), dilation=[3, 2], padding=1)
    conv("conv_transpose2d_all", t, (2, 4, 3, 5), (4, 3, 2, 3), groups=2, stride=[3, 2], padding=[1, 2], output_padding=[2, 1], dilation=[2, 1])


def pooling():
    r = Rng("ops/pooling")
    d1, d2 = (2, 3, 11), (2, 3, 7, 8)

    def pool(name, fn, shape, **config):
        G.op(name, fn, {"input": r.distinct(*shape)}, config)

    pool("max_pool1d", F.max_pool1d, d1, kernel_size=3)
    pool("max_pool1d_stride_padding_dilation", F.max_pool1d, d1, kernel_size=3, stride=2, padding=1, dilation=2)
    pool("max_pool2d", F.max_pool2d, d2, kernel_size=2)
    pool("max_pool2d_stride_padding", F.max_pool2d, d2, kernel_size=[3, 2], stride=[2, 1], padding=[1, 1])
    pool("max_pool2d_dilation", F.max_pool2d, d2, kernel_size=[2, 3], stride=2, dilation=[3, 2], padding=1)
    pool("max_pool2d_ceil", F.max_pool2d, d2, kernel_size=3, stride=2, ceil_mode=True)
    pool("avg_pool1d", F.avg_pool1d, d1, kernel_size=3)
    pool("avg_pool1d_stride_padding", F.avg_pool1d, d1, kernel_size=4, stride=3, padding=2)
    pool("avg_pool1d_not_counting_pad", F.avg_pool1d, d1, kernel_size=4, stride=3, padding=2, count_include_pad=False)
    pool("avg_pool2d", F.avg_pool2d, d2, kernel_size=2)
    pool("avg_pool2d_stride_padding", F.avg_pool2d, d2, kernel_size=[3, 2], stride=[2, 1], padding=[1, 1])
    pool("avg_pool2d_not_counting_pad", F.avg_pool2d, d2, kernel_size=[3, 2], stride=[2, 1], padding=[1, 1], count_include_pad=False)
    pool("avg_pool2d_ceil", F.avg_pool2d, d2, kernel_size=3, stride=2, ceil_mode=True)
    pool("adaptive_avg_pool1d", F.adaptive_avg_pool1d, d1, output_size=4)
    pool("adaptive_avg_pool2d", F.adaptive_avg_pool2d, d2, output_size=[3, 5])
    pool("adaptive_avg_pool2d_to_one", F.adaptive_avg_pool2d, d2, output_size=[1, 1])
    pool("adaptive_max_pool1d", F.adaptive_max_pool1d, d1, output_size=4)
    pool("adaptive_max_pool2d", F.adaptive_max_pool2d, d2, output_size=[3, 5])

    def resize(name, shape, **config):
        G.op(f"interpolate_{name}", F.interpolate, {"input": r.normal(*shape)}, config)

    resize("nearest_1d", (2, 3, 5), size=[8], mode="nearest")
    resize("nearest_up", (2, 3, 3, 4), scale_factor=2.0, mode="nearest")
    resize("nearest_uneven", (2, 3, 4, 5), size=[7, 3], mode="nearest")
    for align in (False, True):
        a = "align" if align else "no_align"
        resize(f"bilinear_{a}_up", (2, 3, 3, 4), size=[7, 9], mode="bilinear", align_corners=align)
        resize(f"bilinear_{a}_down", (2, 3, 7, 8), size=[3, 5], mode="bilinear", align_corners=align)
        resize(f"bilinear_{a}_double", (2, 2, 3, 4), scale_factor=2.0, mode="bilinear", align_corners=align)
    for mode in ("constant", "reflect", "replicate", "circular"):
        more = {"value": 1.5} if mode == "constant" else {}
        G.op(f"pad_{mode}_1d", F.pad, {"input": r.normal(2, 3, 5)}, {"pad": [3, 1], "mode": mode} | more)
        G.op(f"pad_{mode}_2d", F.pad, {"input": r.normal(2, 3, 4, 5)}, {"pad": [1, 3, 2, 0], "mode": mode} | more)
    G.op("pad_constant_negative", F.pad, {"input": r.normal(3, 5)}, {"pad": [-1, 2, 1, -1], "value": 0.0})


def reductions():
    r = Rng("ops/reductions")
    x = lambda: r.normal(3, 4, 5)  # noqa: E731
    for dim in (0, 1, 2):
        G.op(f"cumsum_dim{dim}", torch.cumsum, {"input": x()}, {"dim": dim})
    for name, config in {"last": {"dim": -1}, "keepdim": {"dim": 1, "keepdim": True}, "two_dims": {"dim": [0, 2]}}.items():
        G.op(f"logsumexp_{name}", torch.logsumexp, {"input": x() * 3}, config)
        G.op(f"sum_{name}", torch.sum, {"input": x()}, config)
        G.op(f"mean_{name}", torch.mean, {"input": x()}, config)
        G.op(f"amax_{name}", torch.amax, {"input": r.distinct(3, 4, 5)}, config)
        G.op(f"amin_{name}", torch.amin, {"input": r.distinct(3, 4, 5)}, config)
        for correction in (0, 1):
            G.op(f"var_{name}_correction{correction}", torch.var, {"input": x()}, config | {"correction": correction})
            G.op(f"std_{name}_correction{correction}", torch.std, {"input": x()}, config | {"correction": correction})
        for p in (1.0, 2.0, 3.0, float("inf")):
            more = config | {"ord": "inf" if p == float("inf") else p}
            fn = lambda input, ord, **c: torch.linalg.vector_norm(input, float(ord), **c)  # noqa: E731
            G.op(f"norm{p:g}_{name}", fn, {"input": r.distinct(3, 4, 5)}, more)
    G.op("var_all", torch.var, {"input": x()}, {"correction": 1})
    G.op("norm2_all", lambda input, ord: torch.linalg.vector_norm(input, ord), {"input": x()}, {"ord": 2.0})
    G.op("prod_all", torch.prod, {"input": r.away(2, 4)})
    G.op("prod_dim", torch.prod, {"input": r.away(3, 4, 5)}, {"dim": 1})
    one, two = r.away(3, 4), r.away(3, 4)
    one[1, 2] = 0  # one zero in row 1; two zeros in row 2: the gradients differ
    two[1, 2] = two[2, 0] = two[2, 3] = 0
    G.op("prod_dim_one_zero", torch.prod, {"input": one}, {"dim": 1, "keepdim": True})
    G.op("prod_dim_two_zeros", torch.prod, {"input": two}, {"dim": 1})

    for name, dim in {"last": -1, "first": 0}.items():
        pair = lambda y: {"values": y[0], "indices": y[1]}  # noqa: E731
        for descending in (False, True):
            G.op(f"sort_{name}_{'down' if descending else 'up'}", lambda input, **c: pair(torch.sort(input, **c)),
                 {"input": r.distinct(3, 4, 5)}, {"dim": dim, "descending": descending})
        for largest in (True, False):
            G.op(f"topk_{name}_{'largest' if largest else 'smallest'}", lambda input, **c: pair(torch.topk(input, **c)),
                 {"input": r.distinct(3, 4, 5)}, {"k": 2, "dim": dim, "largest": largest})
        G.op(f"max_{name}", lambda input, dim: pair(torch.max(input, dim)), {"input": r.distinct(3, 4, 5)}, {"dim": dim})
        G.op(f"min_{name}", lambda input, dim: pair(torch.min(input, dim)), {"input": r.distinct(3, 4, 5)}, {"dim": dim})


def indexing():
    r = Rng("ops/indexing")
    weight, tokens = r.normal(7, 4), torch.tensor([[1, 3, 3, 0, 6], [2, 3, 1, 1, 5]])
    G.op("embedding", F.embedding, {"input": tokens, "weight": weight})
    G.op("embedding_padding_idx", F.embedding, {"input": tokens, "weight": weight}, {"padding_idx": 3})
    G.op("embedding_padding_idx_negative", F.embedding, {"input": tokens, "weight": weight}, {"padding_idx": -1})
    for dim in (0, 1, 2):
        shape = [3, 4, 5]
        wide = list(shape)
        wide[dim] = 6
        G.op(f"gather_dim{dim}", torch.gather, {"input": r.normal(*shape), "index": r.int(shape[dim], *wide)}, {"dim": dim})
        G.op(f"index_select_dim{dim}", torch.index_select, {"input": r.normal(*shape), "index": r.int(shape[dim], 6)}, {"dim": dim})
        G.op(f"scatter_add_dim{dim}", torch.scatter_add,
             {"input": r.normal(*shape), "index": r.int(shape[dim], *wide), "src": r.normal(*wide)}, {"dim": dim})
    # an index smaller than the input in the other dimensions too
    G.op("gather_smaller", torch.gather, {"input": r.normal(3, 4, 5), "index": r.int(4, 2, 6, 3)}, {"dim": 1})
    G.op("scatter_add_smaller", torch.scatter_add, {"input": r.normal(3, 4, 5), "index": r.int(4, 2, 6, 3), "src": r.normal(2, 6, 3)}, {"dim": 1})
    G.op("masked_fill", lambda input, mask, value: input.masked_fill(mask, value), {"input": r.normal(3, 4, 5), "mask": torch.tensor([[True], [False], [True], [False]])}, {"value": -2.5})
    for diagonal in (-2, 0, 1):
        tag = str(diagonal).replace("-", "minus_")
        G.op(f"tril_{tag}", torch.tril, {"input": r.normal(2, 4, 5)}, {"diagonal": diagonal})
        G.op(f"triu_{tag}", torch.triu, {"input": r.normal(2, 5, 4)}, {"diagonal": diagonal})


def products():
    r = Rng("ops/products")
    shapes = {
        "vec_vec": [(4,), (4,)],
        "vec_mat": [(4,), (4, 5)],
        "mat_vec": [(3, 4), (4,)],
        "mat_mat": [(3, 4), (4, 5)],
        "vec_batch": [(4,), (2, 4, 5)],
        "batch_vec": [(2, 3, 4), (4,)],
        "batch_mat": [(2, 3, 4), (4, 5)],
        "mat_batch": [(3, 4), (2, 4, 5)],
        "batch_batch": [(2, 3, 4), (2, 4, 5)],
        "batch_one": [(2, 3, 4), (1, 4, 5)],
        "broadcast_both": [(6, 1, 3, 4), (2, 4, 5)],
        "broadcast_crossed": [(6, 1, 3, 4), (1, 2, 4, 5)],
        "one_column": [(2, 3, 1), (2, 1, 5)],
    }
    for name, (a, b) in shapes.items():
        G.op(f"matmul_{name}", torch.matmul, {"input": r.normal(*a), "other": r.normal(*b)})
    G.op("matmul_of_mT", lambda input, other: input.mT @ other.mT, {"input": r.normal(2, 4, 3), "other": r.normal(2, 5, 4)})
    G.op("linear", F.linear, {"input": r.normal(2, 3, 4), "weight": r.normal(5, 4), "bias": r.normal(5)})

    def einsum(name, equation, *shapes):
        inputs = {f"operand{i}": r.normal(*s) for i, s in enumerate(shapes)}
        G.op(f"einsum_{name}", lambda equation, **xs: torch.einsum(equation, *xs.values()), inputs, {"equation": equation})

    einsum("matmul", "ij,jk->ik", (3, 4), (4, 5))
    einsum("implicit", "ij,jk", (3, 4), (4, 5))
    einsum("implicit_transpose", "ba", (3, 4))
    einsum("batch_matmul", "bij,bjk->bik", (2, 3, 4), (2, 4, 5))
    einsum("attention_scores", "bthd,bshd->bhts", (2, 5, 3, 4), (2, 7, 3, 4))
    einsum("attention_values", "bhts,bshd->bthd", (2, 3, 5, 7), (2, 7, 3, 4))
    einsum("outer", "i,j->ij", (3,), (4,))
    einsum("inner", "ij,ij->", (3, 4), (3, 4))
    einsum("transpose", "bij->jbi", (2, 3, 4))
    einsum("sum_rows", "bij->j", (2, 3, 4))
    einsum("sum_only_one", "ij,kl->il", (3, 4), (5, 6))
    einsum("bilinear", "bi,oij,bj->bo", (2, 3), (5, 3, 4), (2, 4))
    einsum("chain", "ij,jk,kl->il", (2, 3), (3, 4), (4, 5))
    einsum("ellipsis", "...ij,jk->...ik", (2, 3, 4, 5), (5, 6))
    einsum("ellipsis_broadcast", "...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 6))
    einsum("diagonal", "bii->bi", (2, 4, 4))
    einsum("trace", "bii->b", (2, 4, 4))


for make in (elementwise, softmaxes, norms, classification_losses, regression_losses, attention, convolutions, pooling, reductions, indexing, products):
    make()
G.save()
