//! The derivative of a fused operation where the backend has no fused kernel for it.

use crate::{Function, GradOptions, Saved, Var, enable_grad, grad_with};

/// The vector–Jacobian product of `op`'s composed form, to first order. All inputs must have been saved.
#[track_caller]
pub(super) fn backward_of_composed(op: &impl Function, saved: &Saved, grads: &[Option<Var>]) -> Vec<Option<Var>> {
    enable_grad(|| {
        let inputs: Vec<Var> = (0..saved.num_inputs())
            .map(|i| {
                let x = saved.input(i).into_tensor();
                if saved.needs_grad(i) { Var::leaf(x) } else { Var::constant(x) }
            })
            .collect();
        let outputs = op.composed(&inputs).expect("a fused operation has a composed form");
        let (outputs, grads): (Vec<&Var>, Vec<Var>) = outputs
            .iter()
            .zip(grads)
            .filter_map(|(y, g)| Some((y, g.clone()?)))
            .filter(|(y, _)| y.requires_grad())
            .unzip();
        let wanted: Vec<&Var> = inputs.iter().filter(|x| x.requires_grad()).collect();
        let options = GradOptions { allow_unused: true, grad_outputs: Some(grads), ..GradOptions::default() };
        let mut found = grad_with(&outputs, &wanted, options).into_iter();
        inputs.iter().map(|x| if x.requires_grad() { found.next() } else { None }).collect()
    })
}
