//! Fused CPU kernels on tensors, as nodes of the autograd graph.
//!
//! Each function returns `None` if it does not apply (another device, an unsupported type or
//! width); its caller then uses libtorch's own operations: one code path for every device, with a
//! faster one on CPU cores.

use std::sync::Arc;

use half::bf16;
use leyden_autograd::attach;
use leyden_fused::attention::cached::{self, VisibleColumns};
use leyden_fused::attention::{self, Heads, Outcome, Plan, Shape};
use leyden_fused::simd::LANES;
use leyden_fused::{AdamW, Element, PackedWeight, Turn};
use tch::{Device, Kind, Tensor};

use crate::error::LmError;

/// Whether kernels exist for this number type on this device.
pub(crate) fn applies(kind: Kind, device: Device) -> bool {
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::BFloat16)
}

pub(crate) fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// Runs a generic function for the element type of a kind that [`applies`].
macro_rules! by_kind {
    ($kind:expr, $function:ident ( $($argument:expr),* $(,)? )) => {
        match $kind {
            Kind::BFloat16 => $function::<half::bf16>($($argument),*),
            Kind::Float => $function::<f32>($($argument),*),
            other => unreachable!("a kernel for {other:?}, which `applies` excludes"),
        }
    };
}

pub(crate) use by_kind;

/// The elements of a CPU tensor from its first to its last, regardless of strides.
///
/// The tensor must not be written while the slice is alive.
///
/// # Panics
/// If the tensor is on another device or of another kind than `T`'s: reading it would go out of
/// bounds.
pub(crate) fn numbers<T: Element>(x: &Tensor) -> &[T] {
    assert_readable::<T>(x);
    let sizes = x.size();
    if sizes.contains(&0) {
        return &[];
    }
    let last: i64 = sizes.iter().zip(x.stride()).map(|(size, stride)| (size - 1) * stride).sum();
    // SAFETY: strides are not negative, so these are the elements from the first to the last.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), last as usize + 1) }
}

/// In release builds too: a tensor of two bytes per element read as four ends out of bounds.
fn assert_readable<T: Element>(x: &Tensor) {
    let kind = if size_of::<T>() == size_of::<f32>() { Kind::Float } else { Kind::BFloat16 };
    assert_eq!((x.kind(), x.device()), (kind, Device::Cpu), "a kernel was given this tensor");
}

/// A new tensor and its elements.
struct Fresh {
    tensor: Tensor,
}

impl Fresh {
    fn new(size: &[i64], kind: Kind) -> Result<Self, LmError> {
        Ok(Self { tensor: Tensor::f_empty(size, (kind, Device::Cpu))? })
    }

    fn numbers<T: Element>(&mut self) -> &mut [T] {
        assert_readable::<T>(&self.tensor);
        let length = self.tensor.numel();
        // SAFETY: contiguous, and not shared yet.
        unsafe { std::slice::from_raw_parts_mut(self.tensor.data_ptr().cast(), length) }
    }
}

/// See [`crate::model::rms_norm`].
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Option<Result<Tensor, LmError>> {
    let (kind, width) = (x.kind(), weight.size()[0] as usize);
    let fits = applies(kind, x.device()) && weight.kind() == kind && width.is_multiple_of(LANES);
    fits.then(|| by_kind!(kind, rms_norm_of(x, weight, eps as f32)))
}

