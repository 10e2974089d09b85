//! Convolution over two dimensions.

use super::conv1d::check_groups;
use super::pair::Pair;
use crate::{Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_tensor::{Conv2dOptions, ensure};

/// Cross-correlation over height and width: `[B, in_channels, H, W]` → `[B, out_channels, H', W']` with
/// `H' = (H + 2·padding − dilation·(kernel − 1) − 1)/stride + 1`, rounded down, likewise `W'`.
///
/// Parameters: `weight` `[out_channels, in_channels/groups, kernel height, kernel width]` and `bias` `[out_channels]`, both
/// from U(±1/√fan_in). Kernel, stride, padding and dilation take one number or `[height, width]`.
#[derive(Module)]
#[module(extra_repr)]
pub struct Conv2d {
    /// `[out_channels, in_channels/groups, kernel height, kernel width]`.
    pub weight: Param,
    /// `[out_channels]`.
    pub bias: Option<Param>,
    in_channels: usize,
    #[module(skip)]
    options: Conv2dOptions,
}
layer!(Conv2d);

impl Conv2d {
    /// Stride 1, no padding, one group, with a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Pair>) -> Conv2d {
        let Pair([kh, kw]) = kernel_size.into();
        let fan_in = in_channels * kh * kw;
        Conv2d {
            weight: Param::new(init::by_fan_in([out_channels, in_channels, kh, kw], fan_in)),
            bias: Some(Param::new(init::by_fan_in(out_channels, fan_in))),
            in_channels,
            options: Conv2dOptions::default(),
        }
    }
    /// Steps between two windows.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Conv2d {
        self.options.stride = stride.into().0;
        self
    }
    /// Zeros put at each edge.
    pub fn padding(mut self, padding: impl Into<Pair>) -> Conv2d {
        self.options.padding = padding.into().0;
        self
    }
    /// Steps between two elements of a window.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Conv2d {
        self.options.dilation = dilation.into().0;
        self
    }
    /// Channels are split into groups that do not see each other. Draws fresh parameters.
    ///
    /// # Panics
    /// If the channels do not divide evenly.
    #[track_caller]
    pub fn groups(mut self, groups: usize) -> Conv2d {
        let [out_channels, _, kh, kw] = self.weight.tensor().dims_of("Conv2d");
        check_groups("Conv2d", self.in_channels, out_channels, groups);
        let inner = self.in_channels / groups;
        self.weight = Param::new(init::by_fan_in([out_channels, inner, kh, kw], inner * kh * kw));
        self.options.groups = groups;
        let bias = self.bias.is_some();
        self.bias = None;
        self.bias(bias)
    }
    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Conv2d {
        match bias {
            false => self.bias = None,
            true if self.bias.is_none() => {
                let w = self.weight.tensor();
                self.bias = Some(Param::new(init::by_fan_in(w.dim(0), w.dims()[1..].iter().product())));
            }
            true => {}
        }
        self
    }
    /// `[B, in_channels, H, W]` → `[B, out_channels, H', W']`.
    ///
    /// # Panics
    /// If `x` has another shape or is smaller than the window.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        let n = self.in_channels;
        let fits = x.rank() == 4 && x.dim(1) == n;
        ensure!(fits, Shape, "Conv2d", "expected input [B, {n}, H, W], got {} ({self})", x.shape());
        x.conv2d(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref(), &self.options)
    }
    fn extra_repr(&self) -> String {
        let (w, o) = (self.weight.tensor(), &self.options);
        let kernel = Pair([w.dim(2), w.dim(3)]);
        let mut text = format!("{}, {}, kernel_size={kernel}, stride={}", self.in_channels, w.dim(0), Pair(o.stride));
        if o.padding != [0, 0] {
            text += &format!(", padding={}", Pair(o.padding));
        }
        if o.dilation != [1, 1] {
            text += &format!(", dilation={}", Pair(o.dilation));
        }
        if o.groups != 1 {
            text += &format!(", groups={}", o.groups);
        }
        text + &format!(", bias={}", self.bias.is_some())
    }
}
