//! Where a tensor lives.

use crate::backend::Backend;
use crate::cpu::CpuBackend;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// A device: the backend that holds a tensor's memory and runs its kernels. Cheap to copy.
///
/// This crate knows the CPU only. A backend crate makes its devices with [`Device::from_backend`], once per device;
/// they live as long as the program.
#[derive(Clone, Copy)]
pub struct Device(&'static dyn Backend);

static DEFAULT: RwLock<Device> = RwLock::new(Device::CPU);
/// Nearly always: then there is nothing to lock.
static CPU_IS_DEFAULT: AtomicBool = AtomicBool::new(true);

impl Device {
    /// The CPU.
    pub const CPU: Device = Device(&CpuBackend);

    /// The CPU.
    pub fn cpu() -> Device {
        Self::CPU
    }
    /// Makes this the device of whatever names none: [`Tensor::zeros`](crate::Tensor::zeros), [`Tensor::new`](crate::Tensor::new),
    /// random numbers, a layer's parameters. For the whole program and all its threads, so it is best called first.
    ///
    /// ```
    /// use ferrograd_tensor::{Device, Tensor};
    /// Device::CPU.make_default();
    /// assert_eq!(Tensor::zeros(3).device(), Device::default());
    /// ```
    pub fn make_default(self) {
        *DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = self;
        CPU_IS_DEFAULT.store(self.is_cpu(), Ordering::Release);
    }
    /// A device made by another crate.
    pub fn from_backend(backend: &'static dyn Backend) -> Device {
        Device(backend)
    }
    /// Its backend.
    pub fn backend(self) -> &'static dyn Backend {
        self.0
    }
    /// Is it the CPU?
    pub fn is_cpu(self) -> bool {
        self == Device::CPU
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}
impl Eq for Device {}
impl Default for Device {
    /// The CPU, or what [`make_default`](Device::make_default) was called on last.
    fn default() -> Self {
        match CPU_IS_DEFAULT.load(Ordering::Acquire) {
            true => Self::CPU,
            false => *DEFAULT.read().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (kind, index) = self.0.id();
        match kind {
            "cpu" => f.write_str(kind),
            _ => write!(f, "{kind}:{index}"),
        }
    }
}
impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
