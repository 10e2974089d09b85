"""Optimisers, schedules, clipping and the moving average of weights. f64.

Optimisers: `param.*` is the start, `input.grad.*` the gradient given at each of the 10 steps (stacked in dimension 0),
`output.*` the parameter after each step (stacked alike). The gradients are random tensors: nothing depends on autograd.
Schedules: `output.lr[t]` is the learning rate in force during step t, counted from 0.
"""

import math

import torch

from common import F64, Group, Rng

G = Group("optim")
STEPS = 10


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2, with decoupled weight decay."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = (beta1 * m + (1 - beta1) * p.grad).sign()
                p.sub_(lr * (update + decay * p))
                m.copy_(beta2 * m + (1 - beta2) * p.grad)


class Muon(torch.optim.Optimizer):
    """Keller Jordan, https://kellerjordan.github.io/posts/muon/, in the parameters' own dtype.

    torch.optim.Muon iterates in bfloat16, which no other implementation can match to more than two digits;
    this is the same computation in f64, and `muon` below compares the two.
    """

    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, ns_steps=5, adjust_lr_fn="original"):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn))

    @staticmethod
    def orthogonalise(g, steps, eps=1e-7):
        """The quintic Newton–Schulz iteration: pushes every singular value of `g` towards 1."""
        a, b, c = 3.4445, -4.7750, 2.0315
        tall = g.shape[0] > g.shape[1]
        x = g.T if tall else g
        x = x / x.norm().clamp(min=eps)
        for _ in range(steps):
            s = x @ x.T
            x = a * x + (b * s + c * s @ s) @ x
        return x.T if tall else x

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            mu, lr = group["momentum"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - mu)
                update = p.grad.lerp(m, mu) if group["nesterov"] else m
                update = self.orthogonalise(update, group["ns_steps"])
                rows, columns = p.shape
                if group["adjust_lr_fn"] == "original":
                    scale = math.sqrt(max(1, rows / columns))
                else:  # match_rms_adamw, Liu et al. 2025
                    scale = 0.2 * math.sqrt(max(rows, columns))
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * scale * update)


def problem(vectors=True):
    r = Rng("optim/problem")
    second = ("b", (5,)) if vectors else ("v", (5, 3))
    start = {"w": r.normal(3, 4), second[0]: r.normal(*second[1])}
    # scales that differ by step, and one step of exact zeros in a corner: moments have to decay there
    grads = {n: r.normal(STEPS, *p.shape) * r.uniform(STEPS, *[1] * p.dim(), low=0.2, high=3) for n, p in start.items()}
    grads["w"][4, 1, 2] = 0
    return start, grads


def run(optimiser, start, grads):
    """Parameters after each step, stacked. `optimiser` maps a dict of parameters to an optimiser."""
    params = {n: torch.nn.Parameter(p.clone()) for n, p in start.items()}
    opt = optimiser(params)
    history = {n: [] for n in params}
    for t in range(STEPS):
        for n, p in params.items():
            p.grad = grads[n][t].clone()
        opt.step()
        for n, p in params.items():
            history[n].append(p.detach().clone())
    return {n: torch.stack(h) for n, h in history.items()}


def record(case, config, optimiser, vectors=True):
    start, grads = problem(vectors)
    G.begin(case, config)
    for n in start:
        G.put(case, f"param.{n}", start[n])
        G.put(case, f"input.grad.{n}", grads[n])
    out = run(optimiser, start, grads)
    for n in start:
        G.put(case, f"output.{n}", out[n])
    return out


