//! Convolution over one dimension.

use crate::{Module, Param, init};
use ferrograd_autograd::Var;
use ferrograd_tensor::{Conv1dOptions, ensure};

/// Cross-correlation over time: `[B, in_channels, T]` → `[B, out_channels, T']` with
/// `T' = (T + 2·padding − dilation·(kernel − 1) − 1)/stride + 1`, rounded down.
///
/// Parameters: `weight` `[out_channels, in_channels/groups, kernel]` and `bias` `[out_channels]`, both from U(±1/√fan_in)
/// with `fan_in = in_channels/groups · kernel`.
#[derive(Module)]
#[module(extra_repr)]
pub struct Conv1d {
    /// `[out_channels, in_channels/groups, kernel]`.
    pub weight: Param,
    /// `[out_channels]`.
    pub bias: Option<Param>,
    in_channels: usize,
    #[module(skip)]
    options: Conv1dOptions,
}
layer!(Conv1d);

impl Conv1d {
    /// Stride 1, no padding, one group, with a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: usize) -> Conv1d {
        let (fan_in, shape) = (in_channels * kernel_size, [out_channels, in_channels, kernel_size]);
        Conv1d {
            weight: Param::new(init::by_fan_in(shape, fan_in)),
            bias: Some(Param::new(init::by_fan_in(out_channels, fan_in))),
            in_channels,
            options: Conv1dOptions::default(),
        }
    }
    /// Steps between two windows.
    pub fn stride(mut self, stride: usize) -> Conv1d {
        self.options.stride = stride;
        self
    }
    /// Zeros put at both ends.
    pub fn padding(mut self, padding: usize) -> Conv1d {
        self.options.padding = padding;
        self
    }
    /// Steps between two elements of a window.
    pub fn dilation(mut self, dilation: usize) -> Conv1d {
        self.options.dilation = dilation;
        self
    }
    /// Channels are split into groups that do not see each other. Draws fresh parameters.
    ///
    /// # Panics
    /// If the channels do not divide evenly.
    #[track_caller]
    pub fn groups(mut self, groups: usize) -> Conv1d {
        let [out_channels, _, kernel] = self.weight.tensor().dims_of("Conv1d");
        check_groups("Conv1d", self.in_channels, out_channels, groups);
        let inner = self.in_channels / groups;
        self.weight = Param::new(init::by_fan_in([out_channels, inner, kernel], inner * kernel));
        self.options.groups = groups;
        let bias = self.bias.is_some();
        self.bias = None;
        self.bias(bias)
    }
    /// With or without a bias.
    pub fn bias(mut self, bias: bool) -> Conv1d {
        match bias {
            false => self.bias = None,
            true if self.bias.is_none() => {
                let w = self.weight.tensor();
                self.bias = Some(Param::new(init::by_fan_in(w.dim(0), w.dim(1) * w.dim(2))));
            }
            true => {}
        }
        self
    }
    /// `[B, in_channels, T]` → `[B, out_channels, T']`.
    ///
    /// # Panics
    /// If `x` has another shape or is shorter than the window.
    #[track_caller]
    pub fn forward(&self, x: &Var) -> Var {
        let n = self.in_channels;
        let fits = x.rank() == 3 && x.dim(1) == n;
        ensure!(fits, Shape, "Conv1d", "expected input [B, {n}, T], got {} ({self})", x.shape());
        x.conv1d(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref(), &self.options)
    }
    fn extra_repr(&self) -> String {
        let (w, o) = (self.weight.tensor(), &self.options);
        let mut text = format!("{}, {}, kernel_size={}, stride={}", self.in_channels, w.dim(0), w.dim(2), o.stride);
        if o.padding != 0 {
            text += &format!(", padding={}", o.padding);
        }
        if o.dilation != 1 {
            text += &format!(", dilation={}", o.dilation);
        }
        if o.groups != 1 {
            text += &format!(", groups={}", o.groups);
        }
        text + &format!(", bias={}", self.bias.is_some())
    }
}

/// Do the channels divide into `groups`?
#[track_caller]
pub(super) fn check_groups(layer: &'static str, in_channels: usize, out_channels: usize, groups: usize) {
    let fits = groups > 0 && in_channels.is_multiple_of(groups) && out_channels.is_multiple_of(groups);
    ensure!(fits, Value, layer, "{in_channels} and {out_channels} channels do not divide into {groups} groups");
}
