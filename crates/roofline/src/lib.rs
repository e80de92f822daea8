//! Kernels against the floor.
//!
//! A time alone says little: of a matrix product one wants to know what share of the
//! processor's products per second it got, of a normalisation what share of the memory's
//! bandwidth. So first the machine is measured ([`roof`]), then every kernel of the training
//! and generation path at the shapes of a given model ([`pieces`]), then the whole: prefill,
//! decoding, a training step, new weights for the engine ([`whole`]). Each has its work written
//! beside it, in floating-point operations and bytes that cannot be saved, and from both the
//! floor below which no implementation gets on this machine.
//!
//! How time is taken is in [`clock`]: warm-up, rotation of inputs so that a cache does not
//! answer for the memory, synchronisation where the device runs ahead, and the spread over
//! repetitions.

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

/// What is measured, and where.
#[derive(Debug, Clone)]
pub struct Shape {
    pub config: LlamaConfig,
    pub device: Device,
    pub kind: Kind,
    /// Tokens of a micro-batch of training, prefixes merged.
    pub tokens: usize,
    /// Prompts that generate together, and rollouts of each.
    pub prompts: usize,
    pub samples: usize,
    /// Tokens of a prompt, and of a response.
    pub prompt: usize,
    pub response: usize,
}

impl Shape {
    /// Group rollouts as a step of training has them, scaled to what `tokens` allow.
    pub fn new(config: LlamaConfig, device: Device, kind: Kind, tokens: usize) -> Self {
        Self { config, device, kind, tokens, prompts: 4, samples: 8, prompt: 200, response: 64 }
    }

    /// Rows of a step of decoding.
    pub fn rows(&self) -> usize {
        self.prompts * self.samples
    }

    /// Bytes of a number.
    pub fn size(&self) -> f64 {
        if self.kind == Kind::Float { 4.0 } else { 2.0 }
    }
}

/// Work that cannot be saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Floating-point operations, a multiplication and an addition counted as two.
    pub flops: f64,
    /// Bytes that go through memory at least once.
    pub bytes: f64,
}

impl Work {
    /// Seconds below which no implementation gets under `roof`; 0 of work that is not counted.
    pub fn floor(&self, roof: &Roof, kind: Kind) -> f64 {
        (self.flops / roof.products(kind)).max(self.bytes / roof.copy)
    }
}

/// A kernel that can be run again and again; the number of the run rotates its inputs.
pub struct Kernel {
    /// What it works on, in words.
    pub shape: String,
    pub work: Work,
    pub run: Box<dyn FnMut(usize) -> Result<(), LmError>>,
}

/// How a kernel is made; it holds its inputs, so it is made when its turn comes.
pub type Maker = fn(&Shape) -> Result<Kernel, LmError>;

/// A kernel's name and its maker.
pub type Named = (&'static str, Maker);

/// A kernel and its time.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub name: &'static str,
    pub shape: String,
    pub work: Work,
    /// Seconds.
    pub time: Spread,
    /// FLOP/s and bytes/s of the median.
    pub flops_per_second: f64,
    pub bytes_per_second: f64,
    /// Floor over median: 1 is as fast as this machine can be. Absent where no work is counted.
    pub share: Option<f64>,
}

/// Makes and times one kernel.
///
/// # Errors
/// What the kernel itself says, memory before all.
pub fn measure(
    (name, maker): Named,
    shape: &Shape,
    roof: &Roof,
    clock: &Clock,
) -> Result<Measured, LmError> {
    let mut kernel = maker(shape)?;
    let time = clock.time(&mut kernel.run)?;
    let Kernel { shape: words, work, .. } = kernel;
    let floor = work.floor(roof, shape.kind);
    Ok(Measured {
        name,
        shape: words,
        work,
        flops_per_second: work.flops / time.median,
        bytes_per_second: work.bytes / time.median,
        share: (floor > 0.0).then(|| floor / time.median),
        time,
    })
}

/// All kernels, in the order of a forward pass, then what comes after it.
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

/// The same for what is made of them.
pub const WHOLE: &[Named] = &[
    ("prefill", whole::prefill),
    ("decode_step", whole::decode_step),
    ("generate", whole::generate),
    ("training_step", whole::training_step),
    ("weight_push", whole::weight_push),
];