def optimisers():
    def one(case, cls, plain=False, **config):
        more = {} if plain else {"foreach": False}
        record(case, {"optimizer": cls.__name__} | config, lambda ps: cls(list(ps.values()), **config, **more))

    o = torch.optim
    one("sgd", o.SGD, lr=0.1)
    one("sgd_weight_decay", o.SGD, lr=0.1, weight_decay=0.05)
    one("sgd_momentum", o.SGD, lr=0.1, momentum=0.9)
    one("sgd_nesterov", o.SGD, lr=0.1, momentum=0.9, nesterov=True)
    one("sgd_dampening", o.SGD, lr=0.1, momentum=0.9, dampening=0.3)
    one("sgd_momentum_weight_decay", o.SGD, lr=0.1, momentum=0.9, weight_decay=0.05)
    one("sgd_nesterov_weight_decay", o.SGD, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05)
    one("adam", o.Adam, lr=0.05)
    one("adam_betas_eps", o.Adam, lr=0.05, betas=[0.8, 0.95], eps=1e-3)
    one("adam_weight_decay", o.Adam, lr=0.05, weight_decay=0.1)
    one("adam_amsgrad", o.Adam, lr=0.05, betas=[0.9, 0.8], amsgrad=True)
    one("adam_amsgrad_weight_decay", o.Adam, lr=0.05, betas=[0.9, 0.8], amsgrad=True, weight_decay=0.1)
    one("adamw", o.AdamW, lr=0.05)
    one("adamw_weight_decay", o.AdamW, lr=0.05, betas=[0.9, 0.95], weight_decay=0.3)
    one("adamw_amsgrad", o.AdamW, lr=0.05, betas=[0.9, 0.8], amsgrad=True)
    one("rmsprop", o.RMSprop, lr=0.05)
    one("rmsprop_weight_decay", o.RMSprop, lr=0.05, alpha=0.9, eps=1e-4, weight_decay=0.1)
    one("rmsprop_centered", o.RMSprop, lr=0.05, centered=True)
    one("rmsprop_momentum", o.RMSprop, lr=0.05, momentum=0.9)
    one("rmsprop_centered_momentum", o.RMSprop, lr=0.05, alpha=0.9, centered=True, momentum=0.8)
    one("adagrad", o.Adagrad, lr=0.2)
    one("adagrad_all", o.Adagrad, lr=0.2, lr_decay=0.1, weight_decay=0.05, initial_accumulator_value=0.3, eps=1e-6)
    one("adadelta", o.Adadelta, lr=1.0)
    one("adadelta_all", o.Adadelta, lr=0.5, rho=0.8, eps=1e-4, weight_decay=0.05)
    one("lion", Lion, True, lr=0.02)
    one("lion_weight_decay", Lion, True, lr=0.02, betas=[0.95, 0.98], weight_decay=0.3)
    groups = {"optimizer": "AdamW", "groups": {"w": dict(lr=0.05, weight_decay=0.2), "b": dict(lr=0.01, weight_decay=0.0)}}
    record("adamw_groups", groups, lambda ps: o.AdamW([{"params": [ps[n]]} | g for n, g in groups["groups"].items()], foreach=False))


def muon():
    for case, config in {
        "muon": dict(lr=0.05, weight_decay=0.1),
        "muon_no_nesterov": dict(lr=0.05, weight_decay=0.0, nesterov=False),
        "muon_match_rms_adamw": dict(lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    }.items():
        ours = record(case, {"optimizer": "Muon"} | config, lambda ps: Muon(list(ps.values()), **config), vectors=False)
        theirs = run(lambda ps: torch.optim.Muon(list(ps.values()), **config), *problem(vectors=False))
        for n in ours:  # bfloat16 has 8 bits; ten steps of lr 0.05
            off = (ours[n] - theirs[n]).abs().max().item()
            assert off < 0.02, f"{case}.{n}: {off} from torch.optim.Muon"
            print(f"  {case}.{n}: within {off:.1e} of torch.optim.Muon, whose iteration is in bfloat16")


def schedules():
    s = torch.optim.lr_scheduler
    LR = 0.4

    def optimiser():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=F64))], lr=LR, momentum=0.9)

    def one(case, config, make, **more):
        opt = optimiser()
        schedule = make(opt)
        G.begin(case, {"lr": LR} | config)
        lrs, momenta = [], []
        for _ in range(30):
            lrs.append(opt.param_groups[0]["lr"])
            momenta.append(opt.param_groups[0]["momentum"])
            opt.step()
            schedule.step()
        G.put(case, "output.lr", torch.tensor(lrs, dtype=F64))
        if "momentum" in more:
            G.put(case, "output.momentum", torch.tensor(momenta, dtype=F64))

    def plain(case, cls, **config):
        one(case, {"schedule": cls.__name__} | config, lambda opt: cls(opt, **config))

    plain("step_lr", s.StepLR, step_size=7, gamma=0.3)
    plain("multi_step_lr", s.MultiStepLR, milestones=[4, 11, 23], gamma=0.5)
    plain("exponential_lr", s.ExponentialLR, gamma=0.9)
    plain("cosine_annealing_lr", s.CosineAnnealingLR, T_max=29)
    plain("cosine_annealing_lr_eta_min", s.CosineAnnealingLR, T_max=40, eta_min=0.02)
    plain("cosine_annealing_lr_past_end", s.CosineAnnealingLR, T_max=12, eta_min=0.02)  # rises again after T_max
    plain("linear_lr_warm_up", s.LinearLR, start_factor=0.1, end_factor=1.0, total_iters=8)
    plain("linear_lr_down", s.LinearLR, start_factor=1.0, end_factor=0.2, total_iters=25)
    for strategy in ("cos", "linear"):
        for three in (False, True):
            config = dict(max_lr=0.6, total_steps=31, pct_start=0.3, anneal_strategy=strategy, div_factor=20.0,
                          final_div_factor=1e3, three_phase=three, base_momentum=0.85, max_momentum=0.95)
            case = f"one_cycle_lr_{strategy}" + ("_three_phase" if three else "")
            one(case, {"schedule": "OneCycleLR"} | config, lambda opt: s.OneCycleLR(opt, **config), momentum=True)

    for case, config in {
        "reduce_on_plateau": dict(mode="min", factor=0.5, patience=2, threshold=0.01, threshold_mode="rel"),
        "reduce_on_plateau_cooldown": dict(mode="min", factor=0.3, patience=1, threshold=0.05, threshold_mode="abs", cooldown=3, min_lr=0.02),
        "reduce_on_plateau_max": dict(mode="max", factor=0.5, patience=2, threshold=0.01, threshold_mode="rel"),
    }.items():
        r = Rng(f"optim/{case}")
        falling = torch.exp(-torch.arange(30) / 6.0).double() + 0.3
        metric = falling + r.normal(30, std=0.03)
        if config["mode"] == "max":
            metric = 2 - metric
        opt = optimiser()
        schedule = s.ReduceLROnPlateau(opt, **config)
        G.begin(case, {"lr": LR, "schedule": "ReduceLROnPlateau"} | config)
        lrs = []
        for value in metric:
            lrs.append(opt.param_groups[0]["lr"])
            schedule.step(value.item())
        assert len(set(lrs)) >= 3, lrs
        G.put(case, "input.metric", metric)  # metric[t] is reported after step t
        G.put(case, "output.lr", torch.tensor(lrs, dtype=F64))

    # Vaswani et al. 2017, section 5.3; their step counts from 1
    d_model, warmup = 512, 9
    noam = lambda t: d_model**-0.5 * min((t + 1) ** -0.5, (t + 1) * warmup**-1.5)  # noqa: E731
    one("noam", {"schedule": "LambdaLR", "d_model": d_model, "warmup": warmup, "formula": "lr * d_model^-0.5 * min(s^-0.5, s * warmup^-1.5), s = t + 1"},
        lambda opt: s.LambdaLR(opt, noam))
    config = {
        "schedule": "SequentialLR", "milestones": [6],
        "parts": [["LinearLR", dict(start_factor=0.1, end_factor=1.0, total_iters=6)], ["CosineAnnealingLR", dict(T_max=24, eta_min=0.01)]],
    }
    build = lambda opt, parts: [getattr(s, name)(opt, **kw) for name, kw in parts]  # noqa: E731
    one("sequential_lr_warm_up_cosine", config, lambda opt: s.SequentialLR(opt, build(opt, config["parts"]), config["milestones"]))
    config2 = {
        "schedule": "SequentialLR", "milestones": [5, 18],
        "parts": [["LinearLR", dict(start_factor=0.25, end_factor=1.0, total_iters=5)], ["ExponentialLR", dict(gamma=0.9)], ["StepLR", dict(step_size=4, gamma=0.5)]],
    }
    one("sequential_lr_three", config2, lambda opt: s.SequentialLR(opt, build(opt, config2["parts"]), config2["milestones"]))


