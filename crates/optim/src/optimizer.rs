//! What every optimiser offers, and what one has to say to be one.

use ferrograd_autograd::Gradients;
use ferrograd_nn::{Param, StateDict};
use ferrograd_tensor::ops::optimizer::OptimizerStep;
use ferrograd_tensor::{Result, Tensor};

/// An optimiser: changes parameters, given their gradients.
///
/// Hyperparameters go by name and number (`"lr"`, `"beta1"`, `"weight_decay"`, switches as 0 and 1), which is how
/// schedules reach those of any optimiser.
pub trait Optimizer {
    /// For messages and state dicts: `"AdamW"`.
    fn name(&self) -> &'static str;
    /// Changes every parameter that has a gradient in `grads` and is not frozen, in place where nobody else holds its
    /// storage. The others and their state stay as they are.
    fn step(&mut self, grads: &Gradients);
    /// Number of parameter groups.
    fn num_groups(&self) -> usize;
    /// The parameters of all groups in their order: what the clipping functions take.
    fn parameters(&self) -> Vec<Param>;
    /// A hyperparameter of a group, if there is one of that name.
    fn option(&self, group: usize, name: &str) -> Option<f64>;
    /// Changes a hyperparameter of a group; an error if there is none of that name or the value is outside its domain.
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()>;
    /// The learning rate of the first group.
    fn get_lr(&self) -> f64 {
        self.option(0, "lr").expect("every optimiser has a learning rate")
    }
    /// Sets the learning rate of every group.
    ///
    /// # Panics
    /// If it is negative or not finite.
    #[track_caller]
    fn set_lr(&mut self, lr: f64) {
        for group in 0..self.num_groups() {
            if let Err(error) = self.set_option(group, "lr", lr) {
                ferrograd_tensor::error::throw(error)
            }
        }
    }
    /// State and hyperparameters: `state.<i>.<name>` for parameter `i` in the order of
    /// [`parameters`](Optimizer::parameters), `group.<k>.<option>`. Taken up by
    /// [`load_state_dict`](Optimizer::load_state_dict), training goes on bit for bit.
    fn state_dict(&self) -> StateDict;
    /// Takes over what [`state_dict`](Optimizer::state_dict) gave. An error, and nothing has changed, if the state is
    /// another optimiser's, or of other groups or shapes.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()>;
}

/// When a parameter is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The number of this parameter's update, from 1.
    pub step: u64,
    /// Whether its state was made just now.
    pub fresh: bool,
}

