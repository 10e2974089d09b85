//! The tensor itself: what it holds and how to look at it.

use crate::dtype::Element;
use crate::storage::{Buffer, CpuBuffer};
use crate::{DType, Device, Layout, Shape, ensure, fail};
use bytemuck::Pod;
use std::sync::Arc;

/// An n-dimensional array of numbers.
///
/// Cheap to clone: clones and views share storage. Tensors are values: no operation changes one that somebody else
/// can see. An update happens in place when nobody else holds the storage, and copies otherwise.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) buffer: Arc<dyn Buffer>,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
}

impl Tensor {
    /// A tensor over a backend's memory. For backends.
    ///
    /// # Panics
    /// If the layout reaches beyond the buffer.
    pub fn from_buffer(buffer: Arc<dyn Buffer>, layout: Layout, dtype: DType, device: Device) -> Tensor {
        assert!(layout.fits(dtype.size(), buffer.bytes()), "layout {layout:?} reaches beyond its buffer");
        Tensor { buffer, layout, dtype, device }
    }
    /// A row-major CPU tensor over memory that a kernel has written. For the CPU backend.
    pub fn from_cpu(buffer: CpuBuffer, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::from_buffer(Arc::new(buffer), Layout::contiguous(shape), dtype, Device::CPU)
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &Shape {
        &self.layout.shape
    }
    /// The extents as a slice.
    pub fn dims(&self) -> &[usize] {
        &self.layout.shape
    }
    /// The extent of dimension `dim`, counted from the end if negative.
    #[track_caller]
    pub fn dim(&self, dim: isize) -> usize {
        self.layout.shape[crate::shape::axis(dim, self.rank(), "dim")]
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.layout.shape.rank()
    }
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }
    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }
    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// The memory. For backends.
    pub fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }
    /// Are the elements one row-major run?
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }
    /// Do the two share storage?
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }
    /// The extents as an array, to take a shape apart: `let [b, t, c] = x.dims_of("attention");`
    #[track_caller]
    pub fn dims_of<const N: usize>(&self, op: &'static str) -> [usize; N] {
        match self.dims().try_into() {
            Ok(dims) => dims,
            Err(_) => fail!(Shape, op, "expected {N} dimensions, got {}: {}", self.rank(), self.shape()),
        }
    }

    /// The same elements, row-major: itself if they are already.
    pub fn contiguous(&self) -> Tensor {
        if self.is_contiguous() { self.clone() } else { self.device.backend().copy(self) }
    }
    /// A copy that shares no storage with this one.
    pub fn copy(&self) -> Tensor {
        self.device.backend().copy(self)
    }
    /// A copy on another device (itself if it is there).
    pub fn to_device(&self, device: &Device) -> Tensor {
        if self.device == *device {
            return self.clone();
        }
        let x = self.contiguous();
        let start = if x.numel() == 0 { 0 } else { x.layout.offset * x.dtype.size() };
        let range = start..start + x.numel() * x.dtype.size();
        let buffer = match x.buffer.as_any().downcast_ref::<CpuBuffer>() {
            Some(here) => device.backend().upload(&here.as_slice::<u8>()[range]),
            None => device.backend().upload(&x.device.backend().download(&*x.buffer)[range]),
        };
        Tensor { buffer, layout: Layout::contiguous(x.shape()), dtype: x.dtype, device: *device }
    }
    /// The elements as bytes in row-major order, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let x = self.contiguous();
        let size = x.dtype.size();
        if x.numel() == 0 {
            return Vec::new();
        }
        if let Some(buffer) = x.buffer.as_any().downcast_ref::<CpuBuffer>() {
            return buffer.as_slice::<u8>()[x.layout.offset * size..(x.layout.offset + x.numel()) * size].to_vec();
        }
        let bytes = x.device.backend().download(&*x.buffer);
        bytes[x.layout.offset * size..(x.layout.offset + x.numel()) * size].to_vec()
    }
    /// The elements in row-major order.
    ///
    /// # Panics
    /// If `T` is not the tensor's dtype: cast with [`to_dtype`](Tensor::to_dtype) first.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        ensure!(T::DTYPE == self.dtype, DType, "to_vec", "asked for {} of a {} tensor", T::DTYPE, self.dtype);
        if self.device.is_cpu() && self.is_contiguous() {
            return self.contiguous_slice::<T::Stored>().iter().map(|&v| T::load(v)).collect();
        }
        bytemuck::pod_collect_to_vec::<u8, T::Stored>(&self.to_bytes()).into_iter().map(T::load).collect()
    }
    /// The only element, as `T`.
    ///
    /// # Panics
    /// If there is not exactly one element.
    #[track_caller]
    pub fn item<T: Element>(&self) -> T {
        ensure!(self.numel() == 1, Shape, "item", "needs exactly one element, got shape {}", self.shape());
        self.to_dtype(T::DTYPE).to_vec::<T>()[0]
    }
    /// Every element as f64, in row-major order.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        self.to_dtype(DType::F64).to_vec()
    }

    /// The whole storage of a CPU tensor (bool as bytes). For the CPU backend; index it through the layout.
    #[track_caller]
    pub(crate) fn storage<T: Pod>(&self) -> &[T] {
        let cpu = self.buffer.as_any().downcast_ref::<CpuBuffer>();
        cpu.unwrap_or_else(|| panic!("a CPU kernel was given a tensor on {}", self.device)).as_slice()
    }
    /// The elements of a row-major CPU tensor. For the CPU backend.
    #[track_caller]
    pub(crate) fn contiguous_slice<T: Pod>(&self) -> &[T] {
        debug_assert!(self.is_contiguous());
        if self.numel() == 0 {
            return &[]; // a section of an empty tensor may begin behind its storage
        }
        &self.storage()[self.layout.offset..][..self.numel()]
    }
    /// The elements of a row-major CPU tensor that nobody else holds, to write. For the CPU backend.
    pub(crate) fn unique_slice_mut<T: Pod>(&mut self) -> Option<&mut [T]> {
        let (offset, n) = (self.layout.offset, self.numel());
        if n == 0 {
            return Some(&mut []);
        }
        if !self.is_contiguous() {
            return None;
        }
        let cpu = Arc::get_mut(&mut self.buffer)?.as_any_mut().downcast_mut::<CpuBuffer>()?;
        Some(&mut cpu.as_mut_slice()[offset..][..n])
    }
    /// Is this the only tensor that holds its storage?
    pub fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.buffer).is_some()
    }
    /// Makes the storage unshared and row-major, by a copy if it is not.
    pub fn make_unique(&mut self) -> &mut Self {
        if !self.is_contiguous() || Arc::get_mut(&mut self.buffer).is_none() {
            *self = self.copy();
        }
        self
    }
    /// Takes over the elements of `src`, of its shape, dtype and device: in place where nobody else holds the storage.
    ///
    /// # Panics
    /// If one of the three differs.
    #[track_caller]
    pub fn assign(&mut self, src: &Tensor) {
        const OP: &str = "assign";
        ensure!(self.shape() == src.shape(), Shape, OP, "{} cannot take the elements of {}", self.shape(), src.shape());
        ensure!(self.dtype == src.dtype, DType, OP, "a tensor of {} cannot take {}", self.dtype, src.dtype);
        same_device(OP, &[self, src]);
        if !self.is_contiguous() || !self.is_unique() {
            return *self = src.copy();
        }
        let region = self.layout.clone();
        self.device.backend().write(self, &region, src);
    }
    /// The same storage under another layout.
    pub(crate) fn with_layout(&self, mut layout: Layout) -> Tensor {
        // A view of no elements may start anywhere, also beyond the storage, which has none to slice from.
        if layout.numel() == 0 {
            layout.offset = 0;
        }
        debug_assert!(layout.fits(self.dtype.size(), self.buffer.bytes()));
        Tensor { layout, ..self.clone() }
    }
}

impl AsRef<Tensor> for Tensor {
    fn as_ref(&self) -> &Tensor {
        self
    }
}

/// Panics unless all live on one device.
#[track_caller]
pub(crate) fn same_device(op: &'static str, tensors: &[&Tensor]) {
    for pair in tensors.windows(2) {
        ensure!(
            pair[0].device == pair[1].device,
            Device,
            op,
            "operands live on different devices: {} on {} and {} on {} (move one with to_device)",
            pair[0].shape(),
            pair[0].device,
            pair[1].shape(),
            pair[1].device
        );
    }
}