def clipping():
    from torch.nn.utils import clip_grad_norm_, clip_grad_value_

    def grads():
        r = Rng("optim/clip")
        ps = {"w": torch.zeros(3, 4, dtype=F64), "b": torch.zeros(5, dtype=F64)}
        for n, p in ps.items():
            p.grad = r.distinct(*p.shape) if n == "w" else r.distinct(*p.shape, high=3.0)
        return ps

    def one(case, config, clip):
        ps = grads()
        G.begin(case, config)
        for n, p in ps.items():
            G.put(case, f"input.grad.{n}", p.grad)
        total = clip(list(ps.values()))
        for n, p in ps.items():
            G.put(case, f"output.grad.{n}", p.grad)
        if total is not None:
            G.put(case, "output.total_norm", total)

    for norm in (1.0, 2.0, math.inf):
        for name, max_norm in {"": 0.7, "_not_needed": 100.0}.items():
            config = {"clip": "norm", "max_norm": max_norm, "norm_type": "inf" if norm == math.inf else norm}
            one(f"clip_grad_norm_{norm:g}{name}", config, lambda ps: clip_grad_norm_(ps, max_norm, norm, foreach=False))
    one("clip_grad_value", {"clip": "value", "clip_value": 0.8}, lambda ps: clip_grad_value_(ps, 0.8))


def moving_average():
    """torch.optim.swa_utils.AveragedModel with the exponential rule; the first update copies the weights."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    case, decay = "ema", 0.8
    start, grads = problem()
    module = torch.nn.ParameterDict({n: torch.nn.Parameter(p.clone()) for n, p in start.items()})
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    G.begin(case, {"decay": decay, "note": "update t sees the weights input.*[t]; the first copies them"})
    seen, out = {n: [] for n in start}, {n: [] for n in start}
    for t in range(STEPS):
        with torch.no_grad():
            for n, p in module.items():
                p.sub_(0.1 * grads[n][t])
        average.update_parameters(module)
        for n in start:
            seen[n].append(module[n].detach().clone())
            out[n].append(average.module[n].detach().clone())
    for n in start:
        G.put(case, f"input.{n}", torch.stack(seen[n]))
        G.put(case, f"output.{n}", torch.stack(out[n]))


for make in (optimisers, muon, schedules, clipping, moving_average):
    make()
G.save()
