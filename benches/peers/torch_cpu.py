"""PyTorch on the cases of src/cases.rs, timed as measure/src/lib.rs does. Prints JSON lines."""

import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser()
parser.add_argument("groups", nargs="+")
parser.add_argument("--seconds", type=float, default=0.5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--case")
args = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(args.threads)

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(args.threads)
torch.manual_seed(0)


def peak_mib(reset=False):
    """The most memory that this process held since the last reset, on Linux."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w") as f:
                f.write("5")
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM:"))
    except OSError:
        return None


def wants(case):
    """Whether this process is to time the case: others need not be prepared."""
    return args.case in (None, case)


def timed(case, f):
    if not wants(case):
        return
    peak_mib(reset=True)
    start, warm = time.perf_counter(), 0
    while warm < 2 or time.perf_counter() - start < args.seconds / 5:
        f()
        warm += 1
    one = (time.perf_counter() - start) / warm
    inner = int(min(max(1e-3 / one, 1), 100_000))
    start, times = time.perf_counter(), []
    while len(times) < 3 or (time.perf_counter() - start < args.seconds and len(times) < 2000):
        t = time.perf_counter()
        for _ in range(inner):
            f()
        times.append((time.perf_counter() - t) * 1e3 / inner)
    sample = {"case": case, "peer": "torch", "ms": statistics.median(times)}
    if args.case:  # alone in this process
        sample["peak_mib"] = peak_mib()
    print(json.dumps(sample), flush=True)


def gemm():
    shapes = [(64, 64, 64), (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048),
              (512, 768, 3072), (512, 3072, 768), (2048, 64, 2048), (1, 768, 50257)]
    kinds = {"f32": torch.float32, "bf16": torch.bfloat16}
    with torch.no_grad():
        for name, dtype in kinds.items():
            for m, k, n in shapes:
                a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
                timed(f"gemm {name} {m}×{k}×{n}", lambda: a @ b)
        for m, k, n in [(1024, 1024, 1024), (512, 768, 3072), (512, 3072, 768)]:
            a, b = (torch.randint(-128, 128, s, dtype=torch.int8) for s in [(m, k), (k, n)])
            timed(f"gemm int8 {m}×{k}×{n}", lambda: torch._int_mm(a, b))
        for name, dtype in kinds.items():
            x, w = torch.randn(1, 768).to(dtype), torch.randn(50257, 768).to(dtype)
            timed(f"gemm {name} 1×768×50257, weight N×K", lambda: F.linear(x, w))


def layouts():
    def stored(rows, columns, transposed):
        return torch.randn(columns, rows).t() if transposed else torch.randn(rows, columns)

    with torch.no_grad():
        for m, k, n in [(256, 256, 256), (1024, 1024, 1024), (512, 768, 3072), (512, 3072, 768), (2048, 64, 2048)]:
            for layout, a_transposed, b_transposed in [("NT", False, True), ("TN", True, False), ("TT", True, True)]:
                a, b = stored(m, k, a_transposed), stored(k, n, b_transposed)
                timed(f"gemm f32 {m}×{k}×{n} {layout}", lambda: a @ b)


def attention():
    attention_of("", 4, 12, 512, 64)
    attention_of(" T2048", 4, 12, 2048, 64)


def attention_of(length, b, h, t, d):
    q, k, v = (torch.randn(b, h, t, d, requires_grad=True) for _ in range(3))
    g = torch.ones(b, h, t, d)

    def forward():
        with torch.no_grad():
            F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def both():
        for x in (q, k, v):
            x.grad = None
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(g)

    timed(f"attention causal{length} forward", forward)
    timed(f"attention causal{length} forward + backward", both)


def trainer(loss, optimizer):
    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
    return step


class Lstm(nn.Module):
    def __init__(self, e, h):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(10_000, e), nn.LSTM(e, h, batch_first=True), nn.Linear(h, 1)

    def forward(self, x):
        return self.head(self.lstm(self.embed(x))[1][0][-1])


def lstm():
    for e, h, t in [(32, 32, 120), (128, 128, 120), (32, 32, 256), (128, 128, 256)]:
        name = f"lstm step E{e} H{h} T{t}"
        if not wants(name):
            continue
        model = Lstm(e, h)
        adam = torch.optim.Adam(model.parameters(), 1e-4)
        x, y = torch.randint(0, 10_000, (128, t)), torch.randint(0, 2, (128, 1)).float()
        timed(name, trainer(lambda: F.binary_cross_entropy_with_logits(model(x), y), adam))


class Block(nn.Module):
    """A transformer block, before (`pre`) or after its norms."""

    def __init__(self, d, ff, heads, bias, pre):
        super().__init__()
        self.l1, self.l2 = nn.LayerNorm(d, bias=bias), nn.LayerNorm(d, bias=bias)
        self.qkv, self.o = nn.Linear(d, 3 * d, bias), nn.Linear(d, d, bias)
        self.f1, self.f2 = nn.Linear(d, ff, bias), nn.Linear(ff, d, bias)
        self.heads, self.pre = heads, pre

    def attention(self, x, cache=None):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).split(d, -1))
        if cache is not None:
            keys, values, past = cache
            keys[:, :, past : past + t], values[:, :, past : past + t] = k, v
            k, v = keys[:, :, : past + t], values[:, :, : past + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.pre and cache is None)
        return self.o(y.transpose(1, 2).reshape(b, t, d))

    def forward(self, x, cache=None):
        if self.pre:
            x = x + self.attention(self.l1(x), cache)
            return x + self.f2(F.gelu(self.f1(self.l2(x)), approximate="tanh"))
        x = self.l1(x + self.attention(x))
        return self.l2(x + self.f2(F.gelu(self.f1(x))))


class Gpt(nn.Module):
    def __init__(self, layers, d, heads, t, v, bias=False):
        super().__init__()
        self.te, self.pe = nn.Embedding(v, d), nn.Embedding(t, d)
        self.blocks = nn.ModuleList(Block(d, 4 * d, heads, bias, True) for _ in range(layers))
        self.ln = nn.LayerNorm(d, bias=bias)

    def forward(self, x, caches=None, past=0):
        y = self.te(x) + self.pe.weight[past : past + x.shape[1]]
        for i, block in enumerate(self.blocks):
            y = block(y, None if caches is None else (*caches[i], past))
        return F.linear(self.ln(y), self.te.weight)


def gpt():
    model = Gpt(6, 384, 6, 256, 65)
    adam = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1)
    x, y = torch.randint(0, 65, (12, 256)), torch.randint(0, 65, (12 * 256,))

    def loss():
        return F.cross_entropy(model(x).view(-1, 65).float(), y)

    def loss_bf16():
        with torch.autocast("cpu", torch.bfloat16):
            return loss()

    timed("gpt step f32", trainer(loss, adam))
    timed("gpt step bf16 autocast", trainer(loss_bf16, adam))


class Bert(nn.Module):
    def __init__(self, v, d, layers, heads, ff):
        super().__init__()
        self.words, self.positions, self.kinds = nn.Embedding(v, d), nn.Embedding(512, d), nn.Embedding(2, d)
        self.ln = nn.LayerNorm(d)
        self.blocks = nn.Sequential(*(Block(d, ff, heads, True, False) for _ in range(layers)))
        self.pooler, self.classifier = nn.Linear(d, d), nn.Linear(d, 2)

    def forward(self, x):
        y = self.words(x) + self.positions.weight[: x.shape[1]] + self.kinds(torch.zeros_like(x))
        y = self.blocks(self.ln(y))
        return y, torch.tanh(self.pooler(y[:, 0]))


def bert():
    model, x = Bert(30522, 384, 6, 12, 1536).eval(), torch.randint(0, 30522, (8, 128))
    with torch.inference_mode():
        timed("MiniLM-shaped bert inference 8×128", lambda: model(x))
    model.train()
    adam, y = torch.optim.AdamW(model.parameters(), 1e-5), torch.randint(0, 2, (8,))
    loss = lambda: F.cross_entropy(model.classifier(model(x)[1]), y)  # noqa: E731
    timed("MiniLM-shaped bert training step 8×128", trainer(loss, adam))


def elementwise():
    n = 1 << 24
    x, y = torch.randn(n // 1024, 1024), torch.randn(n // 1024, 1024)
    with torch.no_grad():
        timed("add 16M", lambda: x + y)
        timed("gelu 16M", lambda: F.gelu(x))
        timed("gelu tanh 16M", lambda: F.gelu(x, approximate="tanh"))
        timed("softmax 16M by 1024", lambda: torch.softmax(x, -1))
        timed("sum 16M", lambda: x.sum())
    x, w, b = (torch.randn(s, requires_grad=True) for s in [(n // 768, 768), (768,), (768,)])
    g = torch.ones_like(x)

    def forward():
        with torch.no_grad():
            F.layer_norm(x, (768,), w, b)

    def both():
        for v in (x, w, b):
            v.grad = None
        F.layer_norm(x, (768,), w, b).backward(g)

    timed("layer norm 16M by 768, forward", forward)
    timed("layer norm 16M by 768, forward + backward", both)


def both_passes(name, f, leaves):
    """Times f forward without history, and forward and backward, from a gradient of ones of the first leaf's shape."""
    g = torch.ones_like(leaves[0])

    def forward():
        with torch.no_grad():
            f()

    def both():
        for v in leaves:
            v.grad = None
        f().backward(g)

    timed(f"{name}, forward", forward)
    timed(f"{name}, forward + backward", both)


def leaves_of(*shapes):
    return [torch.randn(s, requires_grad=True) for s in shapes]


def rope():
    b, h, t, d = 4, 12, 2048, 64
    angles = torch.outer(torch.arange(t).float(), 10000.0 ** (-2 * torch.arange(d // 2) / d))
    cos, sin = (torch.cat([table, table], -1) for table in (angles.cos(), angles.sin()))
    (x,) = leaves_of((b, h, t, d))

    def turned():
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    both_passes(f"rope {b}×{h}×{t}×{d}", turned, [x])


def gated():
    x, up = leaves_of(*[((1 << 24) // 1024, 1024)] * 2)
    both_passes("swiglu 16M", lambda: F.silu(x) * up, [x, up])
    both_passes("geglu 16M", lambda: F.gelu(x) * up, [x, up])


def add_norm():
    x, residual, w, b = leaves_of(*[((1 << 24) // 768, 768)] * 2, (768,), (768,))
    both_passes("add + layer norm 16M by 768", lambda: F.layer_norm(x + residual, (768,), w, b), [x, residual, w, b])
    both_passes("add + rms norm 16M by 768", lambda: F.rms_norm(x + residual, (768,), w, 1e-5), [x, residual, w])


def feed_forward():
    m, c, h = 512, 768, 3072
    leaves = [(torch.randn(s) * 0.02).requires_grad_() for s in [(m, c), (h, c), (h,), (c, h), (c,)]]
    x, w1, b1, w2, b2 = leaves

    def f():
        return F.linear(F.gelu(F.linear(x, w1, b1), approximate="tanh"), w2, b2)

    both_passes(f"feed forward {m}×{c}×{h}", f, leaves)


def cnn():
    layers = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
              nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10)]
    model = nn.Sequential(*layers)
    adam = torch.optim.Adam(model.parameters(), 1e-4)
    x, y = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
    timed("cnn training step, batch 64", trainer(lambda: F.cross_entropy(model(x), y), adam))
    with torch.inference_mode():
        timed("cnn inference, batch 64", lambda: model(x))


def decode():
    model, token = Gpt(12, 768, 12, 1024, 50257, True), torch.randint(0, 50257, (1, 1))
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        model = model.to(dtype)
        caches = [[torch.zeros(1, 12, 1024, 64, dtype=dtype) for _ in range(2)] for _ in range(12)]
        past = [64]

        def step():
            past[0] = past[0] + 1 if past[0] < 191 else 64
            model(token, caches, past[0])[0, -1].argmax(-1).item()

        with torch.inference_mode():
            timed(f"gpt2 decode {name}", step)


def overhead():
    def chain():
        x = torch.zeros((), requires_grad=True)
        y = x
        for _ in range(30_000):
            y = y + 1.0
        y.backward()

    timed("30,000 scalar adds, forward + backward", chain)


for group in args.groups:
    globals()[group]()
