//! Runs tests under the emulator, and small safe wrappers of the driver's interface for them.

use std::ffi::{CStr, CString, c_int, c_void};
use std::path::Path;
use std::process::Command;

use cudarc::driver::sys::{self, CUdeviceptr, CUfunction, CUmodule, CUresult, CUstream};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};

/// Each test runs in a process of its own, which finds the stand-ins on its library path.
macro_rules! emulated {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        $(#[$meta])*
        fn $name() {
            if std::env::var_os("FERROGRAD_EMULATED").is_some() {
                $body
            } else {
                $crate::common::run_emulated(concat!(module_path!(), "::", stringify!($name)));
            }
        }
    )*};
}

pub fn run_emulated(path: &str) {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    // Where `cargo xtask test-cuda` builds it, too.
    let folder =
        ferrograd_cuda_emulator::build(&Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("cuda-emulator"))
            .expect("the emulator builds");
    let output = Command::new(std::env::current_exe().expect("this program has a path"))
        .args([name, "--exact", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("FERROGRAD_EMULATED", "1")
        .output()
        .expect("this program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{name} under the emulator: {}", output.status);
}

pub fn check(code: CUresult) {
    assert_eq!(code, CUresult::CUDA_SUCCESS, "{}", error_text(code));
}

pub fn error_text(code: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the driver gives a string that lives on.
    unsafe {
        sys::cuGetErrorString(code, &mut text);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// Calls one of the emulator's own functions, which no real driver has.
pub fn emulator_function<T: Copy>(name: &str) -> T {
    // SAFETY: the driver is loaded already; the caller names the function's type.
    unsafe { *sys::culib().get::<T>(name.as_bytes()).expect("the emulator exports it") }
}

pub fn set_schedule(schedule: &str) {
    let text = CString::new(schedule).unwrap();
    let set: extern "C" fn(*const std::ffi::c_char) -> c_int = emulator_function("emulator_set_schedule");
    assert_eq!(set(text.as_ptr()), 1);
}

pub fn forgive() {
    let forgive: extern "C" fn() = emulator_function("emulator_forgive");
    forgive();
}

/// Makes the context current on this thread.
pub fn init() {
    let mut context = std::ptr::null_mut();
    // SAFETY: plain calls.
    unsafe {
        check(sys::cuInit(0));
        check(sys::cuDevicePrimaryCtxRetain(&mut context, 0));
        check(sys::cuCtxSetCurrent(context));
    }
}

/// Compiles a program; an error is its log.
pub fn compile(source: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let texts: Vec<CString> = headers.iter().map(|(_, text)| CString::new(*text).unwrap()).collect();
    let names: Vec<CString> = headers.iter().map(|(name, _)| CString::new(*name).unwrap()).collect();
    let (texts, names): (Vec<_>, Vec<_>) =
        (texts.iter().map(|t| t.as_ptr()).collect(), names.iter().map(|n| n.as_ptr()).collect());
    let source = CString::new(source).unwrap();
    let mut program = std::ptr::null_mut();
    // SAFETY: the pointers live until the calls return.
    unsafe {
        let created = nvrtc_sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            c"test.cu".as_ptr(),
            headers.len() as c_int,
            texts.as_ptr(),
            names.as_ptr(),
        );
        assert_eq!(created, nvrtc_sys::nvrtcResult::NVRTC_SUCCESS);
        let compiled = nvrtc::compile_program(program, &["--gpu-architecture=sm_90a", "--std=c++17"]);
        let log = nvrtc::get_program_log(program).unwrap();
        let log = CStr::from_ptr(log.as_ptr()).to_string_lossy().into_owned();
        if compiled.is_err() {
            return Err(log);
        }
        let mut size = 0;
        nvrtc_sys::nvrtcGetCUBINSize(program, &mut size);
        let mut object = vec![0u8; size];
        nvrtc_sys::nvrtcGetCUBIN(program, object.as_mut_ptr().cast());
        nvrtc_sys::nvrtcDestroyProgram(&mut program);
        Ok(object)
    }
}

/// The kernel `name` of a program.
pub fn kernel(source: &str, name: &str) -> CUfunction {
    function(load(source), name)
}

pub fn load(source: &str) -> CUmodule {
    let object = compile(source, &[]).unwrap_or_else(|log| panic!("{log}"));
    let mut module = std::ptr::null_mut();
    // SAFETY: the image is a whole object.
    unsafe { check(sys::cuModuleLoadData(&mut module, object.as_ptr().cast())) };
    module
}

pub fn function(module: CUmodule, name: &str) -> CUfunction {
    let (mut function, name) = (std::ptr::null_mut(), CString::new(name).unwrap());
    // SAFETY: the module lives for the whole test.
    unsafe { check(sys::cuModuleGetFunction(&mut function, module, name.as_ptr())) };
    function
}

/// Device memory that holds these values.
pub fn upload<T: Copy>(values: &[T]) -> CUdeviceptr {
    let mut address = 0;
    // SAFETY: the sizes agree.
    unsafe {
        check(sys::cuMemAlloc_v2(&mut address, size_of_val(values)));
        check(sys::cuMemcpyHtoD_v2(address, values.as_ptr().cast(), size_of_val(values)));
    }
    address
}

pub fn download<T: Copy + Default>(address: CUdeviceptr, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    // SAFETY: the sizes agree, and any bytes are a value of the number types that tests use.
    unsafe { check(sys::cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), address, size_of_val(&values[..]))) };
    values
}

pub fn launch_on(
    stream: CUstream,
    function: CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    arguments: &mut [*mut c_void],
) -> CUresult {
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    // SAFETY: each test passes the arguments that its kernel has.
    unsafe {
        sys::cuLaunchKernel(
            function,
            gx,
            gy,
            gz,
            bx,
            by,
            bz,
            shared,
            stream,
            arguments.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    }
}

/// `launch!(function, blocks, threads, shared; arguments…)`: a launch on the default stream.
macro_rules! launch {
    ($function:expr, $grid:expr, $block:expr, $shared:expr; $($argument:expr),*) => {
        launch_on(std::ptr::null_mut(), $function, [$grid, 1, 1], [$block, 1, 1], $shared,
            &mut [$(std::ptr::from_mut(&mut $argument.clone()).cast()),*])
    };
}

/// A launch whose blocks are all there at a time.
pub fn launch_together(
    function: CUfunction,
    blocks: u32,
    threads: u32,
    shared: u32,
    arguments: &mut [*mut c_void],
) -> CUresult {
    let (stream, arguments) = (std::ptr::null_mut(), arguments.as_mut_ptr());
    // SAFETY: each test passes the arguments that its kernel has.
    unsafe { sys::cuLaunchCooperativeKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments) }
}

/// The same with arguments as `launch!` takes them.
macro_rules! cooperative {
    ($function:expr, $grid:expr, $block:expr, $shared:expr; $($argument:expr),*) => {
        launch_together($function, $grid, $block, $shared,
            &mut [$(std::ptr::from_mut(&mut $argument.clone()).cast()),*])
    };
}
