//! Memory, streams, events, captures and graphs of the stand-in driver.
//!
//! SAFETY, of all calls here: handles live as long as the process, pointers as long as the call or the stream's work, and
//! sizes agree.

use std::ptr::null_mut;

use super::common::*;
use cudarc::driver::sys::{self, CUevent, CUgraph, CUgraphExec, CUresult, CUstream, CUstreamCaptureMode};

fn stream() -> CUstream {
    let mut stream = null_mut();
    let non_blocking = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
    check(unsafe { sys::cuStreamCreate(&mut stream, non_blocking) });
    stream
}

fn event() -> CUevent {
    let mut event = null_mut();
    check(unsafe { sys::cuEventCreate(&mut event, 0) });
    event
}

fn begin(stream: CUstream) {
    check(unsafe { sys::cuStreamBeginCapture_v2(stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL) });
}

fn end(stream: CUstream) -> Result<CUgraph, CUresult> {
    let mut graph = null_mut();
    unsafe { sys::cuStreamEndCapture(stream, &mut graph) }.result().map(|()| graph).map_err(|e| e.0)
}

fn instantiate(graph: CUgraph) -> CUgraphExec {
    let mut executable = null_mut();
    unsafe {
        check(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
        check(sys::cuGraphDestroy(graph));
    }
    executable
}

fn synchronizations() -> usize {
    emulator_function::<extern "C" fn() -> usize>("emulator_count_synchronizations")()
}

const SCALE: &str = r#"extern "C" __global__ void scale(float* x, float by) { x[threadIdx.x] *= by; }"#;

emulated! {
    fn memory_runs_out() {
        init();
        unsafe {
            let (mut free, mut total, mut x, mut y) = (0, 0, 0, 0);
            check(sys::cuMemGetInfo_v2(&mut free, &mut total));
            assert_eq!((free, total), (4 << 30, 4 << 30));
            check(sys::cuMemAllocAsync(&mut x, 3 << 30, null_mut()));
            assert_eq!(sys::cuMemAllocAsync(&mut y, 2 << 30, null_mut()), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
            check(sys::cuMemFreeAsync(x, null_mut()));
            check(sys::cuMemAlloc_v2(&mut y, 2 << 30));
            check(sys::cuMemFree_v2(y));
            assert_eq!(sys::cuMemFree_v2(y), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(sys::cuMemAlloc_v2(&mut y, 0), CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    }

    fn copies_stay_inside_allocations() {
        init();
        let x = upload(&[1f32; 4]);
        let mut host = [0f32; 8];
        unsafe {
            assert_eq!(sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), x, 20), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(sys::cuMemcpyHtoD_v2(x + 4, host.as_ptr().cast(), 16), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(sys::cuMemsetD32Async(x, 0, 5, null_mut()), CUresult::CUDA_ERROR_INVALID_VALUE);
            check(sys::cuMemsetD32Async(x + 4, 2f32.to_bits(), 2, null_mut()));
            check(sys::cuMemsetD16Async(x + 12, 0x4040, 1, null_mut()));
            check(sys::cuMemsetD8Async(x + 14, 0x40, 2, null_mut()));
        }
        assert_eq!(download::<u32>(x, 4), [0x3f800000, 0x40000000, 0x40000000, 0x40404040]);
    }

    fn synchronizing_calls_are_counted() {
        init();
        let stream = stream();
        let (x, event) = (upload(&[0f32; 4]), event());
        let before = synchronizations();
        unsafe {
            let mut pinned = null_mut();
            check(sys::cuMemAllocHost_v2(&mut pinned, 16));
            check(sys::cuMemcpyDtoHAsync_v2(pinned, x, 16, stream));
            check(sys::cuEventRecord(event, stream));
            check(sys::cuEventQuery(event));
            assert_eq!(synchronizations(), before);
            check(sys::cuStreamSynchronize(stream));
            check(sys::cuEventSynchronize(event));
            check(sys::cuCtxSynchronize());
            let mut pageable = [0f32; 4];
            check(sys::cuMemcpyDtoHAsync_v2(pageable.as_mut_ptr().cast(), x, 16, stream));
            check(sys::cuMemcpyDtoH_v2(pageable.as_mut_ptr().cast(), x, 16));
            assert_eq!(synchronizations(), before + 5);
            check(sys::cuMemFreeHost(pinned));
        }
    }

    fn events_measure_time() {
        init();
        let (start, end) = (event(), event());
        let mut milliseconds = 0.0;
        unsafe {
            let code = sys::cuEventElapsedTime(&mut milliseconds, start, end);
            assert_eq!(code, CUresult::CUDA_ERROR_INVALID_HANDLE, "not recorded");
            check(sys::cuEventRecord(start, null_mut()));
            std::thread::sleep(std::time::Duration::from_millis(2));
            check(sys::cuEventRecord(end, null_mut()));
            check(sys::cuEventElapsedTime(&mut milliseconds, start, end));
            assert!(milliseconds >= 2.0);
            check(sys::cuEventDestroy_v2(start));
            assert_eq!(sys::cuEventRecord(start, null_mut()), CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
    }

    fn a_graph_keeps_its_arguments_and_runs_again() {
        init();
        let (stream, scale) = (stream(), kernel(SCALE, "scale"));
        let x = upload(&[1f32; 4]);
        begin(stream);
        let mut scratch = 0;
        {
            let by = 3f32;
            let mut arguments = [(&raw const x).cast_mut().cast(), (&raw const by).cast_mut().cast()];
            check(launch_on(stream, scale, [1, 1, 1], [4, 1, 1], 0, &mut arguments));
            unsafe {
                check(sys::cuMemAllocAsync(&mut scratch, 16, stream));
                check(sys::cuMemcpyDtoDAsync_v2(scratch, x, 16, stream));
                check(sys::cuMemcpyDtoDAsync_v2(x, scratch, 8, stream));
                check(sys::cuMemFreeAsync(scratch, stream));
                check(sys::cuMemsetD32Async(x, 0, 1, stream));
            }
        }
        let executable = instantiate(end(stream).unwrap());
        assert_eq!(download::<f32>(x, 4), [1.0; 4], "nothing ran while it was captured");
        unsafe {
            check(sys::cuGraphLaunch(executable, stream));
            check(sys::cuGraphLaunch(executable, stream));
            assert_eq!(download::<f32>(x, 4), [0.0, 9.0, 9.0, 9.0]);
            assert_eq!(download::<u32>(scratch, 1), [u32::MAX], "the graph's memory is poison after its free");
            check(sys::cuGraphExecDestroy(executable));
            assert_eq!(sys::cuGraphLaunch(executable, stream), CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
    }

    fn a_capture_follows_events_to_other_streams() {
        init();
        let (main, side, scale) = (stream(), stream(), kernel(SCALE, "scale"));
        let (x, by) = (upload(&[1f32; 4]), 2f32);
        let mut arguments = [(&raw const x).cast_mut().cast(), (&raw const by).cast_mut().cast()];
        let (fork, join) = (event(), event());
        for joined in [true, false] {
            begin(main);
            unsafe {
                check(sys::cuEventRecord(fork, main));
                check(sys::cuStreamWaitEvent(side, fork, 0));
                check(launch_on(side, scale, [1, 1, 1], [4, 1, 1], 0, &mut arguments));
                check(sys::cuEventRecord(join, side));
                if joined {
                    check(sys::cuStreamWaitEvent(main, join, 0));
                }
            }
            let graph = end(main);
            if joined {
                let executable = instantiate(graph.unwrap());
                check(unsafe { sys::cuGraphLaunch(executable, main) });
                assert_eq!(download::<f32>(x, 4), [2.0; 4]);
            } else {
                assert_eq!(graph, Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
            }
        }
    }

    fn a_capture_refuses_to_wait() {
        init();
        let (main, other, x, captured, outside) = (stream(), stream(), upload(&[0f32; 4]), event(), event());
        let mut host = [0f32; 4];
        check(unsafe { sys::cuEventRecord(outside, other) });
        let refused = |name: &str, expected, call: &mut dyn FnMut() -> CUresult| {
            begin(main);
            check(unsafe { sys::cuEventRecord(captured, main) });
            assert_eq!(call(), expected, "{name}");
            assert_eq!(end(main), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), "{name}");
        };
        use CUresult::*;
        refused("stream", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &mut || unsafe { sys::cuStreamSynchronize(main) });
        refused("query", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &mut || unsafe { sys::cuStreamQuery(main) });
        refused("context", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &mut || unsafe { sys::cuCtxSynchronize() });
        refused("event", CUDA_ERROR_CAPTURED_EVENT, &mut || unsafe { sys::cuEventSynchronize(captured) });
        refused("malloc", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &mut || unsafe { sys::cuMemAlloc_v2(&mut 0, 4) });
        refused("copy", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &mut || unsafe {
            sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), x, 16)
        });
        refused("isolation", CUDA_ERROR_STREAM_CAPTURE_ISOLATION, &mut || unsafe {
            sys::cuStreamWaitEvent(main, outside, 0)
        });
        // Elsewhere work goes on.
        begin(main);
        check(unsafe { sys::cuStreamSynchronize(other) });
        check(unsafe { sys::cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), x, 16, other) });
        end(main).unwrap();
        assert_eq!(end(main), Err(CUDA_ERROR_ILLEGAL_STATE));
    }

    fn tensor_maps_are_checked() {
        init();
        #[repr(align(64))]
        struct Aligned(sys::CUtensorMap);
        let x = upload(&[0f32; 64 * 64]);
        let encode = |address: u64, dims: [u64; 2], stride: u64, bounds: [u32; 2], swizzle| {
            let mut map: Aligned = unsafe { std::mem::zeroed() };
            unsafe {
                sys::cuTensorMapEncodeTiled(
                    &mut map.0,
                    sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    2,
                    address as *mut _,
                    dims.as_ptr(),
                    [stride].as_ptr(),
                    bounds.as_ptr(),
                    [1, 1].as_ptr(),
                    sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                    swizzle,
                    sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                    sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
                )
            }
        };
        use sys::CUtensorMapSwizzle::*;
        check(encode(x, [64, 64], 256, [32, 64], CU_TENSOR_MAP_SWIZZLE_128B));
        for (what, code) in [
            ("address", encode(x + 4, [64, 64], 256, [32, 64], CU_TENSOR_MAP_SWIZZLE_128B)),
            ("dimension", encode(x, [0, 64], 256, [32, 64], CU_TENSOR_MAP_SWIZZLE_128B)),
            ("stride", encode(x, [64, 64], 252, [32, 64], CU_TENSOR_MAP_SWIZZLE_128B)),
            ("box", encode(x, [64, 64], 256, [32, 257], CU_TENSOR_MAP_SWIZZLE_128B)),
            ("inner box", encode(x, [64, 64], 256, [3, 64], CU_TENSOR_MAP_SWIZZLE_NONE)),
            ("swizzle", encode(x, [64, 64], 256, [64, 64], CU_TENSOR_MAP_SWIZZLE_128B)),
        ] {
            assert_eq!(code, CUresult::CUDA_ERROR_INVALID_VALUE, "{what}");
        }
    }

    fn a_call_without_a_context_says_so() {
        unsafe {
            let (mut count, mut x) = (0, 0);
            assert_eq!(sys::cuDeviceGetCount(&mut count), CUresult::CUDA_ERROR_NOT_INITIALIZED);
            check(sys::cuInit(0));
            assert_eq!(sys::cuMemAlloc_v2(&mut x, 4), CUresult::CUDA_ERROR_INVALID_CONTEXT);
            init();
            check(sys::cuMemAlloc_v2(&mut x, 4));
            let elsewhere = std::thread::spawn(|| sys::cuMemAlloc_v2(&mut 0, 4)).join().unwrap();
            assert_eq!(elsewhere, CUresult::CUDA_ERROR_INVALID_CONTEXT, "a context is current per thread");
        }
    }

    fn a_missing_wait_between_streams_is_found() {
        init();
        let (first, second, scale) = (stream(), stream(), kernel(SCALE, "scale"));
        // `first` scales, `second` copies the result, with or without a wait between them.
        let copied = |wait: bool| {
            let (x, y, by, done) = (upload(&[1f32; 4]), upload(&[0f32; 4]), 2f32, event());
            let mut arguments = [(&raw const x).cast_mut().cast(), (&raw const by).cast_mut().cast()];
            check(launch_on(first, scale, [1, 1, 1], [4, 1, 1], 0, &mut arguments));
            unsafe {
                check(sys::cuEventRecord(done, first));
                if wait {
                    check(sys::cuStreamWaitEvent(second, done, 0));
                }
                check(sys::cuMemcpyDtoDAsync_v2(y, x, 16, second));
                check(sys::cuStreamSynchronize(second));
            }
            download::<f32>(y, 4)[0]
        };
        for schedule in ["", "1", "2", "3", "lazy"] {
            set_schedule(schedule);
            assert!((0..10).all(|_| copied(true) == 2.0), "schedule {schedule:?}");
            let hidden = (0..10).all(|_| copied(false) == 2.0);
            assert_eq!(hidden, schedule.is_empty(), "schedule {schedule:?}");
        }
    }

    fn a_pinned_buffer_that_is_reused_too_early_is_found() {
        init();
        set_schedule("lazy");
        let (stream, x) = (stream(), upload(&[0f32; 1]));
        unsafe {
            let mut pinned = null_mut();
            check(sys::cuMemAllocHost_v2(&mut pinned, 4));
            let buffer = pinned.cast::<f32>();
            buffer.write(1.0);
            check(sys::cuMemcpyHtoDAsync_v2(x, pinned, 4, stream));
            buffer.write(2.0);
            check(sys::cuStreamSynchronize(stream));
            assert_eq!(download::<f32>(x, 1), [2.0]);
            // What is not pinned is staged.
            let mut pageable = 3f32;
            check(sys::cuMemcpyHtoDAsync_v2(x, (&raw const pageable).cast(), 4, stream));
            pageable = -pageable;
            check(sys::cuMemcpyDtoHAsync_v2((&raw mut pageable).cast(), x, 4, stream));
            assert_eq!(pageable, 3.0);
        }
    }

    fn events_come_when_their_stream_gets_there() {
        init();
        set_schedule("lazy");
        let (stream, start, end, x) = (stream(), event(), event(), upload(&[0f32; 4]));
        unsafe {
            check(sys::cuEventRecord(start, stream));
            check(sys::cuMemsetD8Async(x, 0, 16, stream));
            check(sys::cuEventRecord(end, stream));
            assert_eq!(sys::cuEventQuery(end), CUresult::CUDA_ERROR_NOT_READY);
            assert_eq!(sys::cuEventElapsedTime(&mut 0.0, start, end), CUresult::CUDA_ERROR_NOT_READY);
            let queries = (0..).take_while(|_| sys::cuEventQuery(end) == CUresult::CUDA_ERROR_NOT_READY).count();
            assert_eq!(queries, 2);
            check(sys::cuEventElapsedTime(&mut 0.0, start, end));
            check(sys::cuStreamQuery(stream));
        }
    }

    fn the_use_of_freed_memory_is_found() {
        init();
        let write = kernel("extern \"C\" __global__ void write(float* x) { x[2] = 1.f; }", "write");
        let (x, y) = (upload(&[1f32; 4]), upload(&[1f32; 4]));
        unsafe {
            check(sys::cuMemFreeAsync(x, null_mut()));
            assert_eq!(sys::cuMemFreeAsync(x, null_mut()), CUresult::CUDA_ERROR_INVALID_VALUE);
            check(launch_on(null_mut(), write, [1, 1, 1], [1, 1, 1], 0, &mut [(&raw const x).cast_mut().cast()]));
            let report = error_text(sys::cuCtxSynchronize());
            assert!(report.contains("byte 8 of an allocation of 16 bytes that had been freed"), "{report}");
            forgive();
            // Another stream frees what a copy still needs.
            set_schedule("lazy");
            let (copies, frees) = (stream(), stream());
            check(sys::cuMemcpyDtoDAsync_v2(y, y + 8, 8, copies));
            check(sys::cuMemFreeAsync(y, frees));
            check(sys::cuStreamSynchronize(frees));
            let report = error_text(sys::cuStreamSynchronize(copies));
            assert!(report.contains("freed before it happened"), "{report}");
        }
    }
}
