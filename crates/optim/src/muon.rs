//! Muon.

use crate::options::{Setting, fraction, hyperparameters, named_options, not_negative};
use crate::{Moment, Rule, Stepper};
use ferrograd_tensor::ops::optimizer::OptimizerStep;
use ferrograd_tensor::{Tensor, ensure};

/// Muon, momentum orthogonalised by Newton–Schulz (K. Jordan 2024, <https://kellerjordan.github.io/posts/muon/>). For
/// the weight matrices inside a network; embeddings, heads and vectors are better left to [`AdamW`](crate::AdamW).
///
/// `m ← m + (1 − μ)(g − m)`; `u = g + μ(m − g)` with Nesterov, else m; `p ← (1 − lr·λ)p − lr·s·`[`newton_schulz`]`(u)`
/// with the scale s of [`MuonScale`]. The iteration runs in the parameter's dtype (f32 for half types).
pub type Muon = Stepper<MuonRule>;

/// How far a step of [`Muon`] goes for a matrix of `rows × columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuonScale {
    /// `√max(1, rows/columns)`, as published.
    Original,
    /// `0.2·√max(rows, columns)`: as far as AdamW goes, so that its learning rate can be kept (J. Liu et al. 2025,
    /// arXiv:2502.16982).
    MatchRmsAdamW,
}
impl Setting for MuonScale {
    fn to_number(self) -> f64 {
        match self {
            MuonScale::Original => 0.0,
            MuonScale::MatchRmsAdamW => 1.0,
        }
    }
    fn from_number(x: f64) -> Result<Self, String> {
        match x {
            0.0 => Ok(MuonScale::Original),
            1.0 => Ok(MuonScale::MatchRmsAdamW),
            _ => Err("0 (original) or 1 (match_rms_adamw)".to_string()),
        }
    }
}

hyperparameters! {
    /// The rule of [`Muon`].
    MuonRule {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// λ: each step shrinks p by the factor 1 − lr·λ.
        weight_decay: f64 = 0.1,
        /// μ in [0, 1): decay of the mean of the gradient.
        momentum: f64 = 0.95,
        /// Look ahead as Nesterov does.
        nesterov: bool = true,
        /// Steps of the Newton–Schulz iteration.
        ns_steps: usize = 5,
        /// The smallest norm that the iteration divides by.
        eps: f64 = 1e-7,
        /// How the step depends on the matrix's shape.
        scale: MuonScale = MuonScale::Original,
    }
}

impl Rule for MuonRule {
    const NAME: &'static str = "Muon";
    named_options!();
    fn check(&self) -> Result<(), String> {
        not_negative(&[("lr", self.lr), ("weight_decay", self.weight_decay), ("eps", self.eps)])?;
        if !(1..100).contains(&self.ns_steps) {
            return Err(format!("ns_steps must be in 1..100, got {}", self.ns_steps));
        }
        fraction(&[("momentum", self.momentum)])
    }
    fn check_parameter(&self, p: &Tensor) -> Result<(), String> {
        match p.rank() {
            2 => Ok(()),
            _ => Err(format!("only matrices can be orthogonalised, it is {} (give the others to AdamW)", p.shape())),
        }
    }
    fn state_names(&self) -> Vec<&'static str> {
        vec!["momentum_buffer"]
    }
    fn direction(&self, _p: &Tensor, g: &Tensor, state: &mut [Tensor], _at: Moment) -> Option<Tensor> {
        if g.numel() == 0 {
            return None;
        }
        let m = &mut state[0];
        let g = g.to_dtype(m.dtype());
        let average = OptimizerStep::Lerp { weight: 1.0 - self.momentum };
        average.apply(m, &g, &mut []);
        let ahead = if self.nesterov { &g + (&*m - &g) * self.momentum } else { m.clone() };
        let (rows, columns) = (g.dims()[0] as f64, g.dims()[1] as f64);
        let scale = match self.scale {
            MuonScale::Original => (rows / columns).max(1.0).sqrt(),
            MuonScale::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
        };
        Some(newton_schulz(&ahead, self.ns_steps, self.eps) * scale)
    }
    fn step(&self, _at: Moment) -> OptimizerStep {
        OptimizerStep::ScaleAdd { keep: 1.0 - self.lr * self.weight_decay, scale: -self.lr }
    }
}

/// The quintic Newton–Schulz iteration: pushes every singular value of a matrix towards 1 and leaves its singular
/// vectors, `UΣVᵀ → U·(≈ I)·Vᵀ`.
///
/// `x ← g/max(‖g‖, eps)`, then `steps` times `s = xxᵀ`, `x ← ax + (bs + cs²)x` with a = 3.4445, b = −4.7750, c = 2.0315,
/// chosen for speed: after 5 steps the singular values lie around 0.7 to 1.2, not at 1.
///
/// # Panics
/// If `g` is no matrix.
#[track_caller]
pub fn newton_schulz(g: &Tensor, steps: usize, eps: f64) -> Tensor {
    const OP: &str = "newton_schulz";
    const A: f64 = 3.4445;
    const B: f64 = -4.7750;
    const C: f64 = 2.0315;
    ensure!(g.rank() == 2, Shape, OP, "needs a matrix, got {}", g.shape());
    if g.numel() == 0 {
        return g.clone();
    }
    // On the wide side xxᵀ is the smaller product.
    let tall = g.dims()[0] > g.dims()[1];
    let x = if tall { g.t() } else { g.clone() };
    // By the largest element first: the sum of squares must not overflow.
    let largest = x.abs().max();
    let safe = largest.clamp(1e-30, f64::INFINITY);
    let norm = (&x / &safe).square().sum().sqrt() * safe;
    let mut x = x / norm.clamp(eps, f64::INFINITY);
    for _ in 0..steps {
        let s = x.matmul(&x.t());
        let polynomial = &s * B + s.matmul(&s) * C;
        x = &x * A + polynomial.matmul(&x);
    }
    if tall { x.t() } else { x }
}
