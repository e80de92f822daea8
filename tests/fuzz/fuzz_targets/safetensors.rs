#![no_main]

use leyden_fuzz::{run, targets};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(targets::safetensors, data));
