//! Where a tensor lives.

use crate::backend::Backend;
use crate::cpu::CpuBackend;
use std::fmt;

/// A device: the backend that holds a tensor's memory and runs its kernels. Cheap to copy.
///
/// This crate knows the CPU only. A backend crate makes its devices with [`Device::from_backend`], once per device;
/// they live as long as the program.
#[derive(Clone, Copy)]
pub struct Device(&'static dyn Backend);

impl Device {
    /// The CPU.
    pub const CPU: Device = Device(&CpuBackend);

    /// The CPU.
    pub fn cpu() -> Device {
        Self::CPU
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
    fn default() -> Self {
        Self::CPU
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
