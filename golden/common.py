"""What the scripts share: seeded random tensors, the recorder of cases, and the file format (see README.md)."""

import copy
import json
import warnings
import zlib
from pathlib import Path

import torch
from safetensors.torch import save

DATA = Path(__file__).resolve().parent / "data"
F64 = torch.float64

warnings.filterwarnings("ignore", message="reduction: 'mean' divides")  # kl_div: that is the case being recorded
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


class Rng:
    """Random tensors from a generator seeded by a name, so that adding a case leaves the others as they were."""

    def __init__(self, name):
        self.gen = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def normal(self, *shape, mean=0.0, std=1.0):
        return torch.randn(shape, generator=self.gen, dtype=F64) * std + mean

    def uniform(self, *shape, low=0.0, high=1.0):
        return torch.rand(shape, generator=self.gen, dtype=F64) * (high - low) + low

    def away(self, *shape, gap=0.1):
        """Normal, but no element closer to 0 than `gap` (for functions with a kink at 0)."""
        x = self.normal(*shape)
        return x + torch.where(x < 0, -gap, gap)

    def distinct(self, *shape, low=-2.0, high=2.0):
        """Shuffled, evenly spaced values: no ties, for max, sort, topk."""
        n = 1
        for s in shape:
            n *= s
        values = torch.linspace(low, high, n, dtype=F64) + 0.013
        return values[torch.randperm(n, generator=self.gen)].reshape(shape)

    def int(self, high, *shape, low=0):
        return torch.randint(low, high, shape, generator=self.gen)

    def bool(self, *shape, p=0.6):
        return torch.rand(shape, generator=self.gen) < p

    def signs(self, *shape):
        return torch.where(self.bool(*shape, p=0.5), 1.0, -1.0).to(F64)

    def randomise(self, module):
        """Moves every parameter off its initial value and every running statistic off 0 and 1, so that nothing hides behind them."""
        with torch.no_grad():
            for _, p in module.named_parameters():
                p.copy_(p.to(F64) * 0 + self.start(p))
            for name, b in module.named_buffers():
                if name.endswith("running_mean"):
                    b.copy_(self.normal(*b.shape, std=0.5))
                elif name.endswith("running_var"):
                    b.copy_(self.uniform(*b.shape, low=0.5, high=1.5))

    def start(self, p):
        """Vectors around 0.5 (biases and norm scales alike), matrices N(0, 0.4²)."""
        return self.normal(*p.shape, std=0.3, mean=0.5) if p.dim() == 1 else self.normal(*p.shape, std=0.4)


