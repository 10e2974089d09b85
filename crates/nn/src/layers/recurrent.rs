//! What the recurrent layers share: parameters and their names, several layers, both directions, dropout.

use super::dropout::check_probability;
use crate::describe::printed;
use crate::{Layer, Mode, Module, Param, Visitor, init};
use ferrograd_autograd::Var;
use ferrograd_autograd::ops::SequenceOptions;
use ferrograd_tensor::ops::recurrence::RecurrentWeights;
use ferrograd_tensor::{Tensor, ensure};

/// The parameters of one layer and direction.
struct Cell {
    weight_ih: Param,
    weight_hh: Param,
    bias: Option<(Param, Param)>,
}

/// Layers and directions of a recurrent network with `gates` gates.
pub(super) struct Core {
    gates: usize,
    pub input_size: usize,
    pub hidden_size: usize,
    num_layers: usize,
    bias: bool,
    batch_first: bool,
    dropout: f64,
    recurrent_dropout: f64,
    bidirectional: bool,
    mode: Mode,
    cells: Vec<Cell>,
}

impl Module for Core {
    fn visit(&self, v: &mut Visitor<'_>) {
        for (i, cell) in self.cells.iter().enumerate() {
            let (layer, reverse) = (i / self.directions(), i % self.directions() == 1);
            let suffix = format!("l{layer}{}", if reverse { "_reverse" } else { "" });
            v.field(&format!("weight_ih_{suffix}"), &cell.weight_ih);
            v.field(&format!("weight_hh_{suffix}"), &cell.weight_hh);
            if let Some((b_ih, b_hh)) = &cell.bias {
                v.field(&format!("bias_ih_{suffix}"), b_ih);
                v.field(&format!("bias_hh_{suffix}"), b_hh);
            }
        }
        v.field("mode", &self.mode);
    }
}

impl Core {
    pub fn new(gates: usize, input_size: usize, hidden_size: usize) -> Core {
        let core = Core {
            gates,
            input_size,
            hidden_size,
            num_layers: 1,
            bias: true,
            batch_first: true,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            bidirectional: false,
            mode: Mode::new(),
            cells: vec![],
        };
        core.rebuilt()
    }
    /// Fresh parameters, all from U(±1/√H), for the settings as they are.
    fn rebuilt(mut self) -> Core {
        let (g, h) = (self.gates * self.hidden_size, self.hidden_size);
        let param = |shape: &[usize]| Param::new(init::by_fan_in(shape, h));
        let cell = |i: usize| {
            let width = if i < self.directions() { self.input_size } else { h * self.directions() };
            let (weight_ih, weight_hh) = (param(&[g, width]), param(&[g, h]));
            Cell { weight_ih, weight_hh, bias: self.bias.then(|| (param(&[g]), param(&[g]))) }
        };
        self.cells = (0..self.num_layers * self.directions()).map(cell).collect();
        self
    }
    #[track_caller]
    pub fn num_layers(mut self, n: usize) -> Core {
        ensure!(n > 0, Value, "recurrent layer", "num_layers must be positive");
        self.num_layers = n;
        self.rebuilt()
    }
    pub fn bidirectional(mut self, both: bool) -> Core {
        self.bidirectional = both;
        self.rebuilt()
    }
    pub fn bias(mut self, bias: bool) -> Core {
        self.bias = bias;
        self.rebuilt()
    }
    pub fn batch_first(mut self, batch_first: bool) -> Core {
        self.batch_first = batch_first;
        self
    }
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> Core {
        check_probability("recurrent layer", p);
        self.dropout = p;
        self
    }
    #[track_caller]
    pub fn recurrent_dropout(mut self, p: f64) -> Core {
        check_probability("recurrent layer", p);
        self.recurrent_dropout = p;
        self
    }
    pub fn directions(&self) -> usize {
        1 + self.bidirectional as usize
    }

