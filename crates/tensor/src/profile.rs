//! Where the time goes: every kernel that a backend runs, with its shapes, time, GFLOP/s and GB/s.
//!
//! `FERROGRAD_DEBUG=1` prints a line for each kernel to stderr; [`profile`] collects them into a table and a trace.

use crate::cpu::peak::{Peak, peak};
use crate::{Error, Result, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One kernel that ran.
#[derive(Clone, Debug)]
pub struct Event {
    /// The backend's name for it, which is the operation's.
    pub name: &'static str,
    /// Its operands, as `f32[2, 3]`.
    pub operands: String,
    /// When it began, since the profile did.
    pub start: Duration,
    /// How long it took.
    pub time: Duration,
    /// Floating-point operations; 0 where they are not what limits it.
    pub flops: f64,
    /// Bytes of all operands and results: what must move at least.
    pub bytes: f64,
    /// The thread that called it, numbered in order of appearance.
    pub thread: usize,
}

/// How many [`profile`]s are running; changed under the lock of `EVENTS`.
static PROFILES: AtomicUsize = AtomicUsize::new(0);
static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());
fn events() -> MutexGuard<'static, Vec<Event>> {
    EVENTS.lock().unwrap_or_else(|e| e.into_inner())
}
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static DEBUG: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FERROGRAD_DEBUG").is_some_and(|v| v == "1"));

fn thread() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = COUNT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|n| *n)
}

/// Runs a kernel for a backend: `f`, which reads `operands` and does `flops` operations. Costs a few nanoseconds unless
/// somebody looks.
#[inline]
pub fn kernel<R: Moved>(name: &'static str, operands: &[&Tensor], flops: f64, f: impl FnOnce() -> R) -> R {
    let watch = (PROFILES.load(Ordering::Relaxed) > 0 || *DEBUG).then(|| Watch::start(name, operands, flops));
    let result = f();
    if let Some(watch) = watch {
        watch.stop(result.moved());
    }
    result
}

/// A kernel that is running, and somebody looks.
struct Watch {
    event: Event,
    start: Instant,
}

impl Watch {
    #[cold]
    fn start(name: &'static str, operands: &[&Tensor], flops: f64) -> Watch {
        let text: Vec<String> = operands.iter().map(|x| format!("{}{}", x.dtype(), x.shape())).collect();
        let bytes = operands.iter().map(|x| x.moved()).sum();
        let (epoch, start) = (*START, Instant::now());
        let event = Event {
            name,
            operands: text.join(" "),
            start: start.saturating_duration_since(epoch),
            time: Duration::ZERO,
            flops,
            bytes,
            thread: thread(),
        };
        Watch { event, start }
    }
    #[cold]
    fn stop(mut self, written: f64) {
        self.event.time = self.start.elapsed();
        self.event.bytes += written;
        if *DEBUG {
            eprintln!("{}", self.event);
        }
        let mut events = events();
        if PROFILES.load(Ordering::Relaxed) > 0 {
            events.push(self.event);
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        write!(f, "{:<22} {:>10.1} µs", self.name, seconds * 1e6)?;
        if self.flops > 0.0 {
            write!(f, "  {:>7.1} GFLOP/s", self.flops / seconds / 1e9)?;
        }
        write!(f, "  {:>6.1} GB/s  {}", self.bytes / seconds / 1e9, self.operands)
    }
}

/// Runs `f` and collects the kernels that run meanwhile, on any thread.
///
/// ```
/// use ferrograd_tensor::{Tensor, profile::profile};
/// let x = Tensor::ones([64, 64]);
/// let (y, times) = profile(|| x.matmul(&x).exp().sum());
/// assert_eq!(times.events.len(), 3);
/// println!("{times}"); // a table: kernel, calls, time, GFLOP/s, GB/s, share of what the machine can do
/// # assert!(y.is_finite().all().item::<bool>());
/// ```
pub fn profile<T>(f: impl FnOnce() -> T) -> (T, Profile) {
    /// Ends a profile, also when `f` panics.
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            let mut events = events();
            if PROFILES.fetch_sub(1, Ordering::Relaxed) == 1 {
                events.clear();
            }
        }
    }
    let first = {
        let events = events();
        PROFILES.fetch_add(1, Ordering::Relaxed);
        events.len()
    };
    let running = Running;
    let (epoch, start) = (*START, Instant::now());
    let result = f();
    let time = start.elapsed();
    let mut events = events()[first..].to_vec();
    drop(running);
    let offset = start.saturating_duration_since(epoch);
    events.iter_mut().for_each(|e| e.start = e.start.saturating_sub(offset));
    (result, Profile { events, time })
}

