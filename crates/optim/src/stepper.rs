//! From a rule to an optimiser: groups, state, and the state dict.

use crate::optimizer::{Moment, Optimizer, ParamGroup, Rule};
use crate::state::{Reader, count};
use ferrograd_autograd::{Gradients, Key, Keyed};
use ferrograd_nn::{Param, StateDict};
use ferrograd_tensor::ops::optimizer::{StepCell, Update};
use ferrograd_tensor::{Error, Result, Tensor, ensure, fail, replay};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An [`Optimizer`] that follows a [`Rule`]. [`Adam`](crate::Adam), [`Sgd`](crate::Sgd) and the others are steppers.
pub struct Stepper<R: Rule> {
    groups: Vec<Group<R>>,
}

/// What is shared with the replays of recorded steps.
pub(crate) type Shared<T> = Arc<Mutex<T>>;

struct Group<R> {
    rule: Shared<R>,
    /// Hyperparameters that the group set for itself: the optimiser's setters leave them alone.
    own: Vec<String>,
    slots: Vec<Slot>,
}

/// A parameter and the optimiser's memory of it.
#[derive(Clone)]
struct Slot {
    param: Param,
    key: Key,
    memory: Shared<Memory>,
}

#[derive(Default)]
struct Memory {
    step: u64,
    names: Vec<&'static str>,
    state: Vec<Tensor>,
}

