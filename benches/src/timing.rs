//! What is done with a case.

use bench_measure::Work;
use ferrograd::tensor::profile::profile;
use std::sync::Mutex;

/// What is done with the cases, or with one of them.
#[derive(Clone, Copy)]
pub struct Measure<'a> {
    /// What is done.
    pub how: How<'a>,
    /// The case that this process is for, if not for all of its groups'.
    pub only: Option<&'a str>,
}

/// What is done with a case.
#[derive(Clone, Copy)]
pub enum How<'a> {
    /// Its median time, over so many seconds, as a JSON line.
    Time(f64),
    /// A table of its kernels.
    Profile,
    /// Its name is noted; it does not run.
    Name(&'a Mutex<Vec<String>>),
}

impl Measure<'_> {
    /// Whether the case is to be measured: others need not be prepared.
    pub fn wants(self, case: &str) -> bool {
        self.only.is_none_or(|only| only == case)
    }

    /// Measures a case, which cannot do without `work`, if it is wanted.
    pub fn case(self, case: &str, work: Work, mut f: impl FnMut()) {
        if !self.wants(case) {
            return;
        }
        match self.how {
            How::Time(seconds) => {
                bench_measure::case("ferrograd", case, seconds, Some(work), self.only.is_some(), f);
            }
            How::Profile => {
                // The first calls fill the buffer pool.
                (0..3).for_each(|_| f());
                println!("{case}\n{}\n", profile(f).1);
            }
            How::Name(names) => names.lock().expect("nothing panics").push(case.into()),
        }
    }
}
