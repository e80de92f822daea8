//! Measures how time and memory of a step scale with its sizes, and predicts a large model's.
//!
//! Every point runs in two separate processes. Writes `growth.md` and `growth.json`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use leyden_benchmarks::growth::{Axis, Measured, Phase, Point, exponent, measure};
use leyden_benchmarks::predict::{self, H100, Step};
use leyden_lm::device::parse_kind;
use leyden_lm::memory::readable_bytes;
use leyden_lm::model::LlamaConfig;
use serde::Serialize;

/// Measure how time and memory scale with group, prompt, turns and width
#[derive(Parser)]
struct Arguments {
    /// Folder for growth.md and growth.json; without it the table is only printed
    #[arg(long)]
    out: Option<PathBuf>,
    /// Axes to measure; all by default
    #[arg(long, value_enum)]
    axis: Vec<Axis>,
    /// Number type of activations and cache: f32 or bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Timed repetitions per point, after one untimed
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Threads of libtorch
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Measure one phase of one point of a single axis and print it as JSON
    #[arg(long, value_enum, requires_all = ["axis", "size"], hide = true)]
    phase: Option<Phase>,
    #[arg(long, hide = true)]
    size: Option<usize>,
}

/// The model whose step is predicted.
const PREDICTED: &str = "Llama-3.2-3B";

/// Measurements of one point of an axis, both phases.
#[derive(Serialize)]
struct Row {
    size: usize,
    generate: Measured,
    update: Measured,
}

#[derive(Serialize)]
struct Growth {
    axis: Axis,
    rows: Vec<Row>,
    /// For generation's seconds and bytes, then the update's.
    exponents: [Option<f64>; 4],
}

fn main() -> Result<()> {
    leyden_lm::process::reexec_with_env();
    leyden_train::set_revision!();
    let arguments = Arguments::parse();
    ensure!(arguments.repetitions > 0, "--repetitions must be at least 1");
    let kind = parse_kind(&arguments.dtype)?;
    tch::set_num_threads(arguments.threads);
    if let (Some(phase), &[axis], Some(size)) =
        (arguments.phase, &arguments.axis[..], arguments.size)
    {
        let measured = measure(Point::at(axis, size), phase, kind, arguments.repetitions)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    let axes = if arguments.axis.is_empty() { &Axis::ALL[..] } else { &arguments.axis };
    let growths = axes.iter().map(|&axis| grow(axis, &arguments)).collect::<Result<Vec<_>>>()?;
    let mut page = String::from(
        "# Growth\n\nOne size grows, the others stay: 4 tasks of 8 rollouts of 2 calls, prompts of \
         128 tokens, responses of 32 with 16 tokens after them, a random model of 4 layers and \
         width 128 with 4,096 words. Memory is the peak of a process less what it held before \
         there was a model. The last line of a table has the fitted exponents.\n",
    );
    growths.iter().try_for_each(|growth| table(&mut page, growth))?;
    prediction(&mut page)?;
    println!("{page}");
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        let json = serde_json::json!({
            "dtype": arguments.dtype,
            "threads": arguments.threads,
            "repetitions": arguments.repetitions,
            "provenance": leyden_train::provenance::collect(serde_json::Map::new()),
            "growth": growths,
        });
        write("growth.json", format!("{json:#}\n"))?;
        write("growth.md", page)?;
    }
    Ok(())
}

/// Measures all points of an axis, each phase in a separate process.
fn grow(axis: Axis, arguments: &Arguments) -> Result<Growth> {
    let mut rows = Vec::new();
    for &size in axis.sizes() {
        let [generate, update] = [Phase::Generate, Phase::Update].map(|phase| {
            eprintln!("{}: {size}, {phase:?}", axis.title());
            in_child(axis, size, phase, arguments)
        });
        rows.push(Row { size, generate: generate?, update: update? });
    }
    let fitted = |value: fn(&Row) -> f64| {
        let points: Vec<_> = rows.iter().map(|row| (row.size as f64, value(row))).collect();
        exponent(&points)
    };
    let exponents = [
        fitted(|row| row.generate.seconds),
        fitted(|row| row.generate.bytes as f64),
        fitted(|row| row.update.seconds),
        fitted(|row| row.update.bytes as f64),
    ];
    Ok(Growth { axis, rows, exponents })
}

