//! How much memory this process held, on Linux; elsewhere nothing is known.

use std::fs;

/// Starts anew: the peak is now what is held now.
pub fn reset_peak() {
    // Where this cannot be done, the peak is that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory held since, in MiB.
pub fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_large_buffer_is_seen() {
        super::reset_peak();
        let before = super::peak_mib().expect("Linux says it");
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(super::peak_mib().expect("as before") > before + 60.0);
    }
}
