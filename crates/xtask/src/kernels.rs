//! Compiles every CUDA kernel, without a card: what they use, and whether any is worse than it should be.

use crate::shell::Outcome;
use std::path::Path;
use std::process::Command;

/// What the assembler says of one kernel.
#[derive(Default)]
struct Kernel {
    name: String,
    registers: usize,
    shared: usize,
    stack: usize,
    spilled: usize,
}

/// Warnings of the assembler that mean a kernel is not what was written: register counts that are ignored, matrix
/// instructions that are made to wait for each other.
const REFUSED: [&str; 8] =
    ["C7507", "C7508", "C7510", "C7511", "C7512", "C7514", "C7515", "wgmma.mma_async instructions are serialized"];

/// Kernels with a few words in local memory for what happens rarely: sine and cosine of large numbers take 2/π to many digits.
const IN_LOCAL_MEMORY: [&str; 3] = ["FUNCTION=sin_", "FUNCTION=cos_", "normal_f32 (random.cu"];

/// What has to be in the machine code of every kernel for Hopper: products of a warpgroup, and loads by the copy engine …
const EXPECTED: [&str; 2] = ["HGMMA", "UTMALDG"];
/// … but for those that only round what another one made.
const ROUNDING: [&str; 1] = ["attention_backward_queries"];

/// Compiles for each architecture and prints a line for each kernel; into `out`, if it is given.
pub fn run(architectures: &[String], out: Option<&Path>) -> Outcome {
    let mut faults = Vec::new();
    for architecture in architectures {
        let (reports, mut count) = (ferrograd_cuda::compile_all(architecture, out)?, 0);
        println!("{architecture:>8}  {:<44} registers shared bytes  stack occupancy", "kernel");
        for report in reports.iter().filter(|report| report.hopper) {
            faults.extend(missing(report)?.iter().map(|what| format!("{architecture}: {}: {what}", report.program)));
        }
        for ferrograd_cuda::Report { program, log, .. } in &reports {
            for kernel in kernels(log) {
                count += 1;
                let name = format!("{} ({program})", kernel.name);
                let Kernel { registers, shared, stack, .. } = kernel;
                let warps = occupancy(architecture, registers);
                println!("{:>8}  {name:<44} {registers:>9} {shared:>12} {stack:>6} {warps:>7} %", "");
                if kernel.spilled > 0 {
                    faults.push(format!("{architecture}: {name} spills {} bytes of registers", kernel.spilled));
                } else if stack > 0 && !IN_LOCAL_MEMORY.iter().any(|known| name.contains(known)) {
                    faults.push(format!("{architecture}: {name} keeps {stack} bytes in local memory"));
                }
            }
            let refused = log.lines().filter(|line| REFUSED.iter().any(|code| line.contains(code)));
            faults.extend(refused.map(|line| format!("{architecture}: {program}: {line}")));
        }
        let seconds: f64 = reports.iter().map(|r| r.time.as_secs_f64()).sum();
        let slowest = reports.iter().max_by_key(|r| r.time).map_or("", |r| &r.program);
        println!("{architecture}: {count} kernels, {seconds:.0} s of compiling, the longest {slowest}");
        if count == 0 {
            return Err(format!("{architecture}: the assembler named no kernel").into());
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

/// What a Hopper program's kernels lack, if NVIDIA's disassembler is there to look (`pip install nvidia-cuda-nvdisasm`).
fn missing(report: &ferrograd_cuda::Report) -> Outcome<Vec<String>> {
    let file = std::env::temp_dir().join(format!("ferrograd-{}.cubin", std::process::id()));
    std::fs::write(&file, &report.cubin)?;
    let output = Command::new("nvdisasm").arg(&file).output();
    std::fs::remove_file(&file)?;
    let Ok(output) = output else {
        println!("no nvdisasm here: the machine code of {} is not looked at", report.program);
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(lacking(&text))
}

/// Kernels of a disassembly that lack an instruction.
fn lacking(text: &str) -> Vec<String> {
    let kernels = text.split("\n.text.").skip(1);
    let lacks = |kernel: &str| {
        let name = kernel.split(':').next().unwrap_or_default().to_owned();
        let code = kernel.split("\n.section").next().unwrap_or_default().to_owned();
        let expected = if ROUNDING.contains(&name.as_str()) { &[][..] } else { &EXPECTED };
        expected.iter().filter(move |what| !code.contains(**what)).map(move |what| format!("{name} has no {what}"))
    };
    let found: Vec<String> = kernels.clone().flat_map(lacks).collect();
    if kernels.count() == 0 { vec!["the disassembler shows no kernel".into()] } else { found }
}

/// What part of the warps that a multiprocessor can hold has room in its registers, per cent. Each of its four parts has 16,384
/// of them, and gives them to warps eight a thread at a time (CUDA C++ Programming Guide, "Compute Capabilities"). What a launch asks for in
/// threads and in shared memory may leave less.
fn occupancy(architecture: &str, registers: usize) -> usize {
    let most = match architecture {
        "sm_86" | "sm_87" | "sm_89" | "sm_120" | "sm_121" => 12,
        _ => 16,
    };
    let warps = 16_384 / (32 * registers.max(1).next_multiple_of(8));
    100 * warps.min(most) / most
}

/// What `ptxas -v` printed.
fn kernels(log: &str) -> Vec<Kernel> {
    let mut found: Vec<Kernel> = Vec::new();
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            found.push(Kernel { name: name.split('\'').next().unwrap_or_default().to_owned(), ..Default::default() });
        }
        let Some(kernel) = found.last_mut() else { continue };
        let before = |unit: &str| -> usize {
            let text = line.split(unit).next().filter(|text| text.len() < line.len());
            text.and_then(|text| text.split_whitespace().last()?.parse().ok()).unwrap_or(0)
        };
        if line.contains("bytes stack frame") {
            kernel.stack = before(" bytes stack frame");
            kernel.spilled = before(" bytes spill stores") + before(" bytes spill loads");
        }
        if line.contains("Used ") {
            kernel.registers = before(" registers");
            kernel.shared = before(" bytes smem");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_assembler_says() {
        let log = "ptxas info    : Compiling entry function 'unary_f32' for 'sm_80'\n\
                   ptxas info    : Function properties for unary_f32\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 26 registers, used 1 barriers, 128 bytes smem, 448 bytes cmem[0]\n";
        let [kernel] = &super::kernels(log)[..] else { panic!("one kernel") };
        assert_eq!(kernel.name, "unary_f32");
        assert_eq!([kernel.registers, kernel.shared, kernel.stack, kernel.spilled], [26, 128, 8, 16]);
    }

    #[test]
    fn registers_limit_the_warps() {
        let of = super::occupancy;
        assert_eq!([of("sm_90a", 32), of("sm_90a", 33), of("sm_80", 168), of("sm_80", 255)], [100, 75, 18, 12]);
        assert_eq!([of("sm_120", 40), of("sm_120", 255)], [100, 16]);
    }

    #[test]
    fn what_the_disassembler_shows() {
        let text = "\n.section .text.one\n.text.one:\n HGMMA.64x256x16.F32 R24\n UTMALDG.4D [UR8]\n\
                    \n.section .text.two\n.text.two:\n UTMALDG.4D [UR8]\n.section .nv.info\n HGMMA\n";
        assert_eq!(super::lacking(text), ["two has no HGMMA"]);
        assert_eq!(super::lacking(&text.replace("two", super::ROUNDING[0])), [""; 0]);
        assert_eq!(super::lacking("").len(), 1);
    }
}
