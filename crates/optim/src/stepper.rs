//! From a rule to an optimiser: groups, state, and the state dict.

use crate::optimizer::{Moment, Optimizer, ParamGroup, Rule};
use crate::state::{Reader, count};
use ferrograd_autograd::{Gradients, Key, Keyed};
use ferrograd_nn::{Param, StateDict};
use ferrograd_tensor::{Error, Result, Tensor, ensure, fail};
use std::collections::HashSet;

/// An [`Optimizer`] that follows a [`Rule`]. [`Adam`](crate::Adam), [`Sgd`](crate::Sgd) and the others are steppers.
pub struct Stepper<R: Rule> {
    groups: Vec<Group<R>>,
}

struct Group<R> {
    rule: R,
    /// Hyperparameters that the group set for itself: the optimiser's setters leave them alone.
    own: Vec<String>,
    slots: Vec<Slot>,
}

/// A parameter and the optimiser's memory of it.
struct Slot {
    param: Param,
    key: Key,
    step: u64,
    names: Vec<&'static str>,
    state: Vec<Tensor>,
}

/// A parameter's identity, to look its gradient up.
struct Id(Key);
impl Keyed for Id {
    fn key(&self) -> Option<Key> {
        Some(self.0)
    }
}

impl<R: Rule> Stepper<R> {
    /// An optimiser of `params` with the rule's defaults.
    ///
    /// # Panics
    /// If there are no parameters, one occurs twice, or the rule cannot optimise one.
    #[track_caller]
    pub fn new(params: impl IntoIterator<Item = Param>) -> Self {
        let params: Vec<Param> = params.into_iter().collect();
        ensure!(!params.is_empty(), Value, R::NAME, "got an empty list of parameters");
        Stepper { groups: Vec::new() }.add_group(ParamGroup { params, options: Vec::new() })
    }
    /// More parameters, with what the group sets for itself and the optimiser's hyperparameters for the rest.
    ///
    /// # Panics
    /// If a parameter is in a group already, the rule cannot optimise it, or it has no such hyperparameter.
    #[track_caller]
    pub fn add_group(mut self, group: ParamGroup) -> Self {
        let mut rule = self.groups.first().map_or_else(R::default, |g| g.rule.clone());
        for (name, value) in &group.options {
            or_fail(set(&mut rule, name, *value));
        }
        let mut known: HashSet<Key> = self.slots().map(|s| s.key).collect();
        let place = self.groups.len();
        let mut slots = Vec::with_capacity(group.params.len());
        for (i, param) in group.params.into_iter().enumerate() {
            let (p, key) = (param.tensor(), param.id());
            let shape = p.shape();
            ensure!(
                known.insert(key),
                Value,
                R::NAME,
                "parameter {i} of group {place} ({shape}) is there already: a parameter can be in one group only, once"
            );
            if let Err(message) = rule.check_parameter(&p) {
                fail!(Value, R::NAME, "parameter {i} of group {place}: {message}")
            }
            slots.push(Slot { param, key, step: 0, names: Vec::new(), state: Vec::new() });
        }
        let own = group.options.into_iter().map(|(name, _)| name).collect();
        self.groups.push(Group { rule, own, slots });
        self
    }
    /// Sets a hyperparameter by name, for every group that does not set its own.
    ///
    /// # Panics
    /// If there is none of that name, or the value is outside its domain.
    #[track_caller]
    pub fn with_option(mut self, name: &str, value: f64) -> Self {
        for group in &mut self.groups {
            if !group.own.iter().any(|own| own == name) {
                or_fail(set(&mut group.rule, name, value));
            }
        }
        self
    }
    /// The rule of a group, with its hyperparameters.
    pub fn rule(&self, group: usize) -> &R {
        &self.groups[group].rule
    }
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|g| &g.slots)
    }
}

/// Sets an option and checks the domain; the rule stays as it was if that fails.
fn set<R: Rule>(rule: &mut R, name: &str, value: f64) -> Result<()> {
    let mut changed = rule.clone();
    changed
        .set_option(name, value)
        .and_then(|()| changed.check())
        .map_err(|message| Error::Value { op: R::NAME, message })?;
    *rule = changed;
    Ok(())
}

#[track_caller]
fn or_fail(outcome: Result<()>) {
    if let Err(error) = outcome {
        ferrograd_tensor::error::throw(error)
    }
}

impl Slot {
    /// Makes the state fit the rule and the parameter; true if there was none of a kind before.
    fn prepare<R: Rule>(&mut self, rule: &R, p: &Tensor) -> bool {
        let (names, dtype) = (rule.state_names(), p.dtype().accumulator());
        let mut fresh = false;
        if names != self.names {
            let mut old: Vec<_> = self.names.drain(..).zip(self.state.drain(..)).collect();
            self.state = names
                .iter()
                .map(|name| match old.iter().position(|(n, _)| n == name) {
                    Some(i) => old.swap_remove(i).1,
                    None => {
                        fresh = true;
                        Tensor::full_on(p.shape(), rule.initial(name), dtype, &p.device())
                    }
                })
                .collect();
            self.names = names;
        }
        for s in &mut self.state {
            // The model may have been moved or cast since the last step.
            if s.dtype() != dtype || s.device() != p.device() {
                *s = s.to_dtype(dtype).to_device(&p.device());
            }
        }
        fresh
    }
}

