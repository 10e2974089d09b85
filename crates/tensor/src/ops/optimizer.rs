//! One step of an optimiser, in place: the parameter and the optimiser's state change, the gradient does not.
//!
//! [`OptimizerStep`] is the mathematics, [`OptimizerStep::apply`] runs it: by the backend's fused kernel, one pass over
//! the memory, or by [`OptimizerStep::composed`] where it has none.

use crate::tensor::same_device;
use crate::{DType, Tensor, ensure};
use std::sync::{Arc, Mutex, PoisonError};

/// Stochastic gradient descent; state: the momentum buffer b, if `momentum` is not 0.
///
/// `g ← g + λp`; with a buffer `b ← μb + (1 − dampening)g` (`b ← g` at the first step), and the direction is b, or
/// `g + μb` with Nesterov; `p ← p − lr · direction`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// μ.
    pub momentum: f64,
    /// How much less than the whole gradient enters the momentum buffer.
    pub dampening: f64,
    /// λ, added to the gradient as λ·p.
    pub weight_decay: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
    /// Whether this is the first step, at which the buffer becomes the gradient itself.
    pub first: bool,
}

/// Adam (D. P. Kingma, J. Ba 2014, arXiv:1412.6980) or AdamW (I. Loshchilov, F. Hutter 2017, arXiv:1711.05101); state:
/// m, v, and with `amsgrad` (S. J. Reddi et al. 2018, arXiv:1904.09237) the largest v so far.
///
/// `p ← (1 − lr·λ)p` (decoupled) or `g ← g + λp`; `m ← β₁m + (1 − β₁)g`; `v ← β₂v + (1 − β₂)g²`;
/// `p ← p − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + eps)`, with the largest v in v's place under `amsgrad`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// λ.
    pub weight_decay: f64,
    /// Whether λ shrinks the parameter (AdamW) or adds to the gradient (L2).
    pub decoupled: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Which step this is, from 1: the bias corrections depend on it.
    pub step: u64,
}

/// RMSprop (T. Hinton 2012, lecture 6.5; centred as in A. Graves 2013, arXiv:1308.0850); state: v, then the mean a if
/// `centered`, then the buffer b if `momentum` is not 0.
///
/// `g ← g + λp`; `v ← αv + (1 − α)g²`; `d = √v + eps`, or centred, with `a ← αa + (1 − α)g`, `d = √(v − a²) + eps`;
/// `p ← p − lr·g/d`, or with momentum `b ← μb + g/d`, `p ← p − lr·b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of the squared gradient.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// λ, added to the gradient as λ·p.
    pub weight_decay: f64,
    /// μ.
    pub momentum: f64,
    /// Divide by the standard deviation instead of the root of the mean square.
    pub centered: bool,
}

/// Adagrad (J. Duchi, E. Hazan, Y. Singer 2011); state: the sum s of squared gradients.
///
/// `g ← g + λp`; `s ← s + g²`; `p ← p − lr/(1 + (t − 1)·lr_decay) · g / (√s + eps)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// How fast the learning rate falls.
    pub lr_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// λ, added to the gradient as λ·p.
    pub weight_decay: f64,
    /// Which step this is, from 1.
    pub step: u64,
}

/// Adadelta (M. D. Zeiler 2012, arXiv:1212.5701); state: the means v of squared gradients and u of squared changes.
///
/// `g ← g + λp`; `v ← ρv + (1 − ρ)g²`; `Δ = √(u + eps)/√(v + eps) · g`; `u ← ρu + (1 − ρ)Δ²`; `p ← p − lr·Δ`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    /// Learning rate.
    pub lr: f64,
    /// Decay of both means.
    pub rho: f64,
    /// Under both roots.
    pub eps: f64,
    /// λ, added to the gradient as λ·p.
    pub weight_decay: f64,
}

/// Lion (X. Chen et al. 2023, arXiv:2302.06675, algorithm 2); state: m.
///
/// `p ← p − lr·(sign(β₁m + (1 − β₁)g) + λp)`; `m ← β₂m + (1 − β₂)g`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate.
    pub lr: f64,
    /// Weight of m in the direction.
    pub beta1: f64,
    /// Decay of m.
    pub beta2: f64,
    /// λ.
    pub weight_decay: f64,
}

/// What happens to a parameter p, given its gradient g.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerStep {
    /// See [`Sgd`].
    Sgd(Sgd),
    /// See [`Adam`].
    Adam(Adam),
    /// See [`RmsProp`].
    RmsProp(RmsProp),
    /// See [`Adagrad`].
    Adagrad(Adagrad),
    /// See [`Adadelta`].
    Adadelta(Adadelta),
    /// See [`Lion`].
    Lion(Lion),
    /// `p ← p + weight·(g − p)`, a moving average; no state.
    Lerp {
        /// 0 keeps p, 1 takes g.
        weight: f64,
    },
    /// `p ← keep·p + scale·g`; no state.
    ScaleAdd {
        /// Factor of p.
        keep: f64,
        /// Factor of g.
        scale: f64,
    },
}