/// The mathematics of an optimiser: its hyperparameters (the fields) and what it does with one parameter.
/// [`Stepper`](crate::Stepper) makes an [`Optimizer`] of it.
///
/// What it does is a [direction](Rule::direction), the gradient unless the rule says otherwise, and an elementwise
/// [step](Rule::step) along it, which many parameters share.
///
/// LARS (Y. You, I. Gitman, B. Ginsburg 2017, arXiv:1708.03888) divides each parameter's gradient by its norm and multiplies it
/// by the parameter's (a parameter of zeros takes it as it is), and then goes along as SGD does:
///
/// ```
/// use ferrograd_nn::Param;
/// use ferrograd_optim::{Moment, Optimizer, Rule, Stepper};
/// use ferrograd_tensor::Tensor;
/// use ferrograd_tensor::ops::optimizer::{OptimizerStep, Sgd};
///
/// #[derive(Clone)]
/// struct LarsRule {
///     lr: f64,
///     momentum: f64,
/// }
/// type Lars = Stepper<LarsRule>;
///
/// impl Default for LarsRule {
///     fn default() -> Self {
///         LarsRule { lr: 0.001, momentum: 0.9 }
///     }
/// }
/// impl Rule for LarsRule {
///     const NAME: &'static str = "LARS";
///     fn options(&self) -> Vec<(&'static str, f64)> {
///         vec![("lr", self.lr), ("momentum", self.momentum)]
///     }
///     fn set_option(&mut self, name: &str, value: f64) -> Result<(), String> {
///         match name {
///             "lr" => self.lr = value,
///             "momentum" => self.momentum = value,
///             _ => return Err(format!("no hyperparameter {name:?}: there are lr and momentum")),
///         }
///         Ok(())
///     }
///     fn check(&self) -> Result<(), String> {
///         let fine = self.lr >= 0.0 && (0.0..1.0).contains(&self.momentum);
///         if fine { Ok(()) } else { Err("lr must not be negative, and momentum in [0, 1)".to_string()) }
///     }
///     fn state_names(&self) -> Vec<&'static str> {
///         vec!["momentum_buffer"]
///     }
///     fn direction(&self, p: &Tensor, g: &Tensor, _state: &mut [Tensor], _at: Moment) -> Option<Tensor> {
///         let norm = |x: &Tensor| x.square().sum().sqrt();
///         let ratio = norm(p) / (norm(g) + 1e-12);
///         Some(g * ratio.masked_fill(&ratio.eq_scalar(0.0), 1.0))
///     }
///     fn step(&self, at: Moment) -> OptimizerStep {
///         let &LarsRule { lr, momentum } = self;
///         let step = Sgd { lr, momentum, dampening: 0.0, weight_decay: 0.0, nesterov: false, first: at.fresh };
///         OptimizerStep::Sgd(step)
///     }
/// }
///
/// let p = Param::new(Tensor::new([3.0, -4.0]));
/// let mut lars = Lars::new([p.clone()]).with_option("lr", 0.5);
/// for _ in 0..2 {
///     lars.step(&p.var().square().sum().backward());
/// }
/// // Half the norm, 5, along the gradient; then half of 2.5 and 0.9 times the last step.
/// let want = Tensor::new([3.0, -4.0]) * (1.0 - 0.5 - 0.25 - 0.45);
/// assert!((p.tensor() - want).abs().max().item::<f64>() < 1e-6);
/// assert_eq!(lars.state_dict().get("group.0.lr").map(|lr| lr.item::<f64>()), Some(0.5));
/// ```
pub trait Rule: Clone + Default + Send + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Every hyperparameter with its value; one must be called `lr`.
    fn options(&self) -> Vec<(&'static str, f64)>;
    /// Sets a hyperparameter; an error says which there are, or its domain.
    fn set_option(&mut self, name: &str, value: f64) -> Result<(), String>;
    /// Is every hyperparameter in its domain? Asked whenever one changes.
    fn check(&self) -> Result<(), String>;
    /// Do they fit each other? Asked before each step, since they are set one after another.
    fn check_together(&self) -> Result<(), String> {
        Ok(())
    }
    /// Can this parameter be optimised at all? Asked when it is added.
    fn check_parameter(&self, _p: &Tensor) -> Result<(), String> {
        Ok(())
    }
    /// The names of the state tensors of a parameter, in the order in which [`direction`](Rule::direction) and
    /// [`step`](Rule::step) get them.
    fn state_names(&self) -> Vec<&'static str>;
    /// What the elements of a state tensor start as.
    fn initial(&self, _name: &str) -> f64 {
        0.0
    }
    /// What takes the gradient `g`'s place in the step of the parameter `p`, if it is not the gradient itself. `g` and the state have
    /// the parameter's shape; the state has its dtype, or f32 where that is a half type. Any mathematics will do. Where `step`
    /// can do it, leave it what changes from step to step (the learning rate, the number of the update): there a replay of a
    /// CUDA graph sees it, and not here.
    fn direction(&self, _p: &Tensor, _g: &Tensor, _state: &mut [Tensor], _at: Moment) -> Option<Tensor> {
        None
    }
    /// The elementwise step, along the direction; of the state it takes the first
    /// [so many](OptimizerStep::states).
    fn step(&self, at: Moment) -> OptimizerStep;
}

/// Parameters with hyperparameters of their own:
/// `AdamW::new(decay).lr(3e-4).add_group(ParamGroup::new(no_decay).weight_decay(0.0))`.
#[derive(Clone, Debug)]
pub struct ParamGroup {
    pub(crate) params: Vec<Param>,
    pub(crate) options: Vec<(String, f64)>,
}

impl ParamGroup {
    /// A group that differs in nothing so far.
    pub fn new(params: impl IntoIterator<Item = Param>) -> Self {
        ParamGroup { params: params.into_iter().collect(), options: Vec::new() }
    }
    /// Its learning rate.
    pub fn lr(self, lr: f64) -> Self {
        self.option("lr", lr)
    }
    /// Its weight decay λ.
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        self.option("weight_decay", weight_decay)
    }
    /// Any other hyperparameter by its name: `option("beta1", 0.8)`; switches are 0 or 1.
    pub fn option(mut self, name: &str, value: f64) -> Self {
        self.options.push((name.to_string(), value));
        self
    }
}