pub(crate) fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut rule = self.groups.first().map_or_else(R::default, |g| lock(&g.rule).clone());
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
            slots.push(Slot { param, key, memory: Shared::default() });
        }
        let own = group.options.into_iter().map(|(name, _)| name).collect();
        self.groups.push(Group { rule: Arc::new(Mutex::new(rule)), own, slots });
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
                or_fail(set(&mut *lock(&group.rule), name, value));
            }
        }
        self
    }
    /// The rule of a group, with its hyperparameters.
    pub fn rule(&self, group: usize) -> R {
        lock(&self.groups[group].rule).clone()
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

impl Memory {
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

impl<R: Rule> Group<R> {
    /// One step of all parameters that have a gradient, those of one moment together.
    #[track_caller]
    fn step(&self, grads: &Gradients) {
        let rule = lock(&self.rule).clone();
        or_refuse::<R>(rule.check_together());
        let given = |slot: &&Slot| slot.param.requires_grad() && grads.get(Id(slot.key)).is_some();
        // Before any of them is counted.
        self.slots.iter().filter(given).for_each(|slot| slot.check::<R>(grads));
        let mut slots: Vec<&Slot> = self.slots.iter().filter(given).collect();
        // Another optimiser that steps some of these at the same time locks them in the same order.
        slots.sort_by_key(|slot| slot.key);
        let mut moments: Vec<(Moment, Vec<&Slot>)> = Vec::new();
        for slot in slots {
            let moment = slot.begin(&rule);
            match moments.iter_mut().find(|(m, _)| *m == moment) {
                Some((_, slots)) => slots.push(slot),
                None => moments.push((moment, vec![slot])),
            }
        }
        for (moment, slots) in moments {
            let cell = StepCell::new(rule.step(moment));
            let plain = update(&rule, &cell, moment, &slots, grads);
            if replay::seed().is_some() {
                let fixed = if plain { Vec::new() } else { rule.options() };
                self.replay(fixed, cell, slots.into_iter().cloned().collect());
            }
        }
    }

    /// The step is being recorded: what these slots and their cell need before each replay. `fixed` are the hyperparameters
    /// on which the direction was computed.
    fn replay(&self, fixed: Vec<(&'static str, f64)>, cell: StepCell, slots: Vec<Slot>) {
        let rule = self.rule.clone();
        let places: Vec<_> = slots.iter().map(Slot::places).collect();
        let counted = slots.clone();
        let prepare = move || {
            let rule = lock(&rule).clone();
            or_refuse::<R>(rule.check_together());
            or_refuse::<R>(unchanged(&fixed, &rule.options()));
            for (slot, places) in slots.iter().zip(&places) {
                or_refuse::<R>(slot.check_replay(places));
            }
            let mut steps = slots.iter().map(|slot| lock(&slot.memory).step);
            let step = steps.next().unwrap_or(0);
            if !steps.all(|other| other == step) {
                or_refuse::<R>(Err(
                    "some parameters have made more steps than others since: record the step again".into()
                ));
            }
            cell.set(rule.step(Moment { step: step + 1, fresh: false }));
        };
        replay::before_each(prepare, move || counted.iter().for_each(|slot| lock(&slot.memory).step += 1));
    }
}

/// One step of these parameters; true if each went along its gradient itself.
#[track_caller]
fn update<R: Rule>(rule: &R, cell: &StepCell, at: Moment, slots: &[&Slot], grads: &Gradients) -> bool {
    let mut params: Vec<_> = slots.iter().map(|slot| slot.param.write()).collect();
    let mut memories: Vec<_> = slots.iter().map(|slot| lock(&slot.memory)).collect();
    let mut plain = true;
    let mut directions = Vec::with_capacity(slots.len());
    for ((slot, p), memory) in slots.iter().zip(&params).zip(&mut memories) {
        let g = grads.get(Id(slot.key)).expect("it was given");
        let direction = rule.direction(p, g, &mut memory.state, at);
        plain &= direction.is_none();
        directions.push(direction.unwrap_or_else(|| g.clone()));
    }
    let states = cell.get().states();
    let updates = params.iter_mut().zip(&directions).zip(&mut memories);
    // A rule that has fewer of them is told so by the step.
    let first = |memory: &mut Memory| states.min(memory.state.len());
    let mut updates: Vec<Update> = updates
        .map(|((p, g), memory)| {
            let states = first(memory);
            Update { p, g, state: &mut memory.state[..states] }
        })
        .collect();
    cell.apply_all(&mut updates);
    plain
}

/// Of the hyperparameters of a rule with a direction of its own, a replay sees the learning rate and the weight decay only.
fn unchanged(recorded: &[(&'static str, f64)], now: &[(&'static str, f64)]) -> Result<(), String> {
    let changed = recorded.iter().zip(now).find(|((name, a), (_, b))| a != b && !["lr", "weight_decay"].contains(name));
    match changed {
        Some(((name, a), (_, b))) => {
            Err(format!("{name} was {a} when the step was recorded and is {b} now: record it again"))
        }
        None => Ok(()),
    }
}

#[track_caller]
fn or_refuse<R: Rule>(outcome: Result<(), String>) {
    if let Err(message) = outcome {
        fail!(Value, R::NAME, "{message}")
    }
}

impl Slot {
    /// Does the gradient fit?
    #[track_caller]
    fn check<R: Rule>(&self, grads: &Gradients) {
        let (p, g) = (self.param.tensor(), grads.get(Id(self.key)).expect("it was given"));
        ensure!(
            g.shape() == p.shape(),
            Shape,
            R::NAME,
            "a parameter of {} was given a gradient of {}",
            p.shape(),
            g.shape()
        );
        let (a, b) = (p.device(), g.device());
        ensure!(a == b, Device, R::NAME, "a parameter on {a} was given a gradient on {b}");
    }
    /// Counts a step and makes the state ready for it.
    fn begin<R: Rule>(&self, rule: &R) -> Moment {
        let (p, mut memory) = (self.param.tensor(), lock(&self.memory));
        let fresh = memory.prepare(rule, &p);
        memory.step += 1;
        Moment { step: memory.step, fresh }
    }
    /// Where the parameter and its state lie.
    fn places(&self) -> Vec<usize> {
        let (p, memory) = (self.param.tensor(), lock(&self.memory));
        [&p].into_iter().chain(&memory.state).map(|t| t.buffer().address()).collect()
    }
    /// Will a replay change what the parameter and the optimiser hold, and nothing that others hold?
    fn check_replay(&self, places: &[usize]) -> Result<(), String> {
        let shape = self.param.tensor().shape().clone();
        if self.places() != places {
            return Err(format!(
                "a parameter of {shape} or its state was replaced since the step was recorded: record it again"
            ));
        }
        if !self.param.requires_grad() {
            return Err(format!("a parameter of {shape} was frozen since the step was recorded: record it again"));
        }
        if !self.param.write().is_unique() || !lock(&self.memory).state.iter_mut().all(|s| s.is_unique()) {
            return Err(format!(
                "the value of a parameter of {shape} or its state is held elsewhere, and a replay would change it: drop or copy it"
            ));
        }
        Ok(())
    }
}

impl<R: Rule> Optimizer for Stepper<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    #[track_caller]
    fn step(&mut self, grads: &Gradients) {
        for group in &self.groups {
            group.step(grads);
        }
    }

    fn num_groups(&self) -> usize {
        self.groups.len()
    }
    fn parameters(&self) -> Vec<Param> {
        self.slots().map(|s| s.param.clone()).collect()
    }
    fn option(&self, group: usize, name: &str) -> Option<f64> {
        lock(&self.groups.get(group)?.rule).options().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let groups = self.groups.len();
        match self.groups.get_mut(group) {
            Some(group) => set(&mut *lock(&group.rule), name, value),
            None => Err(Error::Index { op: R::NAME, message: format!("no group {group}: there are {groups}") }),
        }
    }

    fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        out.insert("optimizer", Tensor::from_slice(R::NAME.as_bytes(), R::NAME.len()));
        for (k, group) in self.groups.iter().enumerate() {
            out.insert(format!("group.{k}.size"), count(group.slots.len() as u64));
            for (name, value) in lock(&group.rule).options() {
                out.insert(format!("group.{k}.{name}"), Tensor::scalar(value));
            }
        }
        for (i, slot) in self.slots().enumerate() {
            let Memory { step, names, state } = &*lock(&slot.memory);
            if *step == 0 {
                continue;
            }
            out.insert(format!("state.{i}.step"), count(*step));
            for (name, state) in names.iter().zip(state) {
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
            let mut rule = lock(&group.rule).clone();
            for (name, _) in rule.options() {
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
            *lock(&group.rule) = rule;
            for (slot, memory) in group.slots.iter().zip(&mut slots) {
                *lock(&slot.memory) = memory;
            }
        }
        Ok(())
    }
}

/// The memory of parameter `i`, whose value is `p`.
fn read_slot<R: Rule>(reader: &Reader, rule: &R, i: usize, p: &Tensor) -> Result<Memory> {
    let key = format!("state.{i}.step");
    if reader.get(&key).is_none() {
        return Ok(Memory::default());
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
    Ok(Memory { step, names, state })
}
