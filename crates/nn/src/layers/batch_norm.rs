//! Normalising each channel by the statistics of the batch.

use crate::{Buffer, Mode, Module, Param};
use ferrograd_autograd::Var;
use ferrograd_tensor::{DType, Tensor, ensure};

/// What the layers of both ranks share.
#[derive(Module)]
struct BatchNorm {
    weight: Option<Param>,
    bias: Option<Param>,
    running_mean: Option<Buffer>,
    running_var: Option<Buffer>,
    num_batches_tracked: Option<Buffer>,
    num_features: usize,
    eps: f64,
    momentum: Option<f64>,
    mode: Mode,
}

impl BatchNorm {
    fn new(num_features: usize) -> BatchNorm {
        BatchNorm {
            weight: Some(Param::new(Tensor::ones(num_features))),
            bias: Some(Param::new(Tensor::zeros(num_features))),
            running_mean: Some(Buffer::new(Tensor::zeros(num_features))),
            running_var: Some(Buffer::new(Tensor::ones(num_features))),
            num_batches_tracked: Some(Buffer::new(Tensor::scalar(0i64))),
            num_features,
            eps: 1e-5,
            momentum: Some(0.1),
            mode: Mode::new(),
        }
    }
    fn affine(&mut self, affine: bool) {
        if affine != self.weight.is_some() {
            self.weight = affine.then(|| Param::new(Tensor::ones(self.num_features)));
            self.bias = affine.then(|| Param::new(Tensor::zeros(self.num_features)));
        }
    }
    fn track_running_stats(&mut self, track: bool) {
        if track != self.running_mean.is_some() {
            let fresh = BatchNorm::new(self.num_features);
            self.running_mean = fresh.running_mean.filter(|_| track);
            self.running_var = fresh.running_var.filter(|_| track);
            self.num_batches_tracked = fresh.num_batches_tracked.filter(|_| track);
        }
    }
    /// `(1 − momentum) · running + momentum · batch`; without a momentum, the mean over all batches so far. Under half precision
    /// it is formed in f32: small steps would be lost.
    fn running_mean_of(&self, running: &Tensor, batch: &Tensor, seen: Option<&Tensor>) -> Tensor {
        let wide = running.dtype().accumulator();
        let (running, batch) = (running.to_dtype(wide), batch.to_dtype(wide));
        match (self.momentum, seen) {
            (Some(momentum), _) => running.mul_scalar(1.0 - momentum).add(&batch.mul_scalar(momentum)),
            (None, Some(seen)) => {
                let weight = seen.recip();
                running.mul(&weight.rsub_scalar(1.0).to_dtype(wide)).add(&batch.mul(&weight.to_dtype(wide)))
            }
            (None, None) => batch,
        }
    }
    #[track_caller]
    fn forward(&self, layer: &'static str, x: &Var) -> Var {
        let (weight, bias) = (self.weight.as_ref().map(Param::var), self.bias.as_ref().map(Param::var));
        let (weight, bias) = (weight.as_ref(), bias.as_ref());
        let running = self.running_mean.as_ref().zip(self.running_var.as_ref());
        if let (false, Some((mean, var))) = (self.mode.training(), running) {
            return x.batch_norm_eval(&mean.tensor(), &var.tensor(), weight, bias, self.eps);
        }
        let n = x.numel() / self.num_features.max(1);
        ensure!(
            n > 1 || !self.mode.training(),
            Value,
            layer,
            "training needs more than one value per channel, got input {}",
            x.shape()
        );
        let (y, mean, var) = x.batch_norm(weight, bias, self.eps);
        if let (true, Some((running_mean, running_var))) = (self.mode.training(), running) {
            // How many batches there were stays where it is: looking at it would wait for the device.
            let seen = self.num_batches_tracked.as_ref().map(|seen| {
                seen.update(|seen| {
                    let next = seen.add_scalar(1.0);
                    seen.assign(&next);
                    next.to_dtype(DType::F64)
                })
            });
            let unbiased = var.mul_scalar(n as f64 / (n as f64 - 1.0));
            for (buffer, batch) in [(running_mean, mean), (running_var, unbiased)] {
                buffer.update(|running| {
                    let new = self.running_mean_of(running, &batch, seen.as_ref());
                    running.assign(&new.to_dtype(running.dtype()));
                });
            }
        }
        y
    }
    fn extra_repr(&self) -> String {
        let momentum = self.momentum.map_or("None".to_string(), |m| m.to_string());
        let (affine, tracked) = (self.weight.is_some(), self.running_mean.is_some());
        let (n, eps) = (self.num_features, self.eps);
        format!("{n}, eps={eps}, momentum={momentum}, affine={affine}, track_running_stats={tracked}")
    }
}

