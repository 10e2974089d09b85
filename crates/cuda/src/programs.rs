//! From the name of a kernel to one that can be launched: sources, compiled for the card once.

use crate::cubin::{Unit, keep};
use crate::driver::{error, explain};
use crate::nvrtc::Nvrtc;
use crate::ops;
use cudarc::driver::{result, sys};
use ferrograd_tensor::{DType, Error, Result};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../kernels/", $name)))),*]
    };
}

/// What kernels include.
pub const HEADERS: &[(&str, &str)] = files! {
    "attention.cuh"
    "attention_exact.cuh"
    "attention_mma.cuh"
    "attention_operands.cuh"
    "attention_scores.cuh"
    "attention_softmax.cuh"
    "attention_tiles.cuh"
    "attention_wgmma.cuh"
    "conv.cuh"
    "elementwise.cuh"
    "epilogue.cuh"
    "exponentials.cuh"
    "functions.cuh"
    "hopper.cuh"
    "integers.cuh"
    "layout.cuh"
    "matmul.cuh"
    "matmul_mma.cuh"
    "matmul_simt.cuh"
    "norm.cuh"
    "norm_backward.cuh"
    "panels.cuh"
    "philox.cuh"
    "planes.cuh"
    "ptx.cuh"
    "recurrence.cuh"
    "recurrence_blocks.cuh"
    "reduction.cuh"
    "rows.cuh"
    "tensor_core.cuh"
    "tensors.cuh"
    "types.cuh"
};
/// One file for each operation.
const SOURCES: &[(&str, &str)] = files! {
    "arg_reduce.cu"
    "attention.cu"
    "attention_backward.cu"
    "attention_backward_wgmma.cu"
    "attention_decode.cu"
    "attention_wgmma.cu"
    "binary.cu"
    "cast.cu"
    "cat.cu"
    "channel_norm.cu"
    "channels_last.cu"
    "compare.cu"
    "conv_direct.cu"
    "conv_mma.cu"
    "conv_simt.cu"
    "copy.cu"
    "cross_entropy.cu"
    "cross_entropy_backward.cu"
    "cumsum.cu"
    "dropout.cu"
    "full.cu"
    "gated.cu"
    "gather.cu"
    "gradient_norm.cu"
    "index_add.cu"
    "index_check.cu"
    "int_mm.cu"
    "layer_norm.cu"
    "layer_norm_backward.cu"
    "matmul.cu"
    "matmul_mma.cu"
    "matmul_simt.cu"
    "matmul_wgmma.cu"
    "matvec.cu"
    "max_pool.cu"
    "moments.cu"
    "optimizer.cu"
    "plane_gather.cu"
    "plane_map.cu"
    "q8_0.cu"
    "random.cu"
    "recurrence_mma.cu"
    "recurrence_simt.cu"
    "recurrence_step.cu"
    "reduce.cu"
    "rms_norm.cu"
    "rms_norm_backward.cu"
    "rope.cu"
    "select.cu"
    "softmax.cu"
    "softmax_backward.cu"
    "sort.cu"
    "split_k.cu"
    "unary.cu"
    "ladder/attention/01_naive.cu"
    "ladder/attention/02_online.cu"
    "ladder/attention/03_shared.cu"
    "ladder/attention/04_tensor_core.cu"
    "ladder/attention/05_pipelined.cu"
    "ladder/layer_norm/01_naive.cu"
    "ladder/layer_norm/02_coalesced.cu"
    "ladder/layer_norm/03_one_pass.cu"
    "ladder/layer_norm/04_registers.cu"
    "ladder/layer_norm/05_vectorised.cu"
    "ladder/matmul/01_naive.cu"
    "ladder/matmul/02_coalesced.cu"
    "ladder/matmul/03_shared.cu"
    "ladder/matmul/04_register_tile.cu"
    "ladder/matmul/05_vectorised.cu"
    "ladder/matmul/06_tensor_core.cu"
    "ladder/matmul/07_pipelined.cu"
    "ladder/matmul/08_swizzled.cu"
    "ladder/matmul/09_wgmma.cu"
    "ladder/softmax/01_naive.cu"
    "ladder/softmax/02_coalesced.cu"
    "ladder/softmax/03_online.cu"
    "ladder/softmax/04_registers.cu"
    "ladder/softmax/05_vectorised.cu"
};