/// What [`profile`] saw. Prints as a table, the most expensive kernel first.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Every kernel, in the order in which they ended.
    pub events: Vec<Event>,
    /// The whole time, kernels or not.
    pub time: Duration,
}

/// The calls of one kernel together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// How many.
    pub calls: usize,
    /// Seconds.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Total {
    /// The share of the machine's limit at which it ran: the larger of those of arithmetic and of memory. More than 1
    /// where the operands were in a cache.
    pub fn share(&self, peak: Peak) -> f64 {
        (self.flops / peak.flops).max(self.bytes / peak.bandwidth) / self.seconds.max(1e-12)
    }
}

impl Profile {
    /// The totals of each kernel, the most expensive first.
    pub fn totals(&self) -> Vec<(&'static str, Total)> {
        let mut by_name: BTreeMap<&'static str, Total> = BTreeMap::new();
        for e in &self.events {
            let t = by_name.entry(e.name).or_default();
            t.calls += 1;
            t.seconds += e.time.as_secs_f64();
            t.flops += e.flops;
            t.bytes += e.bytes;
        }
        let mut totals: Vec<_> = by_name.into_iter().collect();
        totals.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        totals
    }
    /// The events in Chrome's trace format: open it with <https://ui.perfetto.dev>.
    pub fn trace(&self) -> String {
        let micros = |d: Duration| d.as_secs_f64() * 1e6;
        let event = |e: &Event| {
            serde_json::json!({
                "name": e.name, "ph": "X", "pid": 0, "tid": e.thread, "ts": micros(e.start), "dur": micros(e.time),
                "args": { "operands": e.operands, "flops": e.flops, "bytes": e.bytes },
            })
        };
        serde_json::json!({ "traceEvents": self.events.iter().map(event).collect::<Vec<_>>() }).to_string()
    }
    /// Writes the [`trace`](Profile::trace).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_trace(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.trace()).map_err(|e| Error::io(path, e))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (peak, whole) = (peak(), self.time.as_secs_f64());
        writeln!(f, "{:<24}{:>7}{:>11}{:>7}{:>10}{:>8}{:>7}", "kernel", "calls", "ms", "%", "GFLOP/s", "GB/s", "peak")?;
        let mut row = |name: &str, calls: String, t: Total| {
            let per_second =
                |x: f64| if x > 0.0 { format!("{:.1}", x / t.seconds.max(1e-12) / 1e9) } else { "".into() };
            let share = if t.bytes > 0.0 { format!("{:.0} %", 100.0 * t.share(peak)) } else { "".into() };
            let (ms, percent) = (t.seconds * 1e3, 100.0 * t.seconds / whole.max(1e-12));
            let (flops, bytes) = (per_second(t.flops), per_second(t.bytes));
            writeln!(f, "{name:<24}{calls:>7}{ms:>11.3}{percent:>7.1}{flops:>10}{bytes:>8}{share:>7}")
        };
        let totals = self.totals();
        for (name, t) in &totals {
            row(name, t.calls.to_string(), *t)?;
        }
        let inside: f64 = totals.iter().map(|(_, t)| t.seconds).sum();
        row("(between kernels)", "".into(), Total { seconds: (whole - inside).max(0.0), ..Total::default() })?;
        row("all", self.events.len().to_string(), Total { seconds: whole, ..Total::default() })?;
        let (flops, bandwidth) = (peak.flops / 1e9, peak.bandwidth / 1e9);
        write!(f, "peak: {flops:.0} GFLOP/s of f32, {bandwidth:.1} GB/s, as measured")
    }
}

