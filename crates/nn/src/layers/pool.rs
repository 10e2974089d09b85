//! Pooling: what a window holds, as its maximum or its mean.

use super::pair::Pair;
use crate::Module;
use ferrograd_autograd::Var;
use ferrograd_tensor::{Pool1dOptions, Pool2dOptions, ensure};

/// `x` has `rank` dimensions, or the layer says what it expects.
#[track_caller]
fn check(layer: &'static str, x: &Var, expected: &str, rank: usize, repr: &dyn std::fmt::Display) {
    ensure!(x.rank() == rank, Shape, layer, "expected input {expected}, got {} ({repr})", x.shape());
}

macro_rules! pool1d {
    ($(#[$doc:meta])* $Pool:ident $method:ident { $($setter:tt)* } $repr:expr) => {
        $(#[$doc])*
        #[derive(Module)]
        #[module(extra_repr)]
        pub struct $Pool {
            #[module(skip)]
            options: Pool1dOptions,
        }
        layer!($Pool);
        impl $Pool {
            /// Windows of `kernel_size` steps side by side.
            pub fn new(kernel_size: usize) -> $Pool {
                $Pool { options: Pool1dOptions { kernel: kernel_size, ..Pool1dOptions::default() } }
            }
            /// Steps between two windows; `kernel_size`, unless set.
            pub fn stride(mut self, stride: usize) -> $Pool {
                self.options.stride = Some(stride);
                self
            }
            /// Steps added at both ends; at most half the window.
            pub fn padding(mut self, padding: usize) -> $Pool {
                self.options.padding = padding;
                self
            }
            /// A last window may reach beyond the end.
            pub fn ceil_mode(mut self, ceil_mode: bool) -> $Pool {
                self.options.ceil_mode = ceil_mode;
                self
            }
            $($setter)*
            /// `[B, C, T]` → `[B, C, T']`.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                check(stringify!($Pool), x, "[B, C, T]", 3, self);
                x.$method(&self.options)
            }
            fn extra_repr(&self) -> String {
                let o = &self.options;
                let repr: fn(&Pool1dOptions) -> String = $repr;
                let stride = o.stride.unwrap_or(o.kernel);
                let (kernel, padding, more) = (o.kernel, o.padding, repr(o));
                format!("kernel_size={kernel}, stride={stride}, padding={padding}{more}, ceil_mode={}", o.ceil_mode)
            }
        }
    };
}
macro_rules! pool2d {
    ($(#[$doc:meta])* $Pool:ident $method:ident { $($setter:tt)* } $repr:expr) => {
        $(#[$doc])*
        #[derive(Module)]
        #[module(extra_repr)]
        pub struct $Pool {
            #[module(skip)]
            options: Pool2dOptions,
        }
        layer!($Pool);
        impl $Pool {
            /// Windows of `kernel_size` (one number or `[height, width]`) side by side.
            pub fn new(kernel_size: impl Into<Pair>) -> $Pool {
                $Pool { options: Pool2dOptions { kernel: kernel_size.into().0, ..Pool2dOptions::default() } }
            }
            /// Steps between two windows; `kernel_size`, unless set.
            pub fn stride(mut self, stride: impl Into<Pair>) -> $Pool {
                self.options.stride = Some(stride.into().0);
                self
            }
            /// Rows and columns added at each edge; at most half the window.
            pub fn padding(mut self, padding: impl Into<Pair>) -> $Pool {
                self.options.padding = padding.into().0;
                self
            }
            /// A last window may reach beyond the edge.
            pub fn ceil_mode(mut self, ceil_mode: bool) -> $Pool {
                self.options.ceil_mode = ceil_mode;
                self
            }
            $($setter)*
            /// `[B, C, H, W]` → `[B, C, H', W']`.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                check(stringify!($Pool), x, "[B, C, H, W]", 4, self);
                x.$method(&self.options)
            }
            fn extra_repr(&self) -> String {
                let o = &self.options;
                let repr: fn(&Pool2dOptions) -> String = $repr;
                let (kernel, stride) = (Pair(o.kernel), Pair(o.stride.unwrap_or(o.kernel)));
                let (padding, more) = (Pair(o.padding), repr(o));
                format!("kernel_size={kernel}, stride={stride}, padding={padding}{more}, ceil_mode={}", o.ceil_mode)
            }
        }
    };
}

pool1d! {
    /// The maximum of each window of time: `[B, C, T]` → `[B, C, T']`.
    MaxPool1d max_pool1d {
        /// Steps between two elements of a window.
        pub fn dilation(mut self, dilation: usize) -> MaxPool1d {
            self.options.dilation = dilation;
            self
        }
    } |o| format!(", dilation={}", o.dilation)
}
pool1d! {
    /// The mean of each window of time: `[B, C, T]` → `[B, C, T']`.
    AvgPool1d avg_pool1d {
        /// Do padded zeros count in the mean? True, unless set.
        pub fn count_include_pad(mut self, count: bool) -> AvgPool1d {
            self.options.count_include_pad = count;
            self
        }
    } |o| format!(", count_include_pad={}", o.count_include_pad)
}
pool2d! {
    /// The maximum of each window: `[B, C, H, W]` → `[B, C, H', W']`.
    MaxPool2d max_pool2d {
        /// Steps between two elements of a window.
        pub fn dilation(mut self, dilation: impl Into<Pair>) -> MaxPool2d {
            self.options.dilation = dilation.into().0;
            self
        }
    } |o| format!(", dilation={}", Pair(o.dilation))
}
pool2d! {
    /// The mean of each window: `[B, C, H, W]` → `[B, C, H', W']`.
    AvgPool2d avg_pool2d {
        /// Do padded zeros count in the mean? True, unless set.
        pub fn count_include_pad(mut self, count: bool) -> AvgPool2d {
            self.options.count_include_pad = count;
            self
        }
    } |o| format!(", count_include_pad={}", o.count_include_pad)
}

macro_rules! adaptive {
    ($($(#[$doc:meta])* $Pool:ident($Size:ty => $size:expr) $method:ident $expected:literal $rank:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Module)]
        #[module(extra_repr)]
        pub struct $Pool {
            #[module(skip)]
            output_size: $Size,
        }
        layer!($Pool);
        impl $Pool {
            /// Windows such that the output has this size.
            pub fn new(output_size: impl Into<$Size>) -> $Pool {
                $Pool { output_size: output_size.into() }
            }
            /// The pooled input.
            #[track_caller]
            pub fn forward(&self, x: &Var) -> Var {
                check(stringify!($Pool), x, $expected, $rank, self);
                let size: fn($Size) -> _ = $size;
                x.$method(size(self.output_size))
            }
            fn extra_repr(&self) -> String {
                format!("output_size={}", self.output_size)
            }
        }
    )*};
}
adaptive! {
    /// Means of windows that share out the time evenly: `[B, C, T]` → `[B, C, output_size]`.
    AdaptiveAvgPool1d(usize => |n| n) adaptive_avg_pool1d "[B, C, T]" 3;
    /// Maxima of windows that share out the time evenly: `[B, C, T]` → `[B, C, output_size]`.
    AdaptiveMaxPool1d(usize => |n| n) adaptive_max_pool1d "[B, C, T]" 3;
    /// Means of windows that share out the image evenly: `[B, C, H, W]` → `[B, C, output_size…]`.
    AdaptiveAvgPool2d(Pair => |n| n.0) adaptive_avg_pool2d "[B, C, H, W]" 4;
    /// Maxima of windows that share out the image evenly: `[B, C, H, W]` → `[B, C, output_size…]`.
    AdaptiveMaxPool2d(Pair => |n| n.0) adaptive_max_pool2d "[B, C, H, W]" 4;
}