impl<R: Rule> Optimizer for Stepper<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    #[track_caller]
    fn step(&mut self, grads: &Gradients) {
        for Group { rule, slots, .. } in &mut self.groups {
            if let Err(message) = rule.check_together() {
                fail!(Value, R::NAME, "{message}")
            }
            for slot in slots {
                let Some(g) = grads.get(Id(slot.key)) else { continue };
                if !slot.param.requires_grad() {
                    continue;
                }
                let param = slot.param.clone();
                param.update(|p| {
                    ensure!(
                        g.shape() == p.shape(),
                        Shape,
                        R::NAME,
                        "a parameter of {} was given a gradient of {}",
                        p.shape(),
                        g.shape()
                    );
                    let fresh = slot.prepare(rule, p);
                    slot.step += 1;
                    rule.update(p, g, &mut slot.state, Moment { step: slot.step, fresh });
                });
            }
        }
    }

    fn num_groups(&self) -> usize {
        self.groups.len()
    }
    fn parameters(&self) -> Vec<Param> {
        self.slots().map(|s| s.param.clone()).collect()
    }
    fn option(&self, group: usize, name: &str) -> Option<f64> {
        self.groups.get(group)?.rule.options().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let groups = self.groups.len();
        match self.groups.get_mut(group) {
            Some(group) => set(&mut group.rule, name, value),
            None => Err(Error::Index { op: R::NAME, message: format!("no group {group}: there are {groups}") }),
        }
    }

    fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        out.insert("optimizer", Tensor::from_slice(R::NAME.as_bytes(), R::NAME.len()));
        for (k, group) in self.groups.iter().enumerate() {
            out.insert(format!("group.{k}.size"), count(group.slots.len() as u64));
            for (name, value) in group.rule.options() {
                out.insert(format!("group.{k}.{name}"), Tensor::scalar(value));
            }
        }
        for (i, slot) in self.slots().enumerate().filter(|(_, s)| s.step > 0) {
            out.insert(format!("state.{i}.step"), count(slot.step));
            for (name, state) in slot.names.iter().zip(&slot.state) {
                out.insert(format!("state.{i}.{name}"), state.clone());
            }
        }
        out
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let reader = Reader::new(R::NAME, state);
        let name = reader.get("optimizer").map(|t| String::from_utf8_lossy(&t.to_bytes()).into_owned());
        match name.as_deref() {
            Some(name) if name == R::NAME => {}
            Some(name) => return reader.fail(format!("it is the state of {name:?}")),
            None => return reader.fail("the entry `optimizer` is missing: this is no optimiser's state"),
        }
        let groups = (0..).take_while(|k| state.get(&format!("group.{k}.size")).is_some()).count();
        if groups != self.groups.len() {
            return reader.fail(format!("it has {groups} parameter groups, the optimiser {}", self.groups.len()));
        }
        // Everything is read and checked before anything changes.
        let (mut rules, mut slots, mut i) = (Vec::new(), Vec::new(), 0);
        for (k, group) in self.groups.iter().enumerate() {
            let (size, own) = (reader.count(&format!("group.{k}.size"))?, group.slots.len() as u64);
            if size != own {
                return reader.fail(format!("group {k} has {size} parameters, the optimiser's {own}"));
            }
            let mut rule = group.rule.clone();
            for (name, _) in group.rule.options() {
                let value = reader.float(&format!("group.{k}.{name}"))?;
                if let Err(message) = rule.set_option(name, value) {
                    return reader.fail(format!("group {k}: {message}"));
                }
            }
            if let Err(message) = rule.check() {
                return reader.fail(format!("group {k}: {message}"));
            }
            for slot in &group.slots {
                slots.push(read_slot(&reader, &rule, i, &slot.param.tensor())?);
                i += 1;
            }
            rules.push(rule);
        }
        reader.finish()?;
        let mut slots = slots.into_iter();
        for (group, rule) in self.groups.iter_mut().zip(rules) {
            group.rule = rule;
            for (slot, (step, names, state)) in group.slots.iter_mut().zip(&mut slots) {
                (slot.step, slot.names, slot.state) = (step, names, state);
            }
        }
        Ok(())
    }
}

/// The step, state names and state of parameter `i`, whose value is `p`.
fn read_slot<R: Rule>(
    reader: &Reader,
    rule: &R,
    i: usize,
    p: &Tensor,
) -> Result<(u64, Vec<&'static str>, Vec<Tensor>)> {
    let key = format!("state.{i}.step");
    if reader.get(&key).is_none() {
        return Ok((0, Vec::new(), Vec::new()));
    }
    let (step, names) = (reader.count(&key)?, rule.state_names());
    let mut state = Vec::new();
    for name in &names {
        let key = format!("state.{i}.{name}");
        match reader.get(&key) {
            None => return reader.fail(format!("{key} is missing")),
            Some(t) if t.shape() != p.shape() => {
                return reader.fail(format!("{key} is {}, the parameter {}", t.shape(), p.shape()));
            }
            Some(t) => state.push(t.to_dtype(p.dtype().accumulator()).to_device(&p.device()).copy()),
        }
    }
    Ok((step, names, state))
}