    /// Runs every layer and direction. `states` holds one initial state `[layers · directions, B, H]` or `None` (zeros) for
    /// each state of a cell; `step` runs one layer and direction over `[T, B, I]`. Returns the last layer's outputs and
    /// the final states.
    #[track_caller]
    pub fn run<const S: usize>(
        &self,
        layer: &'static str,
        x: &Var,
        lengths: Option<&[usize]>,
        states: [Option<&Var>; S],
        step: impl Fn(&Var, RecurrentWeights<Var>, &[Var; S], &SequenceOptions) -> (Var, [Var; S]),
    ) -> (Var, [Var; S]) {
        let (order, width) = (if self.batch_first { "[B, T, " } else { "[T, B, " }, self.input_size);
        ensure!(
            x.rank() == 3 && x.dim(2) == width,
            Shape,
            layer,
            "expected input {order}{width}], got {} ({layer}({}))",
            x.shape(),
            self.extra_repr()
        );
        let mut x = if self.batch_first { x.transpose(0, 1) } else { x.clone() };
        let (batch, hidden, cells) = (x.dim(1), self.hidden_size, self.cells.len());
        for state in states.iter().flatten() {
            let fits = *state.shape() == [cells, batch, hidden];
            let expected = [cells, batch, hidden];
            ensure!(fits, Shape, layer, "the initial state must be {expected:?}, got {}", state.shape());
        }
        let active = |p: f64| if self.mode.training() { p } else { 0.0 };
        let mut finals: Vec<[Var; S]> = Vec::with_capacity(cells);
        for first in (0..cells).step_by(self.directions()) {
            if first > 0 && active(self.dropout) > 0.0 {
                x = x.dropout(self.dropout);
            }
            let mut outputs = Vec::with_capacity(2);
            for i in first..first + self.directions() {
                let initial: [Var; S] = states.map(|state| match state {
                    Some(state) => state.select(0, i as isize),
                    None => Var::constant(Tensor::full_on([batch, hidden], 0.0, x.dtype(), &x.device())),
                });
                let keep = 1.0 - active(self.recurrent_dropout);
                let options = SequenceOptions {
                    reverse: i > first,
                    lengths: lengths.map(<[usize]>::to_vec),
                    recurrent_mask: (keep < 1.0).then(|| {
                        let mask = Tensor::bernoulli_on([batch, hidden], keep, x.dtype(), &x.device());
                        if keep > 0.0 { mask.mul_scalar(1.0 / keep) } else { mask }
                    }),
                };
                let cell = &self.cells[i];
                let (w_ih, w_hh) = (cell.weight_ih.var(), cell.weight_hh.var());
                let bias = cell.bias.as_ref().map(|(b_ih, b_hh)| (b_ih.var(), b_hh.var()));
                let weights = RecurrentWeights {
                    w_ih: &w_ih,
                    w_hh: &w_hh,
                    b_ih: bias.as_ref().map(|b| &b.0),
                    b_hh: bias.as_ref().map(|b| &b.1),
                };
                let (output, last) = step(&x, weights, &initial, &options);
                outputs.push(output);
                finals.push(last);
            }
            x = if outputs.len() == 1 { outputs.swap_remove(0) } else { Var::cat(&[&outputs[0], &outputs[1]], 2) };
        }
        let y = if self.batch_first { x.transpose(0, 1) } else { x };
        let stacked = std::array::from_fn(|s| Var::stack(&finals.iter().map(|f| &f[s]).collect::<Vec<_>>(), 0));
        (y, stacked)
    }
    /// Of final states `[layers · directions, B, H]` the last layer's, both directions side by side: `[B, directions · H]`.
    pub fn last(&self, h_n: &Var) -> Var {
        match self.bidirectional {
            false => h_n.select(0, -1),
            true => Var::cat(&[&h_n.select(0, -2), &h_n.select(0, -1)], 1),
        }
    }
    pub fn extra_repr(&self) -> String {
        let mut text = format!("{}, {}", self.input_size, self.hidden_size);
        if self.num_layers != 1 {
            text += &format!(", num_layers={}", self.num_layers);
        }
        if !self.bias {
            text += ", bias=false";
        }
        text += &format!(", batch_first={}", self.batch_first);
        for (name, p) in [("dropout", self.dropout), ("recurrent_dropout", self.recurrent_dropout)] {
            if p != 0.0 {
                text += &format!(", {name}={p}");
            }
        }
        if self.bidirectional {
            text += ", bidirectional=true";
        }
        text
    }
}