impl OptimizerStep {
    /// For error messages.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerStep::Sgd(_) => "sgd",
            OptimizerStep::Adam(_) => "adam",
            OptimizerStep::RmsProp(_) => "rmsprop",
            OptimizerStep::Adagrad(_) => "adagrad",
            OptimizerStep::Adadelta(_) => "adadelta",
            OptimizerStep::Lion(_) => "lion",
            OptimizerStep::Lerp { .. } => "lerp",
            OptimizerStep::ScaleAdd { .. } => "scale_add",
        }
    }
    /// How many state tensors it has; their order is that of the rule's documentation.
    pub fn states(&self) -> usize {
        match self {
            OptimizerStep::Sgd(o) => (o.momentum != 0.0) as usize,
            OptimizerStep::Adam(o) => 2 + o.amsgrad as usize,
            OptimizerStep::RmsProp(o) => 1 + o.centered as usize + (o.momentum != 0.0) as usize,
            OptimizerStep::Adagrad(_) | OptimizerStep::Lion(_) => 1,
            OptimizerStep::Adadelta(_) => 2,
            OptimizerStep::Lerp { .. } | OptimizerStep::ScaleAdd { .. } => 0,
        }
    }

    /// Runs the step: `p` and `state` change in place where nobody else holds their storage, and are copied first
    /// where somebody does. `g` is cast to the dtype of computation: p's own, or f32 for a `p` of a half type, which
    /// is also the state's.
    ///
    /// # Panics
    /// If `p` is not a float, the number of state tensors is not [`states`](OptimizerStep::states), or a shape, dtype
    /// or device differs.
    #[track_caller]
    pub fn apply(&self, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) {
        StepCell::new(*self).apply_all(&mut [Update { p, g, state }]);
    }

    #[track_caller]
    fn check(&self, Update { p, g, state }: &Update) {
        let op = self.name();
        ensure!(p.dtype().is_float(), DType, op, "updates floats, got a parameter of {}", p.dtype());
        let dtype = p.dtype().accumulator();
        ensure!(g.shape() == p.shape(), Shape, op, "the parameter is {}, its gradient {}", p.shape(), g.shape());
        ensure!(state.len() == self.states(), Value, op, "needs {} state tensors, got {}", self.states(), state.len());
        same_device(op, &[p, g]);
        for s in state.iter() {
            ensure!(s.shape() == p.shape(), Shape, op, "the parameter is {}, its state {}", p.shape(), s.shape());
            ensure!(
                s.dtype() == dtype,
                DType,
                op,
                "a parameter of {} needs state of {dtype}, got {}",
                p.dtype(),
                s.dtype()
            );
            same_device(op, &[p, s]);
        }
    }

    /// The same in simpler ops, one new tensor per operation: what the fused kernels are tested against.
    pub fn composed(&self, p: &mut Tensor, g: &Tensor, state: &mut [Tensor]) {
        let decayed = |weight_decay: f64| if weight_decay == 0.0 { g.clone() } else { g + &*p * weight_decay };
        let mean = |old: &Tensor, decay: f64, new: &Tensor| old * decay + new * (1.0 - decay);
        match *self {
            OptimizerStep::Sgd(o) => {
                let g = decayed(o.weight_decay);
                let direction = match state {
                    [] => g,
                    state => {
                        let fresh = if o.first { g.clone() } else { &state[0] * o.momentum + &g * (1.0 - o.dampening) };
                        state[0] = fresh;
                        if o.nesterov { g + &state[0] * o.momentum } else { state[0].clone() }
                    }
                };
                *p = &*p - direction * o.lr;
            }
            OptimizerStep::Adam(o) => {
                let g = if o.decoupled { g.clone() } else { decayed(o.weight_decay) };
                let correction = |beta: f64| 1.0 - beta.powf(o.step as f64);
                state[0] = mean(&state[0], o.beta1, &g);
                state[1] = mean(&state[1], o.beta2, &g.square());
                if o.amsgrad {
                    state[2] = state[2].maximum(&state[1]);
                }
                let root = state[1 + o.amsgrad as usize].sqrt();
                let denominator = root / correction(o.beta2).sqrt() + o.eps;
                let keep = if o.decoupled { 1.0 - o.lr * o.weight_decay } else { 1.0 };
                *p = &*p * keep - &state[0] / denominator * (o.lr / correction(o.beta1));
            }
            OptimizerStep::RmsProp(o) => {
                let g = decayed(o.weight_decay);
                state[0] = mean(&state[0], o.alpha, &g.square());
                let variance = if o.centered {
                    state[1] = mean(&state[1], o.alpha, &g);
                    // Rounding may take the variance of a constant gradient below 0.
                    (&state[0] - state[1].square()).clamp(0.0, f64::INFINITY)
                } else {
                    state[0].clone()
                };
                let mut direction = g / (variance.sqrt() + o.eps);
                if o.momentum != 0.0 {
                    let buffer = &mut state[1 + o.centered as usize];
                    *buffer = &*buffer * o.momentum + direction;
                    direction = buffer.clone();
                }
                *p = &*p - direction * o.lr;
            }
            OptimizerStep::Adagrad(o) => {
                let g = decayed(o.weight_decay);
                state[0] = &state[0] + g.square();
                let lr = o.lr / (1.0 + (o.step - 1) as f64 * o.lr_decay);
                *p = &*p - g / (state[0].sqrt() + o.eps) * lr;
            }
            OptimizerStep::Adadelta(o) => {
                let g = decayed(o.weight_decay);
                state[0] = mean(&state[0], o.rho, &g.square());
                let change = (&state[1] + o.eps).sqrt() / (&state[0] + o.eps).sqrt() * g;
                state[1] = mean(&state[1], o.rho, &change.square());
                *p = &*p - change * o.lr;
            }
            OptimizerStep::Lion(o) => {
                let direction = mean(&state[0], o.beta1, g).sign();
                *p = &*p - (direction + &*p * o.weight_decay) * o.lr;
                state[0] = mean(&state[0], o.beta2, g);
            }
            OptimizerStep::Lerp { weight } => *p = &*p + (g - &*p) * weight,
            OptimizerStep::ScaleAdd { keep, scale } => *p = &*p * keep + g * scale,
        }
        debug_assert!(p.dtype() != DType::F16 && p.dtype() != DType::BF16);
    }
}

