//! Parity with transformers.

use leyden_core::shared_material;
use leyden_lm::golden::check_llama;

#[test]
fn llama_agrees_with_transformers() {
    let Some(folder) = shared_material("fixtures/llama_parity") else { return };
    let report = check_llama(&folder).unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
}
