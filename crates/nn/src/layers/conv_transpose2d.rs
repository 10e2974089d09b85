//! Transposed convolution over two dimensions: the adjoint of [`Conv2d`](super::Conv2d).

use super::conv1d::check_groups;
use super::pair::Pair;
use crate::{Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_tensor::{ConvTranspose2dOptions, ensure};

/// Transposed convolution: `[B, in_channels, H, W]` → `[B, out_channels, H', W']` with
/// `H' = (H − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1`, likewise `W'`.
///
/// Parameters: `weight` `[in_channels, out_channels/groups, kernel height, kernel width]` and `bias` `[out_channels]`, both
/// from U(±1/√fan) with `fan = out_channels/groups · kernel height · kernel width`, as in PyTorch.
#[derive(Module)]
#[module(extra_repr)]
pub struct ConvTranspose2d {
    /// `[in_channels, out_channels/groups, kernel height, kernel width]`.
    pub weight: Param,
    /// `[out_channels]`.
    pub bias: Option<Param>,
    out_channels: usize,
    #[module(skip)]
    options: ConvTranspose2dOptions,
}
layer!(ConvTranspose2d);

impl ConvTranspose2d {
    /// Stride 1, no padding, one group, with a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Pair>) -> ConvTranspose2d {
        let Pair([kh, kw]) = kernel_size.into();
        let fan = out_channels * kh * kw;
        ConvTranspose2d {
            weight: Param::new(init::by_fan_in([in_channels, out_channels, kh, kw], fan)),
            bias: Some(Param::new(init::by_fan_in(out_channels, fan))),
            out_channels,
            options: ConvTranspose2dOptions::default(),
        }
    }
    /// Steps between two windows of the output.
    pub fn stride(mut self, stride: impl Into<Pair>) -> ConvTranspose2d {
        self.options.stride = stride.into().0;
        self
    }
    /// Rows and columns cut off at each edge of the output.
    pub fn padding(mut self, padding: impl Into<Pair>) -> ConvTranspose2d {
        self.options.padding = padding.into().0;
        self
    }
    /// Rows and columns added at one edge of the output: which of the sizes that a strided convolution maps to one.
    pub fn output_padding(mut self, padding: impl Into<Pair>) -> ConvTranspose2d {
        self.options.output_padding = padding.into().0;
        self
    }
    /// Steps between two elements of a window.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> ConvTranspose2d {
        self.options.dilation = dilation.into().0;
        self
    }
    /// Channels are split into groups that do not see each other. Draws fresh parameters.
    ///
    /// # Panics
    /// If the channels do not divide evenly.
    #[track_caller]
    pub fn groups(mut self, groups: usize) -> ConvTranspose2d {
        let [in_channels, _, kh, kw] = self.weight.tensor().dims_of("ConvTranspose2d");
        check_groups("ConvTranspose2d", in_channels, self.out_channels, groups);
        let inner = self.out_channels / groups;
        self.weight = Param::new(init::by_fan_in([in_channels, inner, kh, kw], inner * kh * kw));
        self.options.groups = groups;
        let bias = self.bias.is_some();
        self.bias = None;
        self.bias(bias)
    }
    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> ConvTranspose2d {
        match bias {
            false => self.bias = None,
            true if self.bias.is_none() => {
                let fan = self.weight.tensor().dims()[1..].iter().product();
                self.bias = Some(Param::new(init::by_fan_in(self.out_channels, fan)));
            }
            true => {}
        }
        self
    }
    /// `[B, in_channels, H, W]` → `[B, out_channels, H', W']`.
    ///
    /// # Panics
    /// If `x` has another shape.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        let n = self.weight.tensor().dim(0);
        let fits = x.rank() == 4 && x.dim(1) == n;
        ensure!(fits, Shape, "ConvTranspose2d", "expected input [B, {n}, H, W], got {} ({self})", x.shape());
        x.conv_transpose2d(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref(), &self.options)
    }
    fn extra_repr(&self) -> String {
        let (w, o) = (self.weight.tensor(), &self.options);
        let kernel = Pair([w.dim(2), w.dim(3)]);
        let mut text = format!("{}, {}, kernel_size={kernel}, stride={}", w.dim(0), self.out_channels, Pair(o.stride));
        for (name, value, default) in [
            ("padding", o.padding, [0, 0]),
            ("output_padding", o.output_padding, [0, 0]),
            ("dilation", o.dilation, [1, 1]),
        ] {
            if value != default {
                text += &format!(", {name}={}", Pair(value));
            }
        }
        if o.groups != 1 {
            text += &format!(", groups={}", o.groups);
        }
        text + &format!(", bias={}", self.bias.is_some())
    }
}
