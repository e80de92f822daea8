//! Sample reports: `cargo run -p leyden-report --example gallery -- FOLDER [RUN…]` writes
//! reports of synthetic runs (one run, three seeds, two experiments side by side) and an event
//! file for TensorBoard; if run folders are given, their report instead.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::path::{Path, PathBuf};

use leyden_report::tensorboard::EventWriter;
use leyden_report::{Options, Run, load, write};
use synthetic::Plan;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args().nth(1).map_or_else(|| PathBuf::from("gallery"), PathBuf::from);
    let real: Result<Vec<Run>, _> =
        std::env::args().skip(2).map(|run| load(Path::new(&run))).collect();
    let real = real?;
    if !real.is_empty() {
        println!("{}", write(&real, &out, &Options::default())?.page.display());
        return Ok(());
    }
    let seeds: Vec<Plan> = (1..=3)
        .map(|seed| Plan { seed, end: 0.8 + 0.03 * seed as f64, ..Plan::default() })
        .collect();
    let slower = seeds.iter().map(|plan| Plan { learning_rate: 1e-4, end: 0.6, ..plan.clone() });
    let both: Vec<Plan> = seeds.iter().cloned().chain(slower).collect();
    report(&out, "one", &seeds[..1])?;
    report(&out, "seeds", &seeds)?;
    report(&out, "compare", &both)?;
    let mut events = EventWriter::create(&out.join("events"), 0.0)?;
    for (index, record) in seeds[0].records().iter().enumerate() {
        events.record(record, index as f64)?;
    }
    Ok(())
}

fn report(out: &Path, name: &str, plans: &[Plan]) -> Result<(), Box<dyn std::error::Error>> {
    let runs: Result<Vec<Run>, _> =
        plans.iter().map(|plan| load(&plan.write(&out.join("runs")))).collect();
    let written = write(&runs?, &out.join(name), &Options::default())?;
    println!("{} ({} files)", written.page.display(), written.files.len());
    Ok(())
}
