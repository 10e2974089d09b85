//! A step that is recorded once and replayed many times, as CUDA graphs do: what of it belongs to the host.
//!
//! A replay runs the kernels that were recorded, and no Rust. Whatever the host told a kernel while the step was recorded, it
//! is told at every replay. Three things must change all the same, and are arranged for here:
//!
//! - **random numbers**: the recording has a generator of its own, whose [`seed`] no other has. A backend that sees it in
//!   a recorded launch has the kernel draw from where the program's generator is at the replay ([`Recording::reserve`]);
//! - **the numbers of an optimiser**: a [`StepCell`](crate::ops::optimizer::StepCell), which the backend reads before a replay;
//! - **the host's own state**, such as how many steps an optimiser has made: [`before_each`] says what to do with it.

use crate::ensure;
use crate::random::{RngState, reserve, rng_state, with_seed};
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

/// What the host has to do before a replay: what may refuse it and changes nothing that lasts, and then what counts it.
struct Hook {
    prepare: Box<dyn FnMut() + Send>,
    count: Box<dyn FnMut() + Send>,
}

thread_local! {
    /// The seed of the recording that this thread makes.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static HOOKS: RefCell<Vec<Hook>> = const { RefCell::new(Vec::new()) };
}

/// The seed of the random numbers in the recording that this thread makes, if it makes one.
pub fn seed() -> Option<u64> {
    SEED.get()
}

/// While a step is recorded: `prepare` runs before each replay, as the code around it runs before the launches now. If it
/// panics, there is no replay, and nothing may have changed for good; `count` follows when nobody has refused.
///
/// # Panics
/// If nothing is being recorded.
#[track_caller]
pub fn before_each(prepare: impl FnMut() + Send + 'static, count: impl FnMut() + Send + 'static) {
    ensure!(seed().is_some(), Value, "before_each", "no step is being recorded");
    HOOKS.with_borrow_mut(|hooks| hooks.push(Hook { prepare: Box::new(prepare), count: Box::new(count) }));
}

/// The host's part of a recorded step.
pub struct Recording {
    hooks: Vec<Hook>,
    streams: u64,
}

/// Runs a step that a backend records.
///
/// # Panics
/// If it is inside another recording, or seeds the generator: every replay would draw the same numbers.
#[track_caller]
pub fn record<T>(step: impl FnOnce() -> T) -> (T, Recording) {
    const OP: &str = "record";
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            SEED.set(None);
            HOOKS.take();
        }
    }
    ensure!(seed().is_none(), Value, OP, "a step that is being recorded cannot record another one");
    let own = RandomState::new().hash_one("recording");
    SEED.set(Some(own));
    let _stop = Stop;
    let (result, end) = with_seed(own, || (step(), rng_state()));
    ensure!(end.seed == own, Value, OP, "the step sets the random generator's state: do that between the replays");
    (result, Recording { hooks: HOOKS.take(), streams: end.offset })
}

impl Recording {
    /// Takes the random streams of one replay: the seed, and the first of them. Stream 0 of the recording becomes this one.
    pub fn reserve(&self) -> RngState {
        reserve(self.streams)
    }
    /// Brings what kernels are told to where the next replay has to find it; a panic, with nothing changed, if there cannot be one.
    pub fn prepare(&mut self) {
        self.hooks.iter_mut().for_each(|hook| (hook.prepare)());
    }
    /// There will be one: counts it.
    pub fn count(&mut self) {
        self.hooks.iter_mut().for_each(|hook| (hook.count)());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, catch, random::manual_seed};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_recording_counts_its_streams_and_leaves_the_generator_alone() {
        let count = Arc::new(AtomicUsize::new(0));
        with_seed(5, || {
            let counted = count.clone();
            let (_, mut recording) = record(|| {
                assert!(seed().is_some());
                Tensor::rand(3);
                Tensor::randn(2);
                before_each(
                    || (),
                    move || {
                        counted.fetch_add(1, Ordering::Relaxed);
                    },
                );
            });
            assert!(seed().is_none());
            assert_eq!(rng_state(), RngState { seed: 5, offset: 0 });
            recording.prepare();
            assert_eq!(count.load(Ordering::Relaxed), 0);
            recording.count();
            assert_eq!(recording.reserve(), RngState { seed: 5, offset: 0 });
            assert_eq!(recording.reserve(), RngState { seed: 5, offset: 2 });
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_cannot_be_recorded_is_an_error() {
        let error = |f: fn()| catch(|| record(f)).err().expect("an error").to_string();
        assert_eq!(
            error(|| manual_seed(1)),
            "record: the step sets the random generator's state: do that between the replays"
        );
        assert!(error(|| drop(record(|| ()))).contains("cannot record another one"));
        let outside = catch(|| before_each(|| (), || ())).expect_err("an error").to_string();
        assert_eq!(outside, "before_each: no step is being recorded");
        assert!(seed().is_none());
    }
}