class Group:
    """One safetensors file of cases."""

    def __init__(self, name, store=None):
        self.name, self.store = name, store  # store: the dtype that floats are rounded to (None keeps f64)
        self.tensors, self.config = {}, {}

    def put(self, case, key, value):
        value = torch.as_tensor(value).detach().clone().contiguous()
        if value.is_floating_point():
            if self.store is not None:
                value = value.to(self.store)
            assert not value.isnan().any(), f"{case}/{key} has a NaN"
            assert value.isfinite().all() or "mask" in key, f"{case}/{key} is not finite"
        full = f"{case}/{key}"
        assert full not in self.tensors, f"{full} twice"
        self.tensors[full] = value

    def representable(self, x):
        """Rounds to what the file can hold, so that the file's inputs are exactly those of the computation."""
        return x if self.store is None or not x.is_floating_point() else x.to(self.store).to(x.dtype)

    def begin(self, case, config):
        assert case not in self.config, f"case {case} twice"
        self.config[case] = config

    def outputs_and_cotangents(self, case, outputs, rng):
        """Stores the outputs with a random cotangent for each differentiable one; returns sum(output * grad_output)."""
        single = list(outputs) == ["out"]
        loss = 0
        for name, y in outputs.items():
            self.put(case, f"output.{name}", y)
            if y.requires_grad:
                g = self.representable(rng.normal(*y.shape))
                self.put(case, "grad_output" if single else f"grad_output.{name}", g)
                loss = loss + (y * g.to(y.dtype)).sum()
        return loss

    def op(self, case, fn, inputs, config=None, nograd=(), buffers=None):
        """Records `fn(**inputs, **buffers, **config)`: a functional op, whose float inputs all get gradients (but `nograd`)."""
        rng = Rng(f"{self.name}/{case}/cotangent")
        config, buffers = config or {}, buffers or {}
        self.begin(case, config)
        for name, b in buffers.items():
            self.put(case, f"buffer.{name}", b)
        leaves = {}
        for name, x in inputs.items():
            self.put(case, f"input.{name}", x)
            leaves[name] = x.detach().clone().requires_grad_(x.is_floating_point() and name not in nograd)
        outputs = named(fn(**leaves, **buffers, **config))
        loss = self.outputs_and_cotangents(case, outputs, rng)
        self.gradients(case, loss, {}, leaves)
        for name, b in buffers.items():
            self.put(case, f"buffer_after.{name}", b)

    def module(self, case, module, inputs, config, forward=None, loss=None, nograd=()):
        """Records `forward(module, **inputs)`. If `loss` names an output, that is what is differentiated; otherwise random cotangents are used."""
        rng = Rng(f"{self.name}/{case}/cotangent")
        forward = forward or (lambda m, **xs: m(*xs.values()))
        self.begin(case, config)
        state = set(module.state_dict().keys())
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(self.representable(p))
        inputs = {name: self.representable(x) for name, x in inputs.items()}
        params = dict(module.named_parameters())  # tied parameters appear once, under their first name
        buffers = {n: b for n, b in module.named_buffers() if n in state}
        for name, p in params.items():
            self.put(case, f"param.{name}", p)
        for name, b in buffers.items():
            self.put(case, f"buffer.{name}", b)
        leaves = {}
        for name, x in inputs.items():
            self.put(case, f"input.{name}", x)
            leaves[name] = x.detach().clone().requires_grad_(x.is_floating_point() and name not in nograd)
        outputs = named(forward(module, **leaves))
        if loss is None:
            total = self.outputs_and_cotangents(case, outputs, rng)
        else:
            total = outputs[loss]
            for name, y in outputs.items():
                self.put(case, f"output.{name}", y)
        self.gradients(case, total, params, leaves)
        for name, b in buffers.items():
            self.put(case, f"buffer_after.{name}", b)
        if self.store is not None:
            self.compare_in_store_dtype(case, module, inputs, forward, loss)

    def compare_in_store_dtype(self, case, module, inputs, forward, loss):
        """Runs the case again in the file's own dtype: what PyTorch's rounding costs, and a guard against kinks near by."""
        twin = copy.deepcopy(module).to(self.store)
        outputs = forward(twin, **{n: x.to(self.store) if x.is_floating_point() else x for n, x in inputs.items()})
        if loss is None:
            total = sum((y * self.tensors[f"{case}/grad_output.{n}"]).sum() for n, y in outputs.items())
        else:
            total = outputs[loss]
        named = {f"output.{n}": y for n, y in outputs.items()}
        params = dict(twin.named_parameters())
        grads = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        named |= {f"grad.{n}": torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), grads)}
        # relative to the tensor's largest element, and absolutely where that is small
        errors = {k: ((v - self.tensors[f"{case}/{k}"]).abs().max() / self.tensors[f"{case}/{k}"].abs().max().clamp(min=0.1)).item() for k, v in named.items()}
        worst = max(errors, key=errors.get)
        print(f"  {case}: PyTorch in {self.store} within {errors[worst]:.1e} (worst: {worst})")
        assert errors[worst] < 1e-4

    def gradients(self, case, loss, params, inputs):
        wanted = {f"grad.{n}": p for n, p in params.items()}
        wanted |= {f"grad_input.{n}": x for n, x in inputs.items() if x.requires_grad}
        if not wanted:
            return
        grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        for (key, leaf), g in zip(wanted.items(), grads):
            self.put(case, key, torch.zeros_like(leaf) if g is None else g)

    def save(self):
        DATA.mkdir(exist_ok=True)
        meta = {"config": json.dumps(self.config), "torch": torch.__version__.split("+")[0]}
        path = DATA / f"{self.name}.safetensors"
        path.write_bytes(canonical(save(self.tensors, metadata=meta)))
        print(f"{path.name}: {len(self.config)} cases, {len(self.tensors)} tensors, {path.stat().st_size} bytes")


def canonical(data):
    """The same file with its metadata in sorted order (the library's map has none), so that regenerating changes no byte."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + n :]


def named(y):
    return y if isinstance(y, dict) else {"out": y}