/// What a kernel gave, as bytes that it wrote.
pub trait Moved {
    /// Bytes.
    fn moved(&self) -> f64;
}
impl Moved for Tensor {
    fn moved(&self) -> f64 {
        (self.numel() * self.dtype().size()) as f64
    }
}
impl Moved for () {
    fn moved(&self) -> f64 {
        0.0
    }
}
impl Moved for bool {
    fn moved(&self) -> f64 {
        0.0
    }
}
impl Moved for (i64, i64) {
    fn moved(&self) -> f64 {
        0.0
    }
}
impl<T: Moved> Moved for Option<T> {
    fn moved(&self) -> f64 {
        self.as_ref().map_or(0.0, T::moved)
    }
}
impl<A: Moved, B: Moved> Moved for (A, B) {
    fn moved(&self) -> f64 {
        self.0.moved() + self.1.moved()
    }
}
impl<A: Moved, B: Moved, C: Moved> Moved for (A, B, C) {
    fn moved(&self) -> f64 {
        self.0.moved() + self.1.moved() + self.2.moved()
    }
}
impl<A: Moved, B: Moved, C: Moved, D: Moved> Moved for (A, B, C, D) {
    fn moved(&self) -> f64 {
        self.0.moved() + self.1.moved() + self.2.moved() + self.3.moved()
    }
}
/// Of a struct: the sum over these fields.
macro_rules! moved {
    ($($t:path: $($field:ident)*;)*) => {$(
        impl Moved for $t {
            fn moved(&self) -> f64 {
                0.0 $(+ self.$field.moved())*
            }
        }
    )*};
}
moved! {
    crate::ops::attention::AttentionGradients: query key value mask;
    crate::ops::lstm::LstmOutput: hs h_n c_n gates cells;
    crate::ops::lstm::LstmGradients: x h0 c0 w_hh w_ih bias;
    crate::ops::gru::GruOutput: hs h_n gates;
    crate::ops::gru::GruGradients: x h0 w_hh w_ih b_ih b_hh;
    crate::ops::rnn::RnnOutput: hs h_n;
    crate::ops::rnn::RnnGradients: x h0 w_hh w_ih bias;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_counted_and_traced() {
        let (a, b) = (Tensor::ones([8, 4]), Tensor::ones([4, 6]));
        let (_, seen) = profile(|| a.matmul(&b).exp().exp());
        let of = |name: &str| seen.totals().into_iter().find(|(n, _)| *n == name).map(|(_, t)| t);
        // Other tests may run kernels meanwhile, on their own threads.
        let matmul = seen.events.iter().find(|e| e.operands == "f32[8, 4] f32[4, 6]").unwrap();
        assert_eq!((matmul.name, matmul.flops, matmul.bytes), ("matmul", 384.0, 4.0 * (32 + 24 + 48) as f64));
        assert!(of("exp").unwrap().calls >= 2 && of("no such kernel").is_none());
        assert!(seen.to_string().contains("exp") && seen.to_string().contains("GFLOP/s of f32"));
        let trace: serde_json::Value = serde_json::from_str(&seen.trace()).unwrap();
        assert_eq!(trace["traceEvents"].as_array().unwrap().len(), seen.events.len());
    }

    #[test]
    fn nested_profiles_see_their_own_part() {
        let x = Tensor::ones(3);
        let ((_, inner), outer) = profile(|| (drop(x.sin()), profile(|| x.cos())).1);
        let has = |p: &Profile, name: &str| p.events.iter().any(|e| e.name == name && e.operands == "f32[3]");
        assert!(has(&inner, "cos") && !has(&inner, "sin") && has(&outer, "cos") && has(&outer, "sin"));
    }
}