/// A parameter that a step changes, given its gradient and the optimiser's state of it.
pub struct Update<'a> {
    /// The parameter.
    pub p: &'a mut Tensor,
    /// Its gradient.
    pub g: &'a Tensor,
    /// As many tensors as the step [has](OptimizerStep::states).
    pub state: &'a mut [Tensor],
}

/// Updates that are made together: no more half-typed parameters than these are there in f32 at a time.
const TOGETHER: usize = 64;

/// A step whose numbers may be other ones when it is [replayed](crate::replay): whoever has a clone can set them.
#[derive(Clone, Debug)]
pub struct StepCell(Arc<Mutex<OptimizerStep>>);

impl StepCell {
    /// This step, for now.
    pub fn new(step: OptimizerStep) -> StepCell {
        StepCell(Arc::new(Mutex::new(step)))
    }
    /// What the step is now.
    pub fn get(&self) -> OptimizerStep {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What it is from now on.
    pub fn set(&self, step: OptimizerStep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// [`OptimizerStep::apply`] of many parameters at once: few launches where a backend has a kernel for it.
    ///
    /// # Panics
    /// As `apply`.
    #[track_caller]
    pub fn apply_all(&self, updates: &mut [Update]) {
        let step = self.get();
        updates.iter().for_each(|update| step.check(update));
        updates.chunks_mut(TOGETHER).for_each(|some| self.apply_some(some));
    }

    #[track_caller]
    fn apply_some(&self, updates: &mut [Update]) {
        let accumulator = |u: &Update| u.p.dtype().accumulator();
        let gradients: Vec<Tensor> = updates.iter().map(|u| u.g.to_dtype(accumulator(u)).contiguous()).collect();
        // Half types are computed in f32.
        let mut wide: Vec<Option<Tensor>> =
            updates.iter().map(|u| u.p.dtype().is_half().then(|| u.p.to_dtype(accumulator(u)))).collect();
        let mut ready: Vec<Update> = Vec::with_capacity(updates.len());
        for ((u, g), wide) in updates.iter_mut().zip(&gradients).zip(&mut wide) {
            for s in u.state.iter_mut() {
                s.make_unique();
            }
            ready.push(Update { p: wide.as_mut().unwrap_or(u.p).make_unique(), g, state: u.state });
        }
        while let Some(first) = ready.first() {
            let (dtype, device) = (first.p.dtype(), first.p.device());
            let like = |u: &Update| u.p.dtype() == dtype && u.p.device() == device;
            let (mut alike, rest): (Vec<Update>, _) = ready.into_iter().partition(like);
            device.backend().optimizer_steps(self, &mut alike);
            ready = rest;
        }
        for (u, wide) in updates.iter_mut().zip(wide) {
            let Some(wide) = wide else { continue };
            u.p.assign(&wide.to_dtype(u.p.dtype()));
        }
    }
}
