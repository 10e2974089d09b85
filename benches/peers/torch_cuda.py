"""PyTorch, with the libraries that it calls, on the cases of src/cuda/worker, timed as worker/suite.rs does. Prints JSON lines."""

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("groups", nargs="*")
parser.add_argument("--limits", action="store_true", help="print what the card is and what it can do")
parser.add_argument("--seconds", type=float, default=0.5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--case")
parser.add_argument("--tiny", action="store_true", help="the small sizes: a test of this program")
parser.add_argument("--device", default="cuda", help="cpu tests this program where there is no card; its times mean nothing")
args = parser.parse_args()

import torch  # noqa: E402
import torch._functorch.config  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda.json"), encoding="utf-8") as f:
    shapes = json.load(f)["tiny" if args.tiny else "full"]

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
MOST_ROUNDS = 200
printed = 0

torch.set_num_threads(args.threads)
torch.manual_seed(0)
# What a backward pass saved is used again: each round differentiates the same result.
torch._functorch.config.donated_buffer = False


def exact(yes):
    """Whether products of f32 are computed in f32, or in tf32."""
    torch.set_float32_matmul_precision("highest" if yes else "high")
    torch.backends.cudnn.allow_tf32 = not yes


exact(True)
cache = torch.zeros(shapes["flush_mib"] << 18, device=args.device)


# How a case is timed


def measured(rounds, prepare, f):
    """Milliseconds that the card takes for f in each round, each after `prepare`, which does not count."""
    if args.device == "cpu":
        times = []
        for _ in range(rounds):
            prepare()
            start = time.perf_counter()
            f()
            times.append((time.perf_counter() - start) * 1e3)
        return times
    moments = []
    for _ in range(rounds):
        prepare()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        f()
        end.record()
        moments.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in moments]


