//! Roofline benchmarks of kernels.
//!
//! A time alone is not informative; what matters is the share of the processor's peak FLOP/s that a
//! matrix product achieves, or the share of memory bandwidth that a normalisation achieves. So the
//! machine's limits are measured first ([`roof`]), then every kernel of the training and generation
//! path at the shapes of a given model ([`pieces`]), then composites: prefill, decoding, a training
//! step, a weight update of the engine ([`whole`]). Each benchmark declares its minimum work in
//! floating-point operations and bytes, which with the limits gives a lower bound on its time on
//! this machine.
//!
//! [`clock`] does the timing: warm-up, rotation of inputs so that caches do not hide memory
//! traffic, synchronisation with asynchronous devices, and the spread over repetitions.

pub mod clock;
pub mod pieces;
pub mod roof;
pub mod whole;

use leyden_lm::LmError;
use leyden_lm::model::LlamaConfig;
use serde::Serialize;
use tch::{Device, Kind};

use clock::{Clock, Spread};
use roof::Roof;

/// The model, device and batch shape of a measurement.
#[derive(Debug, Clone)]
pub struct Shape {
    pub config: LlamaConfig,
    pub device: Device,
    pub kind: Kind,
    /// Tokens of a micro-batch of training, prefixes merged.
    pub tokens: usize,
    /// Prompts generated concurrently, and rollouts of each.
    pub prompts: usize,
    pub samples: usize,
    /// Tokens per prompt, and per response.
    pub prompt: usize,
    pub response: usize,
}

impl Shape {
    /// Group rollouts as in a training step.
    pub fn new(config: LlamaConfig, device: Device, kind: Kind, tokens: usize) -> Self {
        Self { config, device, kind, tokens, prompts: 4, samples: 8, prompt: 200, response: 64 }
    }

    /// Rows of a decoding step.
    pub fn rows(&self) -> usize {
        self.prompts * self.samples
    }

    /// Bytes per element.
    pub fn size(&self) -> f64 {
        if self.kind == Kind::Float { 4.0 } else { 2.0 }
    }
}

/// The minimum work of a kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes that must pass through memory.
    pub bytes: f64,
}

impl Work {
    /// Lower bound on the time in seconds under `roof`; 0 if no work is declared.
    pub fn floor(&self, roof: &Roof, kind: Kind) -> f64 {
        (self.flops / roof.products(kind)).max(self.bytes / roof.copy)
    }
}

/// A repeatable kernel; the run number selects among its rotated inputs.
pub struct Kernel {
    /// Description of its input shapes.
    pub shape: String,
    pub work: Work,
    pub run: Box<dyn FnMut(usize) -> Result<(), LmError>>,
}

/// Constructor of a kernel. A kernel owns its inputs, so it is constructed just before it is timed.
pub type Maker = fn(&Shape) -> Result<Kernel, LmError>;

/// A kernel's name and its constructor.
pub type Named = (&'static str, Maker);

/// A kernel and its time.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub name: &'static str,
    pub shape: String,
    pub work: Work,
    /// Seconds.
    pub time: Spread,
    /// FLOP/s and bytes/s at the median time.
    pub flops_per_second: f64,
    pub bytes_per_second: f64,
    /// Lower bound over median time; 1 is optimal on this machine. Absent if no work is declared.
    pub share: Option<f64>,
}

/// Constructs and times one kernel.
///
/// # Errors
/// Errors of the kernel, mostly out of memory.
pub fn measure(
    (name, maker): Named,
    shape: &Shape,
    roof: &Roof,
    clock: &Clock,
) -> Result<Measured, LmError> {
    let mut kernel = maker(shape)?;
    let time = clock.time(&mut kernel.run)?;
    let Kernel { shape: description, work, .. } = kernel;
    let floor = work.floor(roof, shape.kind);
    Ok(Measured {
        name,
        shape: description,
        work,
        flops_per_second: work.flops / time.median,
        bytes_per_second: work.bytes / time.median,
        share: (floor > 0.0).then(|| floor / time.median),
        time,
    })
}

/// All kernels: those of a forward pass in order, then the others.
pub const KERNELS: &[Named] = &[
    ("embedding", pieces::embedding),
    ("rms_norm", pieces::rms_norm),
    ("projection_qkv", pieces::projection_qkv),
    ("rotary", pieces::rotary),
    ("attention_prefill", pieces::attention_prefill),
    ("attention_tree", pieces::attention_tree),
    ("attention_tree_backward", pieces::attention_tree_backward),
    ("attention_decode", pieces::attention_decode),
    ("projection_output", pieces::projection_output),
    ("projection_gate_up", pieces::projection_gate_up),
    ("swiglu", pieces::swiglu),
    ("projection_down", pieces::projection_down),
    ("head_log_softmax", pieces::head_forward),
    ("head_log_softmax_backward", pieces::head_backward),
    ("sampling", pieces::sampling),
    ("adamw", pieces::adamw),
    ("credit_advantage_loss", pieces::credit_advantage_loss),
];

/// The composite benchmarks.
pub const WHOLE: &[Named] = &[
    ("prefill", whole::prefill),
    ("decode_step", whole::decode_step),
    ("generate", whole::generate),
    ("training_step", whole::training_step),
    ("weight_push", whole::weight_push),
];