/// The builder methods of a recurrent layer around a [`Core`].
macro_rules! settings {
    ($layer:ident) => {
        impl $layer {
            /// This many layers on top of each other; each reads the one below. Draws fresh parameters.
            #[track_caller]
            pub fn num_layers(mut self, n: usize) -> $layer {
                self.core = self.core.num_layers(n);
                self
            }
            /// A second direction, from the last step to the first; the outputs of both lie side by side. Draws fresh
            /// parameters.
            pub fn bidirectional(mut self, both: bool) -> $layer {
                self.core = self.core.bidirectional(both);
                self
            }
            /// With or without biases. Draws fresh parameters.
            pub fn bias(mut self, bias: bool) -> $layer {
                self.core = self.core.bias(bias);
                self
            }
            /// Inputs and outputs are `[B, T, …]` (unless set) or `[T, B, …]`.
            pub fn batch_first(mut self, batch_first: bool) -> $layer {
                self.core = self.core.batch_first(batch_first);
                self
            }
            /// Dropout between the layers, in training.
            #[track_caller]
            pub fn dropout(mut self, p: f64) -> $layer {
                self.core = self.core.dropout(p);
                self
            }
            /// Dropout of the state in the recurrent product, the same places at each step of a sequence, in training.
            /// Y. Gal, Z. Ghahramani 2016; Keras's `recurrent_dropout`.
            #[track_caller]
            pub fn recurrent_dropout(mut self, p: f64) -> $layer {
                self.core = self.core.recurrent_dropout(p);
                self
            }
            /// Features of the input.
            pub fn input_size(&self) -> usize {
                self.core.input_size
            }
            /// Features of the state.
            pub fn hidden_size(&self) -> usize {
                self.core.hidden_size
            }
            /// A layer that gives the final state only, for [`Sequential`](crate::Sequential).
            pub fn last(self) -> $crate::Last<$layer> {
                $crate::Last::new(self)
            }
            fn extra_repr(&self) -> String {
                self.core.extra_repr()
            }
        }
        $crate::describe::printed!($layer);
        impl $crate::Layer for $layer {
            /// The outputs of all steps.
            #[track_caller]
            fn forward(&self, x: &ferrograd_autograd::Var) -> ferrograd_autograd::Var {
                $layer::forward(self, x).0
            }
        }
    };
}
pub(super) use settings;

/// A recurrent layer, as far as [`Last`] needs to know it.
pub trait Recurrent: Module {
    /// The last layer's final state, both directions side by side: `[B, directions · H]`.
    #[track_caller]
    fn final_state(&self, x: &Var) -> Var;
}

/// A recurrent layer that gives only its final state: `[B, T, I]` → `[B, directions · H]`. The names of the parameters
/// stay those of the layer.
#[derive(Module)]
#[module(extra_repr)]
pub struct Last<R: Module> {
    #[module(flatten)]
    layer: R,
}
printed!(Last<super::Lstm>, Last<super::Gru>, Last<super::Rnn>);

impl<R: Recurrent> Last<R> {
    /// The final state of `layer`.
    pub fn new(layer: R) -> Last<R> {
        Last { layer }
    }
}
impl<R: Module> Last<R> {
    /// The layer itself.
    pub fn layer(&self) -> &R {
        &self.layer
    }
    fn extra_repr(&self) -> String {
        format!("{}({})", self.layer.type_name(), self.layer.extra_repr())
    }
}
impl<R: Recurrent> Layer for Last<R> {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        self.layer.final_state(x)
    }
}