macro_rules! batch_norm {
    ($(#[$doc:meta])* $Norm:ident $expected:literal $ranks:pat) => {
        $(#[$doc])*
        ///
        /// `y = (x − E[x]) / √(Var[x] + eps) · weight + bias` for each channel (dimension 1), S. Ioffe, C. Szegedy 2015. In
        /// training, mean and biased variance are the batch's, and the running ones move towards them:
        /// `running ← (1 − momentum) · running + momentum · batch`, with the unbiased variance. In evaluation, the running
        /// ones are used; without `track_running_stats`, the batch's always.
        ///
        /// Parameters: `weight` (ones) and `bias` (zeros) `[C]`. Buffers: `running_mean` (zeros), `running_var` (ones) and
        /// `num_batches_tracked` (i64).
        #[derive(Module)]
        #[module(extra_repr)]
        pub struct $Norm {
            #[module(flatten)]
            norm: BatchNorm,
        }
        layer!($Norm);
        impl $Norm {
            /// `eps` 1e-5, momentum 0.1, affine, with running statistics.
            pub fn new(num_features: usize) -> $Norm {
                $Norm { norm: BatchNorm::new(num_features) }
            }
            /// What is added to the variance.
            pub fn eps(mut self, eps: f64) -> $Norm {
                self.norm.eps = eps;
                self
            }
            /// The weight of each batch in the running statistics; `None`: all batches count the same.
            pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> $Norm {
                self.norm.momentum = momentum.into();
                self
            }
            /// With or without `weight` and `bias`.
            pub fn affine(mut self, affine: bool) -> $Norm {
                self.norm.affine(affine);
                self
            }
            /// With or without running statistics.
            pub fn track_running_stats(mut self, track: bool) -> $Norm {
                self.norm.track_running_stats(track);
                self
            }
            /// `[C]`: the scale.
            pub fn weight(&self) -> Option<&Param> {
                self.norm.weight.as_ref()
            }
            /// `[C]`: the shift.
            pub fn bias(&self) -> Option<&Param> {
                self.norm.bias.as_ref()
            }
            /// `[C]`: the running mean.
            pub fn running_mean(&self) -> Option<&Buffer> {
                self.norm.running_mean.as_ref()
            }
            /// `[C]`: the running variance.
            pub fn running_var(&self) -> Option<&Buffer> {
                self.norm.running_var.as_ref()
            }
            /// The normalised input, of the same shape.
            ///
            /// # Panics
            /// If `x` has another rank or number of channels; in training also if there is one value per channel.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                let (n, layer) = (self.norm.num_features, stringify!($Norm));
                let fits = matches!(x.rank(), $ranks) && x.dim(1) == n;
                let expected = $expected.replace('C', &n.to_string());
                ensure!(fits, Shape, layer, "expected input {expected}, got {} ({self})", x.shape());
                self.norm.forward(layer, x)
            }
            fn extra_repr(&self) -> String {
                self.norm.extra_repr()
            }
        }
    };
}
batch_norm! {
    /// Batch norm of `[B, C]` or `[B, C, T]`.
    BatchNorm1d "[B, C] or [B, C, T]" 2 | 3
}
batch_norm! {
    /// Batch norm of `[B, C, H, W]`.
    BatchNorm2d "[B, C, H, W]" 4
}