/// The types for each of which a program is compiled by itself (`-DTYPE=bf16`): of files that take the compiler seconds. In others
/// there are kernels for all types, whose names end in their dtypes.
fn types((file, define): Program) -> &'static [DType] {
    use DType::*;
    match file {
        "softmax.cu"
        | "softmax_backward.cu"
        | "layer_norm.cu"
        | "layer_norm_backward.cu"
        | "rms_norm.cu"
        | "rms_norm_backward.cu"
        | "cross_entropy.cu"
        | "cross_entropy_backward.cu"
        | "matvec.cu"
        | "moments.cu"
        | "channel_norm.cu" => &[F32, F64, F16, BF16],
        "matmul_mma.cu" | "recurrence_mma.cu" => &[BF16, F16, F32],
        "int_mm.cu" => &[I8],
        "matmul_wgmma.cu" if define == ops::matmul_wgmma::BOTH_ALONG_K => &[BF16, F16, F32],
        "conv_mma.cu" | "matmul_wgmma.cu" => &[BF16, F16],
        // A truth value is read as the byte that it is.
        "reduce.cu" => &[F32, F64, F16, BF16, I64, I32, I8, U8],
        _ => &[],
    }
}

/// A kernel: the file, what is defined for it (`"FUNCTION=gelu"`), its name there, and the dtype that the program is for or else
/// that the name ends in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KernelId {
    pub file: &'static str,
    pub define: &'static str,
    pub name: &'static str,
    pub dtype: Option<DType>,
}

/// A kernel that can be launched.
#[derive(Clone, Copy)]
pub struct Kernel(pub(crate) sys::CUfunction);
// SAFETY: a handle that the driver allows any thread to use.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// A compiled file.
#[derive(Clone, Copy)]
struct Module(sys::CUmodule);
// SAFETY: a handle that the driver allows any thread to use.
unsafe impl Send for Module {}

/// A file and what is defined for it: what is compiled together.
pub type Program = (&'static str, &'static str);

/// The same for one of its [`types`], if it has any.
type Typed = (Program, Option<DType>);

/// All that has been compiled for a card.
pub struct Programs {
    /// As the compiler wants it: `sm_90a`.
    architecture: String,
    kernels: RwLock<HashMap<KernelId, Kernel>>,
    modules: Mutex<HashMap<Typed, Module>>,
}

impl Programs {
    /// For a card of this compute capability.
    ///
    /// # Errors
    /// If there is no compiler, and nothing was compiled ahead of time.
    pub fn new((major, minor): (i32, i32)) -> Result<Programs> {
        // From Hopper on, the architecture's own instructions are behind the "a".
        let architecture = format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" });
        if !unit((("copy.cu", ""), None))?.is_ahead(&architecture) {
            Nvrtc::get()?;
        }
        Ok(Programs { architecture, kernels: RwLock::default(), modules: Mutex::default() })
    }

    /// The kernel, compiled if need be. The card is the calling thread's.
    ///
    /// # Errors
    /// If it does not compile, or the driver does not take it.
    pub fn kernel(&self, id: KernelId) -> Result<Kernel> {
        if let Some(&kernel) = self.kernels.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(kernel);
        }
        let program = (id.file, id.define);
        let (own, name) = match id.dtype {
            Some(DType::Bool) if !types(program).is_empty() => (Some(DType::U8), id.name.to_owned()),
            Some(_) if !types(program).is_empty() => (id.dtype, id.name.to_owned()),
            Some(dtype) => (None, format!("{}_{dtype}", id.name)),
            None => (None, id.name.to_owned()),
        };
        let module = self.module((program, own))?;
        let kernel = function(module, id.file, &name)?;
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(id, kernel);
        Ok(kernel)
    }

    fn module(&self, program: Typed) -> Result<Module> {
        // One thread compiles, others that want the same wait for it.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&module) = modules.get(&program) {
            return Ok(module);
        }
        let module = self.load(unit(program)?)?;
        modules.insert(program, module);
        Ok(module)
    }

    fn load(&self, unit: Unit) -> Result<Module> {
        let cubin = unit.cubin(&self.architecture)?;
        // SAFETY: a whole image, from the compiler or from a file that is written whole or not at all.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|e| explain(&format!("loading {} {}", unit.name, unit.define), e))?;
        Ok(Module(module))
    }

    /// The kernel of this name in a source that is no file of ours; loaded for good. The card is the calling thread's.
    ///
    /// # Errors
    /// As [`kernel`](Programs::kernel).
    pub fn kernel_of(&self, unit: Unit, name: &str) -> Result<Kernel> {
        let file = unit.name;
        function(self.load(unit)?, file, name)
    }
}

