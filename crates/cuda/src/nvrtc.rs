//! NVIDIA's run-time compiler, loaded when the first kernel is compiled.

use crate::driver::error;
use ferrograd_tensor::Result;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Program = *mut c_void;
type Status = c_int;

/// The functions that are called.
pub struct Nvrtc {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    explain: unsafe extern "C" fn(Status) -> *const c_char,
    /// Major and minor.
    pub version: (i32, i32),
}

/// What was compiled, and what the compiler had to say.
pub struct Compiled {
    /// Machine code of one architecture.
    pub cubin: Vec<u8>,
    /// Warnings, registers and shared memory.
    pub log: String,
}

impl Nvrtc {
    /// The library.
    ///
    /// # Errors
    /// If it is not found where the system, CUDA's variables or `FERROGRAD_NVRTC` say.
    pub fn get() -> Result<&'static Nvrtc> {
        static NVRTC: OnceLock<Result<Nvrtc>> = OnceLock::new();
        NVRTC.get_or_init(Nvrtc::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Nvrtc> {
        let library = candidates().iter().find_map(|path| open(path)).ok_or_else(|| {
            error(
                "no CUDA compiler here (libnvrtc.so.12 or .13): install the CUDA toolkit, or \
                 `pip install nvidia-cuda-nvrtc` and let FERROGRAD_NVRTC name the folder of its library",
            )
        })?;
        // The library stays for good.
        let library: &'static Library = Box::leak(Box::new(library));
        let missing = |e| error(format!("this libnvrtc lacks a function: {e}"));
        // SAFETY: the types are those of nvrtc.h, which have not changed since CUDA 11.1.
        unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status =
                *library.get(b"nvrtcVersion\0").map_err(missing)?;
            let (mut major, mut minor) = (0, 0);
            version(&mut major, &mut minor);
            Ok(Nvrtc {
                create: *library.get(b"nvrtcCreateProgram\0").map_err(missing)?,
                compile: *library.get(b"nvrtcCompileProgram\0").map_err(missing)?,
                destroy: *library.get(b"nvrtcDestroyProgram\0").map_err(missing)?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize\0").map_err(missing)?,
                cubin: *library.get(b"nvrtcGetCUBIN\0").map_err(missing)?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0").map_err(missing)?,
                log: *library.get(b"nvrtcGetProgramLog\0").map_err(missing)?,
                explain: *library.get(b"nvrtcGetErrorString\0").map_err(missing)?,
                version: (major, minor),
            })
        }
    }

    /// Compiles `source`, called `name` in messages, with headers `(name, text)`.
    ///
    /// # Errors
    /// What the compiler printed.
    pub fn compile(&self, name: &str, source: &str, headers: &[(&str, &str)], options: &[String]) -> Result<Compiled> {
        let c = |text: &str| CString::new(text).map_err(|_| error(format!("{name}: a NUL byte in the source")));
        let (source, file) = (c(source)?, c(name)?);
        let names = headers.iter().map(|(name, _)| c(name)).collect::<Result<Vec<_>>>()?;
        let texts = headers.iter().map(|(_, text)| c(text)).collect::<Result<Vec<_>>>()?;
        let options = options.iter().map(|o| c(o)).collect::<Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));

        let mut program: Program = std::ptr::null_mut();
        // SAFETY: all strings end in NUL and outlive the calls; the arrays have the lengths that are passed; the program is
        // used between its creation and its destruction only.
        unsafe {
            let made = (self.create)(
                &mut program,
                source.as_ptr(),
                file.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            );
            self.check(name, made, "")?;
            let status = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let log = self.text(program);
            let compiled = self.check(name, status, &log).and_then(|()| {
                let mut size = 0;
                self.check(name, (self.cubin_size)(program, &mut size), "")?;
                let mut cubin = vec![0u8; size];
                self.check(name, (self.cubin)(program, cubin.as_mut_ptr().cast()), "")?;
                Ok(Compiled { cubin, log })
            });
            (self.destroy)(&mut program);
            compiled
        }
    }

    /// # Safety
    /// The program exists.
    unsafe fn text(&self, program: Program) -> String {
        let mut size = 0;
        // SAFETY: the caller's promise; the buffer has the size that was asked for.
        unsafe {
            if (self.log_size)(program, &mut size) != 0 || size == 0 {
                return String::new();
            }
            let mut log = vec![0u8; size];
            (self.log)(program, log.as_mut_ptr().cast());
            log.truncate(log.iter().position(|&b| b == 0).unwrap_or(size));
            String::from_utf8_lossy(&log).into_owned()
        }
    }

    fn check(&self, name: &str, status: Status, log: &str) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function returns a string that lives as long as the library.
        let what = unsafe { CStr::from_ptr((self.explain)(status)) }.to_string_lossy();
        Err(error(format!("{name} does not compile: {what}\n{log}")))
    }
}

/// Where the library may be, the likeliest first.
fn candidates() -> Vec<PathBuf> {
    const NAMES: [&str; 5] =
        ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
    let mut folders = Vec::new();
    if let Some(given) = std::env::var_os("FERROGRAD_NVRTC") {
        let given = PathBuf::from(given);
        if given.is_file() {
            return vec![given];
        }
        folders.push(given);
    }
    // Whatever the system's loader finds by itself.
    folders.push(PathBuf::new());
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        folders.extend(
            std::env::var_os(variable)
                .iter()
                .flat_map(|home| ["lib64", "lib", "bin"].map(|folder| Path::new(home).join(folder))),
        );
    }
    folders.push("/usr/local/cuda/lib64".into());
    folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name))).collect()
}

fn open(path: &Path) -> Option<Library> {
    // In a folder of its own (a Python package), the library does not find its other half by itself.
    if let Some(folder) = path.parent().filter(|folder| folder.is_dir()) {
        for entry in folder.read_dir().ok()?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("libnvrtc-builtins.so.") {
                // SAFETY: NVIDIA's library, whose initialisers do nothing but set it up; it stays loaded.
                let other = unsafe { Library::new(entry.path()) };
                std::mem::forget(other);
            }
        }
    }
    // SAFETY: as above.
    unsafe { Library::new(path) }.ok()
}
