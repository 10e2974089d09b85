//! Optimisers, learning-rate schedules, gradient clipping and averaging of weights.
//!
//! ```
//! use ferrograd_autograd::Var;
//! use ferrograd_nn::Param;
//! use ferrograd_optim::{Adam, Optimizer};
//! use ferrograd_tensor::Tensor;
//!
//! let x = Param::new(Tensor::new([3.0, -2.0f32]));
//! let mut adam = Adam::new([x.clone()]).lr(0.1).betas(0.9, 0.99);
//! for _ in 0..300 {
//!     let v: Var = x.var();
//!     let loss = (&v * &v).sum();
//!     adam.step(&loss.backward());
//! }
//! assert!(x.tensor().to_vec::<f32>().iter().all(|v| v.abs() < 1e-2));
//! ```
//!
//! An optimiser is a [`Stepper`] of a [`Rule`]: the rule is the hyperparameters, a direction computed from one
//! parameter's gradient, and an elementwise step along it; the stepper keeps groups, state and the state dict. A new optimiser
//! is a new `Rule`.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod adadelta;
mod adagrad;
mod adam;
mod adamw;
mod clip;
mod ema;
mod lion;
mod muon;
mod optimizer;
mod options;
mod rmsprop;
pub mod schedule;
mod sgd;
mod state;
mod stepper;

pub use adadelta::{Adadelta, AdadeltaRule};
pub use adagrad::{Adagrad, AdagradRule};
pub use adam::{Adam, AdamRule};
pub use adamw::{AdamW, AdamWRule};
pub use clip::{clip_grad_norm, clip_grad_value};
pub use ema::Ema;
pub use lion::{Lion, LionRule};
pub use muon::{Muon, MuonRule, MuonScale, newton_schulz};
pub use optimizer::{Moment, Optimizer, ParamGroup, Rule};
pub use options::Setting;
pub use rmsprop::{RmsProp, RmsPropRule};
pub use schedule::{
    Anneal, CosineAnnealingLr, ExponentialLr, LinearLr, MultiStepLr, NoamLr, OneCycleLr, PlateauMode,
    ReduceLrOnPlateau, Schedule, Scheduler, SequentialLr, StepLr, Threshold, WarmupCosine,
};
pub use sgd::{Sgd, SgdRule};
pub use stepper::Stepper;
