//! The CUDA driver: is it there, and what did it answer.

use cudarc::driver::{result, sys};
use ferrograd_tensor::{Error, Result};
use std::sync::OnceLock;

/// An error of the device floor.
pub fn error(message: impl Into<String>) -> Error {
    Error::Device { op: "cuda", message: message.into() }
}

/// What the driver answered, in words.
pub fn explain(what: &str, answer: result::DriverError) -> Error {
    let text = answer.error_string().ok().and_then(|s| s.to_str().ok().map(str::to_owned));
    error(format!("{what}: {} ({:?})", text.unwrap_or_else(|| "an error without a name".into()), answer.0))
}

/// Loads and starts the driver; every other call comes after this one.
pub fn start() -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // SAFETY: only looks for the library; cudarc would panic where it is missing.
            if !unsafe { sys::is_culib_present() } {
                return Err(error(
                    "no CUDA driver here (libcuda.so.1): install NVIDIA's driver, version 525 or later; \
                     in a container, start it with the GPU passed in",
                ));
            }
            result::init().map_err(|e| explain("the CUDA driver does not start", e))
        })
        .clone()
}

/// Cards that the driver sees.
pub fn count() -> Result<usize> {
    start()?;
    Ok(result::device::get_count().map_err(|e| explain("counting the cards", e))? as usize)
}