fn function(module: Module, file: &str, name: &str) -> Result<Kernel> {
    let c_name = CString::new(name).map_err(|_| error(format!("{name:?} is no kernel's name")))?;
    // SAFETY: the module is loaded for good.
    let function = unsafe { result::module::get_function(module.0, c_name) };
    Ok(Kernel(function.map_err(|e| explain(&format!("{file} has no kernel {name}"), e))?))
}

/// What is compiled for a program.
fn unit(((file, define), own): Typed) -> Result<Unit<'static>> {
    let found = SOURCES.iter().find(|(name, _)| *name == file);
    let source = found.map(|(_, source)| *source).ok_or_else(|| error(format!("there is no kernel file {file}")))?;
    let define = match own {
        Some(dtype) => format!("{define} TYPE={dtype}").trim_start().to_owned().into(),
        None => define.into(),
    };
    Ok(Unit { name: file, source, define })
}

/// The architecture of Hopper with all its instructions.
const HOPPER: &str = "sm_90a";

/// A program that was compiled ahead of time.
pub struct Report {
    /// The file, and what is defined for it.
    pub program: String,
    /// What the compiler said of it: registers and memory of each kernel, and warnings.
    pub log: String,
    /// The machine code.
    pub cubin: Vec<u8>,
    /// Is it written in Hopper's own instructions?
    pub hopper: bool,
    /// How long it took.
    pub time: Duration,
}

/// Compiles every program that there is for an architecture (`sm_90a`), on all cores; with a folder, the machine code is kept there, where
/// `FERROGRAD_CACHE` finds it on a machine without the compiler.
///
/// # Errors
/// The first program that does not compile or cannot be written.
pub fn compile_all(architecture: &str, folder: Option<&Path>) -> Result<Vec<Report>> {
    let mut programs: Vec<Unit> = Vec::new();
    for program in ops::programs() {
        let units = match types(program) {
            [] => vec![unit((program, None))?],
            types => types.iter().map(|&own| unit((program, Some(own)))).collect::<Result<_>>()?,
        };
        programs.extend(units.into_iter().filter(|unit| architecture == HOPPER || !unit.is_for_hopper()));
    }
    let next = AtomicUsize::new(0);
    let one = |unit: &Unit| {
        let start = Instant::now();
        let compiled = unit.compile(architecture, &["--ptxas-options=-v"])?;
        if let Some(folder) = folder {
            let path = folder.join(unit.file_name(architecture, None));
            keep(&path, &compiled.cubin).map_err(|e| Error::io(&path, &e))?;
        }
        let name = format!("{} {}", unit.name, unit.define).trim().to_owned();
        let (log, cubin, hopper) = (compiled.log, compiled.cubin, unit.is_for_hopper());
        Ok(Report { program: name, log, cubin, hopper, time: start.elapsed() })
    };
    let worker = || -> Vec<(usize, Result<Report>)> {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < programs.len());
        std::iter::from_fn(take).map(|i| (i, one(&programs[i]))).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut all: Vec<(usize, Result<Report>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("compiling does not panic")).collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, report)| report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_hopper_says_so_in_its_name() {
        for (name, _) in SOURCES {
            let hopper = unit(((name, ""), None)).unwrap().is_for_hopper();
            assert_eq!(hopper, name.ends_with("wgmma.cu"), "{name}");
        }
    }
}