fn in_child(axis: Axis, size: usize, phase: Phase, arguments: &Arguments) -> Result<Measured> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    let program = std::env::current_exe().context("path of this executable")?;
    let done = Command::new(program)
        .args(["--axis", &name(clap::ValueEnum::to_possible_value(&axis))])
        .args(["--phase", &name(clap::ValueEnum::to_possible_value(&phase))])
        .args(["--size", &size.to_string()])
        .args(["--dtype", &arguments.dtype])
        .args(["--repetitions", &arguments.repetitions.to_string()])
        .args(["--threads", &arguments.threads.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("child process for one point")?;
    ensure!(done.status.success(), "{}: {size}, {phase:?}: {}", axis.title(), done.status);
    let text = String::from_utf8(done.stdout)?;
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("not a measurement: {line}"))
}

fn table(page: &mut String, growth: &Growth) -> Result<()> {
    writeln!(
        page,
        "\n| {} | generate, ms | memory | update, ms | memory |\n|---:|---:|---:|---:|---:|",
        growth.axis.title()
    )?;
    for Row { size, generate, update } in &growth.rows {
        writeln!(
            page,
            "| {size} | {:.1} | {} | {:.1} | {} |",
            1e3 * generate.seconds,
            readable_bytes(generate.bytes),
            1e3 * update.seconds,
            readable_bytes(update.bytes)
        )?;
    }
    let [a, b, c, d] = growth.exponents.map(|e| e.map_or("–".to_owned(), |e| format!("{e:.2}")));
    writeln!(page, "| exponent | {a} | {b} | {c} | {d} |")?;
    Ok(())
}

fn prediction(page: &mut String) -> Result<()> {
    let config = LlamaConfig::named(PREDICTED).context("no preset with this name")?;
    // Typical sizes of the text-to-SQL agent: a schema and three calls, including verdicts.
    let step = Step {
        tasks: 32,
        samples: 4,
        turns: 3,
        prompt: 800,
        response: 120,
        between: 200,
        micro_batch: 8192,
        checkpointing: true,
    };
    let parts = predict::seconds(&config, &step, &H100);
    let plan = predict::memory(&config, &step)?;
    writeln!(
        page,
        "\n## Prediction: {PREDICTED} on {}\n\nNot measured: operations and bytes by the \
         roofline, with {:.0} % of the products and {:.0} % of the bandwidth reached. A step of \
         {} tasks × {} rollouts × {} calls, prompts of {} tokens, responses of {}, {} tokens of \
         results after each; bf16 with f32 master weights, layers computed again in the backward \
         pass; time of tools not counted.\n\n| part of a step | seconds |\n|---|---:|",
        H100.name,
        100.0 * H100.flops_share,
        100.0 * H100.bandwidth_share,
        step.tasks,
        step.samples,
        step.turns,
        step.prompt,
        step.response,
        step.between,
    )?;
    let rows = [
        ("prefill, prefixes once", parts.prefill),
        ("decoding", parts.decode),
        ("training, prefixes merged", parts.train),
        ("optimiser", parts.optimiser),
        ("whole step", parts.total()),
        ("training with a row per call, for comparison", parts.train_rows),
    ];
    for (name, seconds) in rows {
        writeln!(page, "| {name} | {seconds:.2} |")?;
    }
    writeln!(page, "\n| memory | | |\n|---|---:|---|")?;
    for line in &plan.lines {
        writeln!(page, "| {} | {} | {} |", line.name, readable_bytes(line.bytes), line.detail)?;
    }
    let fits = if plan.fits(H100.memory) { "fits" } else { "does not fit" };
    writeln!(
        page,
        "| all | {} | {fits} in {} |",
        readable_bytes(plan.total()),
        readable_bytes(H100.memory)
    )?;
    let with = |samples| predict::memory(&config, &Step { tasks: 1, samples, ..step });
    let all = step.tasks * step.samples;
    let fitting = |&n: &usize| with(n).is_ok_and(|plan| plan.fits(H100.memory));
    if let Some(most) = (1..all).rev().find(fitting).filter(|_| !plan.fits(H100.memory)) {
        writeln!(
            page,
            "\nWith at most {most} of the {all} rollouts in the cache at once it fits."
        )?;
    }
    Ok(())
}