fn rms_norm_of<T: Element>(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, LmError> {
    let (input, w) = (x.detach().f_contiguous()?, weight.detach().f_contiguous()?);
    let mut y = Fresh::new(&x.size(), x.kind())?;
    leyden_fused::rms_norm(threads(), numbers::<T>(&input), numbers(&w), eps, y.numbers());
    let backward = move |of_y: &Tensor| {
        let of_y = of_y.contiguous();
        let mut of_x = Fresh::new(&input.size(), input.kind()).map_err(|e| e.to_string())?;
        let (x, w, of_y) = (numbers::<T>(&input), numbers::<T>(&w), numbers::<T>(&of_y));
        let of_w = leyden_fused::rms_norm_backward(threads(), x, w, eps, of_y, of_x.numbers::<T>());
        let of_w = Tensor::from_slice(&of_w).to_kind(input.kind());
        Ok(vec![Some(of_x.tensor), Some(of_w)])
    };
    Ok(attach(&[x, weight], &y.tensor, Box::new(backward))?)
}

/// See [`crate::pieces::swiglu`].
pub(crate) fn swiglu(gate_up: &Tensor) -> Option<Result<Tensor, LmError>> {
    let (kind, inner) = (gate_up.kind(), gate_up.size()[1] as usize / 2);
    let fits = applies(kind, gate_up.device()) && inner.is_multiple_of(LANES);
    fits.then(|| by_kind!(kind, swiglu_of(gate_up, inner)))
}

fn swiglu_of<T: Element>(gate_up: &Tensor, inner: usize) -> Result<Tensor, LmError> {
    let input = gate_up.detach().f_contiguous()?;
    let mut y = Fresh::new(&[gate_up.size()[0], inner as i64], gate_up.kind())?;
    leyden_fused::swiglu(threads(), inner, numbers::<T>(&input), y.numbers());
    let backward = move |of_y: &Tensor| {
        let of_y = of_y.contiguous();
        let mut back = Fresh::new(&input.size(), input.kind()).map_err(|e| e.to_string())?;
        let (x, of_y) = (numbers::<T>(&input), numbers::<T>(&of_y));
        leyden_fused::swiglu_backward(threads(), inner, x, of_y, back.numbers());
        Ok(vec![Some(back.tensor)])
    };
    Ok(attach(&[gate_up], &y.tensor, Box::new(backward))?)
}

/// Whether [`rotate`], [`tree_attention`] and [`cached_attention`] support heads of this width.
pub(crate) fn fits_heads(head_dim: usize, kind: Kind, device: Device) -> bool {
    applies(kind, device) && head_dim > 0 && head_dim.is_multiple_of(LANES)
}

/// Rotates `x` [n, heads, head_dim] by `cos` and `sin` [n, head_dim / 2], f32.
pub(crate) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, LmError> {
    by_kind!(x.kind(), rotate_of(x, cos, sin))
}

fn rotate_of<T: Element>(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, LmError> {
    let size = x.size();
    let shape = (size[1] as usize, size[2] as usize);
    // Tokens may be strided, heads may not.
    let strides = x.stride();
    let input = match strides[1] == size[2] && strides[2] == 1 {
        true => x.detach(),
        false => x.detach().f_contiguous()?,
    };
    let mut y = Fresh::new(&size, x.kind())?;
    let (cos, sin) = (cos.shallow_clone(), sin.shallow_clone());
    let turn = move |x: &Tensor, turn: Turn, y: &mut Fresh| {
        let angles = (numbers::<f32>(&cos), numbers::<f32>(&sin));
        let stride = x.stride()[0] as usize;
        let to = y.numbers();
        leyden_fused::rotary(threads(), shape, numbers::<T>(x), stride, angles, turn, to);
    };
    turn(&input, Turn::Forth, &mut y);
    let backward = move |of_y: &Tensor| {
        let mut of_x = Fresh::new(&of_y.size(), of_y.kind()).map_err(|e| e.to_string())?;
        turn(&of_y.contiguous(), Turn::Back, &mut of_x);
        Ok(vec![Some(of_x.tensor)])
    };
    Ok(attach(&[x], &y.tensor, Box::new(backward))?)
}

/// Attention of packed trees: `q` [n, heads, head_dim], `k` and `v` [n, kv_heads, head_dim] →
/// [n, heads · head_dim].
pub(crate) fn tree_attention(
    plan: &Arc<Plan>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor, LmError> {
    by_kind!(q.kind(), tree_attention_of(plan, q, k, v))
}

fn heads<T: Element>(x: &Tensor) -> Heads<'_, T> {
    let strides = x.stride();
    Heads { data: numbers(x), token: strides[0] as usize, head: strides[1] as usize }
}

fn tree_attention_of<T: Element>(
    plan: &Arc<Plan>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor, LmError> {
    let packed = |x: &Tensor| match x.stride()[2] {
        1 => Ok::<_, LmError>(x.detach()),
        _ => Ok(x.detach().f_contiguous()?),
    };
    let (q_, k_, v_) = (packed(q)?, packed(k)?, packed(v)?);
    let (size, kv_size) = (q.size(), k.size());
    let shape = Shape {
        heads: size[1] as usize,
        kv_heads: kv_size[1] as usize,
        head_dim: size[2] as usize,
    };
    let mut mixed = Fresh::new(&[size[0], size[1] * size[2]], q.kind())?;
    let (hq, hk, hv) = (heads::<T>(&q_), heads::<T>(&k_), heads::<T>(&v_));
    let log_sums = attention::forward(threads(), plan, shape, hq, hk, hv, mixed.numbers());
    // Detached: the tensor itself would own the node that owns it, and never be freed.
    let (plan, kept) = (plan.clone(), mixed.tensor.detach());
    let backward = move |gradient: &Tensor| {
        let gradient = gradient.contiguous();
        let fresh = |size: &[i64]| Fresh::new(size, gradient.kind()).map_err(|e| e.to_string());
        let (mut of_q, mut of_k, mut of_v) = (fresh(&size)?, fresh(&kv_size)?, fresh(&kv_size)?);
        let outcome = Outcome {
            mixed: numbers::<T>(&kept),
            log_sums: &log_sums,
            gradient: numbers::<T>(&gradient),
        };
        let outs = [of_q.numbers(), of_k.numbers(), of_v.numbers()];
        let (q, k, v) = (heads::<T>(&q_), heads::<T>(&k_), heads::<T>(&v_));
        attention::backward(threads(), &plan, shape, q, k, v, outcome, outs);
        Ok(vec![Some(of_q.tensor), Some(of_k.tensor), Some(of_v.tensor)])
    };
    Ok(attach(&[q, k, v], &mixed.tensor, Box::new(backward))?)
}

/// One step of AdamW in place; `values` and `gradients` of any kind that [`applies`], the moments
/// f32, all contiguous and of equal length.
pub(crate) fn adamw(
    rule: &AdamW,
    values: &Tensor,
    gradients: &Tensor,
    moments: (&Tensor, &Tensor),
) {
    match (values.kind(), gradients.kind()) {
        (Kind::Float, Kind::Float) => adamw_of::<f32, f32>(rule, values, gradients, moments),
        (Kind::Float, _) => adamw_of::<f32, bf16>(rule, values, gradients, moments),
        (_, Kind::Float) => adamw_of::<bf16, f32>(rule, values, gradients, moments),
        _ => adamw_of::<bf16, bf16>(rule, values, gradients, moments),
    }
}

fn adamw_of<P: Element, G: Element>(
    rule: &AdamW,
    values: &Tensor,
    gradients: &Tensor,
    (first, second): (&Tensor, &Tensor),
) {
    let (p, m, v) = (in_place::<P>(values), in_place::<f32>(first), in_place::<f32>(second));
    rule.step(threads(), p, numbers::<G>(gradients), m, v);
}

/// The elements of a contiguous CPU tensor, mutably; no other slice of them may be alive.
#[allow(clippy::mut_from_ref, reason = "tensors are shared memory by nature")]
pub(crate) fn in_place<T: Element>(x: &Tensor) -> &mut [T] {
    assert!(x.is_contiguous(), "a kernel was given a strided tensor");
    assert_readable::<T>(x);
    // SAFETY: contiguous elements of `T`'s kind.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), x.numel()) }
}

/// A matrix for products of few rows.
pub enum Packed {
    Single(PackedWeight<f32>),
    Half(PackedWeight<bf16>),
}

impl Packed {
    /// `weight` [out, in] packed, if there are kernels for it.
    pub(crate) fn of(weight: &Tensor) -> Option<Self> {
        let (out, input) = (weight.size()[0] as usize, weight.size()[1] as usize);
        let fits = applies(weight.kind(), weight.device()) && PackedWeight::<f32>::supported(input);
        if !(fits && weight.is_contiguous()) {
            return None;
        }
        let (weight, threads) = (weight.detach(), threads());
        Some(match weight.kind() {
            Kind::Float => Self::Single(PackedWeight::new(threads, numbers(&weight), out, input)),
            _ => Self::Half(PackedWeight::new(threads, numbers(&weight), out, input)),
        })
    }

    /// Whether a product with this many rows is faster than libtorch's.
    pub(crate) fn suits(rows: i64) -> bool {
        rows <= FEW_ROWS
    }

    /// `x` [n, in] times the transposed matrix; `None` if libtorch is faster.
    pub(crate) fn multiply(&self, x: &Tensor) -> Option<Result<Tensor, LmError>> {
        Self::suits(x.size()[0]).then(|| match self {
            Self::Single(weight) => multiply(weight, x),
            Self::Half(weight) => multiply(weight, x),
        })
    }
}

/// A type of weights that can be packed.
pub(crate) trait FusedElement: Element {
    /// The matrix of a weight of this type.
    ///
    /// # Panics
    /// If it is of the other type.
    fn packed(weight: &Packed) -> &PackedWeight<Self>;
}

impl FusedElement for f32 {
    fn packed(weight: &Packed) -> &PackedWeight<Self> {
        let Packed::Single(weight) = weight else { panic!("a weight in bf16") };
        weight
    }
}

impl FusedElement for bf16 {
    fn packed(weight: &Packed) -> &PackedWeight<Self> {
        let Packed::Half(weight) = weight else { panic!("a weight in f32") };
        weight
    }
}

/// Maximum number of rows for which a packed weight is faster.
const FEW_ROWS: i64 = 256;

fn multiply<T: Element>(weight: &PackedWeight<T>, x: &Tensor) -> Result<Tensor, LmError> {
    let x = x.f_contiguous()?;
    let mut y = Fresh::new(&[x.size()[0], weight.outputs() as i64], x.kind())?;
    weight.multiply(threads(), numbers(&x), y.numbers());
    Ok(y.tensor)
}

/// One layer of a cache: [2, slots, kv_heads, capacity, head_dim] elements in the kernels' own
/// order.
pub(crate) struct CachedLayer {
    memory: Tensor,
    slots: usize,
    capacity: usize,
}

impl CachedLayer {
    pub(crate) fn new(memory: &Tensor, slots: usize, capacity: usize) -> Self {
        Self { memory: memory.shallow_clone(), slots, capacity }
    }

    pub(crate) fn layer<T: Element>(&self) -> cached::Layer<T> {
        let memory = in_place::<T>(&self.memory);
        // SAFETY: the memory covers a whole layer and is kept alive by the tensor; an engine runs
        // on one thread, and its stores are zero-initialised and hold finite numbers from then on.
        unsafe { cached::Layer::new(memory.as_mut_ptr(), self.slots, self.capacity) }
    }
}

/// Writes keys and values [n, kv_heads, head_dim] to their positions (token, slot, column).
pub(crate) fn write_cache(
    kind: Kind,
    shape: Shape,
    layer: &CachedLayer,
    places: &[(usize, usize, usize)],
    k: &Tensor,
    v: &Tensor,
) {
    fn of<T: Element>(
        shape: Shape,
        layer: &CachedLayer,
        places: &[(usize, usize, usize)],
        k: &Tensor,
        v: &Tensor,
    ) {
        layer.layer::<T>().write(shape, places, heads(k), heads(v));
    }
    by_kind!(kind, of(shape, layer, places, k, v));
}

/// Attention of queries [n, heads, head_dim] over their own slots and trunks → [n, heads ·
/// head_dim].
pub(crate) fn cached_attention(
    kind: Kind,
    shape: Shape,
    layers: (&CachedLayer, &CachedLayer),
    visible: &[VisibleColumns],
    q: &Tensor,
) -> Result<Tensor, LmError> {
    fn of<T: Element>(
        shape: Shape,
        (own, trunk): (&CachedLayer, &CachedLayer),
        visible: &[VisibleColumns],
        q: &Tensor,
    ) -> Result<Tensor, LmError> {
        let width = (shape.heads * shape.head_dim) as i64;
        let mut mixed = Fresh::new(&[q.size()[0], width], q.kind())?;
        let layers = (own.layer::<T>(), trunk.layer::<T>());
        cached::attend(threads(), shape, layers, visible, heads(q), mixed.numbers());
        Ok(mixed.tensor)
    }
    by_kind!(kind, of(shape, layers, visible, q))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leyden_fused::attention::Plan;
    use tch::{Device, Kind, Tensor};

    use super::tree_attention;

    #[test]
    fn a_dropped_graph_releases_its_memory() {
        let plan = Arc::new(Plan::new(&[None, Some(0), None], &[0..2, 2..3]));
        let random = || Tensor::randn([3, 2, 16], (Kind::Float, Device::Cpu));
        let [q, k, v] = [random(), random(), random()].map(|x| x.set_requires_grad(true));
        let mixed = tree_attention(&plan, &q, &k, &v).unwrap();
        assert_eq!(Arc::strong_count(&plan), 2, "the graph holds what its backward pass needs");
        mixed.sum(Kind::Float).backward();
        drop(mixed);
        assert_eq!(Arc::strong_count(&plan), 1);
    }
}