def rounds_of(f, cold):
    """Milliseconds of each round; cold: with the card's cache emptied before it."""

    def flush():
        if cold:
            cache.zero_()

    def three():
        for _ in range(3):
            flush()
            f()

    for _ in range(3):
        f()
    one = measured(1, lambda: None, three)[0] / 3
    rounds = int(min(max(args.seconds * 1e3 / max(one, 1e-3), shapes["rounds"]), max(MOST_ROUNDS, shapes["rounds"])))
    for _ in range(rounds // 5):
        f()
    gc.disable()
    try:
        return measured(rounds, flush, f)
    finally:
        gc.enable()


def case(name, peer, make, cold=True, aside=False):
    """Times what `make` returns. Not every backend does every case: then it says why, and the next goes on.

    What `make` creates is on the card; what is timed runs without that default, which every call would have to look at.
    """
    global printed
    if args.case not in (None, name):
        return
    try:
        with torch.device(args.device):
            f = make()
        times = sorted(rounds_of(f, cold))
        del f
        n = len(times)
        rounds = {"count": n, "min": times[0], "spread": times[n * 3 // 4] - times[n // 4]}
        sample = {"case": name, "peer": peer, "ms": statistics.median_high(times), "rounds": rounds}
        if aside:
            sample["aside"] = True
        print(json.dumps(sample), flush=True)
        printed += 1
    except Exception as error:
        print(f"{name}: {peer}: {str(error).strip().splitlines()[0] if str(error) else error!r}", file=sys.stderr)
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if args.device == "cuda":
        torch.cuda.empty_cache()


def forward(name, peer, make, **options):
    """Times a function without history; `make` returns it and its arguments."""

    def prepared():
        f, xs = make()

        def run():
            with torch.no_grad():
                f(*xs)

        return run

    case(name, peer, prepared, **options)


def backward(name, peer, make, **options):
    """Times the gradients of what a function returns with respect to its arguments; `make` returns it and these."""

    def prepared():
        f, xs = make()
        ys = f(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        gs = [torch.randn_like(y) for y in ys]
        inputs = [x for x in xs if x.requires_grad]
        return lambda: torch.autograd.grad(ys, inputs, gs, retain_graph=True)

    case(name, peer, prepared, **options)


# PyTorch's two ways to run a function.
WAYS = {"torch": lambda f: f, "torch.compile": lambda f: torch.compile(f, dynamic=False)}


def both(name, make):
    """Forward and backward of a function, as it is and compiled."""
    for peer, through in WAYS.items():

        def made():
            f, xs = make()
            return through(f), xs

        forward(f"{name} forward", peer, made)
        backward(f"{name} backward", peer, made)


def leaf(*shape, dtype):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


# The groups


def product(name, layout, m, k, n, dtype):
    def stored(rows, columns, letter):
        return torch.randn(columns, rows, dtype=dtype).t() if letter == "T" else torch.randn(rows, columns, dtype=dtype)

    def made():
        return torch.matmul, (stored(m, k, layout[0]), stored(k, n, layout[1]))

    forward(name, "cuBLAS", made)
    if dtype == torch.float32:
        exact(False)
        forward(name, "cuBLAS tf32", made, aside=True)
        exact(True)


def matmul():
    s = shapes["gpt2"]
    m, c = s["batch"] * s["time"], s["width"]
    for kind in ("bf16", "f16", "f32"):
        products = [("NN", n, n, n) for n in shapes["squares"]]
        if kind != "f16":
            for inputs, outputs in [(c, 3 * c), (c, c), (c, 4 * c), (4 * c, c), (c, s["vocab"])]:
                products += [("NT", m, inputs, outputs), ("NN", m, outputs, inputs), ("TN", outputs, m, inputs)]
        for layout, m_, k, n in products:
            product(f"matmul {kind} {layout} {m_}×{k}×{n}", layout, m_, k, n, DTYPES[kind])


def ladder():
    for kind in ("f32", "bf16"):
        for n in shapes["ladder"]:
            product(f"ladder matmul {kind} {n}×{n}×{n}", "NN", n, n, n, DTYPES[kind])
    rows, width = shapes["softmax"]
    forward(f"ladder softmax f32 {rows}×{width}", "torch", lambda: (lambda x: torch.softmax(x, -1), [torch.randn(rows, width)]))
    rows_n, width_n = shapes["layer_norm"]
    forward(f"ladder layer_norm f32 {rows_n}×{width_n}", "torch",
            lambda: (lambda x: F.layer_norm(x, (width_n,)), [torch.randn(rows_n, width_n)]))
    s = shapes["attention"]
    t = s["times"][0]
    for kind in ("f32", "bf16"):
        shape = (s["tokens"] // t, s["width"] // 64, t, 64)
        forward(f"ladder attention {kind} d64 full T{t}", "torch",
                lambda: (F.scaled_dot_product_attention, [torch.randn(*shape, dtype=DTYPES[kind]) for _ in range(3)]))


def attention():
    # The scores of `math` lie in memory: beyond this length they are too many.
    most = 2048
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}
    s = shapes["attention"]
    for d in s["head_dims"]:
        for causal in (False, True):
            for t in s["times"]:
                name = f"bf16 d{d} {'causal' if causal else 'full'} T{t}"
                shape = (s["tokens"] // t, s["width"] // d, t, d)
                for peer, backend in backends.items():
                    if peer == "math" and t > most:
                        continue

                    def made():
                        def attend(q, k, v):
                            with sdpa_kernel(backend):
                                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

                        return attend, [leaf(*shape, dtype=torch.bfloat16) for _ in range(3)]

                    forward(f"attention forward {name}", peer, made)
                    backward(f"attention backward {name}", peer, made)


def layer_norm():
    rows, width = shapes["layer_norm"]
    for kind in ("bf16", "f32"):
        def made():
            xs = [leaf(*shape, dtype=DTYPES[kind]) for shape in ((rows, width), (width,), (width,))]
            return lambda x, w, b: F.layer_norm(x, (width,), w, b), xs

        both(f"layer_norm {kind} {rows}×{width}", made)


def softmax():
    rows, width = shapes["softmax"]
    for kind in ("bf16", "f32"):
        both(f"softmax {kind} {rows}×{width}",
             lambda: (lambda x: torch.softmax(x, -1), [leaf(rows, width, dtype=DTYPES[kind])]))


def cross_entropy():
    positions, classes = shapes["cross_entropy"]
    for kind in ("bf16", "f32"):
        def made():
            return F.cross_entropy, [leaf(positions, classes, dtype=DTYPES[kind]), torch.randint(0, classes, (positions,))]

        both(f"cross_entropy {kind} {positions}×{classes}", made)


def elementwise():
    n = shapes["elements"]
    for kind in ("bf16", "f32"):
        def made(f, inputs=1):
            return f, [leaf(n, dtype=DTYPES[kind]) for _ in range(inputs)]

        def gelu(x):
            return F.gelu(x, approximate="tanh")

        name = f"elementwise {kind}"
        forward(f"{name} copy", "torch", lambda: made(torch.clone))
        forward(f"{name} transposed copy", "torch", lambda: made(lambda x: x.view(math.isqrt(n), -1).t().contiguous()))
        forward(f"{name} add", "torch", lambda: made(torch.add, 2))
        forward(f"{name} gelu tanh", "torch", lambda: made(gelu))
        backward(f"{name} gelu tanh backward", "torch", lambda: made(gelu))
        forward(f"{name} sum", "torch", lambda: made(torch.sum))


def rope():
    b, h, t, d = shapes["rope"]
    for kind in ("bf16", "f32"):
        def made():
            angles = torch.outer(torch.arange(t).float(), 10000.0 ** (-2 * torch.arange(d // 2) / d))
            cos, sin = angles.cos(), angles.sin()

            def turned(x):
                first, second = x.float().chunk(2, -1)
                return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)

            return turned, [leaf(b, h, t, d, dtype=DTYPES[kind])]

        both(f"rope {kind} {b}×{h}×{t}×{d}", made)


def gated():
    rows, width = shapes["gated"]
    for kind in ("bf16", "f32"):
        for gate, activation in (("swiglu", F.silu), ("geglu", F.gelu)):
            both(f"gated {kind} {gate} {rows}×{width}",
                 lambda: (lambda x, up: activation(x) * up, [leaf(rows, width, dtype=DTYPES[kind]) for _ in range(2)]))


def add_norm():
    rows, width = shapes["layer_norm"]
    for kind in ("bf16", "f32"):
        for name, norm, parameters in (("layer_norm", F.layer_norm, 2), ("rms_norm", F.rms_norm, 1)):
            def made():
                def add_and_norm(x, residual, *parameters):
                    total = x + residual
                    return norm(total, (width,), *parameters, eps=1e-5), total

                inputs = [(rows, width)] * 2 + [(width,)] * parameters
                return add_and_norm, [leaf(*shape, dtype=DTYPES[kind]) for shape in inputs]

            both(f"add_norm {kind} {name} {rows}×{width}", made)


def feed_forward():
    s = shapes["gpt2"]
    width, hidden = s["width"], 4 * s["width"]

    def linear(x, w, b):
        return F.gelu(F.linear(x, w, b), approximate="tanh")

    def whole(x, w1, b1, w2, b2):
        return F.linear(linear(x, w1, b1), w2, b2)

    for kind in ("bf16", "f32"):
        for rows in (s["batch"] * s["time"], 1):
            inputs = [(rows, width), (hidden, width), (hidden,), (width, hidden), (width,)]

            def made(f, count=5):
                return lambda: (f, [leaf(*shape, dtype=DTYPES[kind]) for shape in inputs[:count]])

            name = f"feed_forward {kind} {rows}×{width}×{hidden}"
            for peer, through in WAYS.items():
                forward(f"{name} linear, bias, gelu", peer, made(through(linear), 3))
                forward(f"{name} forward", peer, made(through(whole)))
                if rows > 1:
                    backward(f"{name} backward", peer, made(through(whole)))


class Block(nn.Module):
    """A transformer block of GPT-2."""

    def __init__(self, d, heads):
        super().__init__()
        self.l1, self.l2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.f1, self.f2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.heads = heads

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.l1(x)).split(d, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        return x + self.f2(F.gelu(self.f1(self.l2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, s):
        super().__init__()
        d = s["width"]
        self.tokens, self.positions = nn.Embedding(s["vocab"], d), nn.Embedding(s["time"], d)
        self.blocks = nn.Sequential(*(Block(d, s["heads"]) for _ in range(s["layers"])))
        self.norm = nn.LayerNorm(d)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x):
        y = self.tokens(x) + self.positions.weight[: x.shape[1]]
        return F.linear(self.norm(self.blocks(y)), self.tokens.weight)


def adamw():
    s = shapes["gpt2"]

    def made():
        model = Gpt(s)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        return torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1, fused=True).step

    case(f"adamw f32 {s['layers']} layers × {s['width']}", "torch fused", made)


def lstm():
    for s in shapes["lstm"]:
        for kind in ("f32", "bf16"):
            name = f"lstm {kind} {s['name']}, B{s['batch']} T{s['time']}"

            def made():
                layer = nn.LSTM(s["embed"], s["hidden"], s["layers"], batch_first=True, dtype=DTYPES[kind])
                return layer, leaf(s["batch"], s["time"], s["embed"], dtype=DTYPES[kind])

            def inference():
                layer, x = made()
                return layer.eval(), [x]

            def training():
                layer, x = made()
                g = torch.randn(s["batch"], s["time"], s["hidden"], dtype=DTYPES[kind])
                return lambda: torch.autograd.grad(layer(x)[0], [x, *layer.parameters()], g)

            for peer in ("cuDNN", "cuDNN tf32") if kind == "f32" else ("cuDNN",):
                aside = peer == "cuDNN tf32"
                exact(not aside)
                forward(f"{name} forward", peer, inference, aside=aside)
                case(f"{name} forward + backward", peer, training, cold=False, aside=aside)
            exact(True)


def gpt2():
    s = shapes["gpt2"]

    def made(through):
        model = Gpt(s)
        adam = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1, fused=True)
        x, y = (torch.randint(0, s["vocab"], (s["batch"], s["time"])) for _ in range(2))

        def loss():
            return F.cross_entropy(model(x).view(-1, s["vocab"]), y.view(-1))

        loss = through(loss)

        def step():
            adam.zero_grad(set_to_none=True)
            with torch.autocast(args.device, torch.bfloat16), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                value = loss()
            value.backward()
            adam.step()

        return step

    name = f"gpt2 training step bf16 B{s['batch']} T{s['time']}"
    case(name, "torch", lambda: made(lambda f: f), cold=False)
    case(name, "torch.compile", lambda: made(torch.compile), cold=False)


# What the card is, and what it can do


def limits():
    about = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    if args.device == "cuda":
        about += f", on {torch.cuda.get_device_name()}"
    print(json.dumps({"about": about}))

    def seconds(f):
        return min(rounds_of(f, True)) / 1e3

    def flops(dtype):
        n = shapes["product"]
        a, b = (torch.randn(n, n, dtype=dtype) for _ in range(2))
        return 2 * n**3 / seconds(lambda: torch.matmul(a, b))

    source = torch.randn(shapes["copy_mib"] << 18)
    target = torch.empty_like(source)
    bandwidth = 2 * 4 * source.numel() / seconds(lambda: target.copy_(source))
    print(json.dumps({"flops": flops(torch.float32), "bf16_flops": flops(torch.bfloat16), "bandwidth": bandwidth}))


if args.limits:
    with torch.device(args.device):
        limits()
for group in args.groups:
    globals()[group]()
if args.groups and not printed and args.case is None:
    sys.exit(f"no case of {', '.join(args.groups)} works")
