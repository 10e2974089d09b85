//! What is done with a case.

use bench_measure::Work;
use ferrograd::tensor::profile::profile;

/// What is done with a case.
#[derive(Clone, Copy)]
pub enum Measure {
    /// Its median time, over so many seconds, as a JSON line.
    Time(f64),
    /// A table of its kernels.
    Profile,
}

impl Measure {
    /// Measures a case, which cannot do without `work`.
    pub fn case(self, case: &str, work: Work, mut f: impl FnMut()) {
        match self {
            Measure::Time(seconds) => bench_measure::case("ferrograd", case, seconds, Some(work), f),
            Measure::Profile => {
                // The first calls fill the buffer pool.
                (0..3).for_each(|_| f());
                println!("{case}\n{}\n", profile(f).1);
            }
        }
    }
}
