//! Writing a recorded folder.
//!
//! The report is generated from the new archive itself, so that the recorded files are
//! reproducible from it. Files of an earlier report or recording in the same folder are removed
//! if the archive contains or reproduces them; all other files are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use leyden_sweep::SweepFolder;

use super::archive::{Entries, ORDER, RUN_FILES, SWEEP_FILES, Unpacked, pack};
use super::unpack;
use super::{ARCHIVE, SAMPLES, Source, differences, inside, is_kept_whole, is_recorded, sources};
use crate::error::ReportError;
use crate::experiment::{RunGroup, flatten, group};
use crate::run::Run;
use crate::sweep::{SweepRuns, load_sweep, load_sweep_at, write_sweep};
use crate::write::{Folder, Options, Written, write};

/// Records runs in `out`; `folders` as for [`load_all`](super::load_all).
///
/// # Errors
/// Failure to read the runs or to write a report; [`ReportError::SameName`] for two runs whose
/// folders have the same name.
pub fn record_runs(folders: &[PathBuf], out: &Path) -> Result<Written, ReportError> {
    let sources = sources(folders)?;
    let mut entries = Entries::new();
    let mut order: Vec<String> = Vec::new();
    for source in &sources {
        let name = source.name();
        if order.contains(&name) {
            return Err(ReportError::SameName(name));
        }
        let run = source.load()?;
        add(&mut entries, &name, &source.actual, Some(&run))?;
        order.push(name);
    }
    entries.insert(ORDER.to_owned(), json(&order)?);
    let recording = Recording::new(&entries, out)?;
    let runs = inside(out, Rc::clone(&recording.unpacked))?
        .iter()
        .map(Source::load)
        .collect::<Result<Vec<Run>, _>>()?;
    let written = write(&runs, recording.report.path(), &Options::default())?;
    let mut kept = recording.keep(&written, &["table.md"], &["reward"])?;
    let experiments = group(&runs);
    for experiment in &experiments {
        let name = match experiments.as_slice() {
            [_] => "config.toml".to_owned(),
            _ => format!("{}.toml", folder_of(experiment.runs[0])),
        };
        kept.put(&name, configuration(experiment).as_bytes())?;
    }
    let named: Vec<_> = runs.iter().map(|run| (folder_of(run), &run.provenance)).collect();
    recording.put_provenance(&mut kept, differences::files(&named))?;
    let given: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    recording.finish(kept, written, &given, "table.md", |removed| {
        for source in sources.iter().filter(|source| source.unpacked.is_none()) {
            removed.run_folder(&source.actual, out);
        }
    })
}

/// Records a sweep in `out`; `root` is the sweep's folder or a recording of it.
///
/// # Errors
/// Failure to read the sweep or to write its report.
pub fn record_sweep(root: &Path, out: &Path) -> Result<Written, ReportError> {
    let sweep = load_sweep(root)?;
    let earlier = is_recorded(root).then(|| unpack(&root.join(ARCHIVE))).transpose()?;
    let actual = earlier.as_ref().map_or(root, Unpacked::root);
    let mut entries = Entries::new();
    for file in SWEEP_FILES {
        let bytes = read(&actual.join(file))?;
        entries.extend(bytes.map(|bytes| (file.to_owned(), bytes)));
    }
    for cell in sweep.all_cells() {
        let id = &cell.cell.id;
        // A page of a sweep shows no rollouts.
        add(&mut entries, &format!("cells/{id}"), &actual.join("cells").join(id), None)?;
        let failed = format!("status/{id}.failed");
        entries.extend(read(&actual.join(&failed))?.map(|bytes| (failed, bytes)));
    }
    for variant in &sweep.tuning {
        let file = SweepFolder::at("").choice_file(&variant.name);
        let bytes = read(&actual.join(&file))?;
        entries.extend(bytes.map(|bytes| (file.to_string_lossy().replace('\\', "/"), bytes)));
    }
    let recording = Recording::new(&entries, out)?;
    let sweep = load_sweep_at(out, Some(&recording.unpacked))?;
    let written = write_sweep(&sweep, recording.report.path(), &Options::default())?;
    let tables = ["sweep.md", "variants.csv", "cells.csv", "tuning.csv"];
    let mut kept = recording.keep(&written, &tables, &["final_reward", "reward"])?;
    for file in ["sweep.toml", "base.toml"] {
        if let Some(bytes) = entries.get(file) {
            kept.put(file, bytes)?;
        }
    }
    recording.put_provenance(&mut kept, differences::files(&provenances(&sweep)))?;
    let given = [root.display().to_string()];
    recording.finish(kept, written, &given, "sweep.md", |removed| {
        // The folder of an active sweep has a status.
        if earlier.is_none() && !root.join("status").exists() {
            for cell in sweep.all_cells() {
                removed.run_folder(&root.join("cells").join(&cell.cell.id), out);
            }
            removed.file(&root.join(leyden_sweep::CELLS), out);
            removed.file(&root.join(leyden_sweep::TUNING), out);
        }
    })
}

fn provenances(sweep: &SweepRuns) -> Vec<(String, &serde_json::Map<String, serde_json::Value>)> {
    sweep
        .all_cells()
        .filter_map(|c| Some((c.cell.id.clone(), &c.run.as_ref()?.provenance)))
        .collect()
}

/// Adds the files of a run's folder that are kept and, if `run` is given, its sample rollouts.
fn add(
    entries: &mut Entries,
    name: &str,
    folder: &Path,
    run: Option<&Run>,
) -> Result<(), ReportError> {
    for file in RUN_FILES {
        let bytes = read(&folder.join(file))?;
        entries.extend(bytes.map(|bytes| (format!("{name}/{file}"), bytes)));
    }
    if let Some(samples) = run.and_then(|run| run.samples.as_ref()) {
        entries.insert(format!("{name}/{SAMPLES}"), json(samples)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Read { path: path.to_owned(), source }),
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, ReportError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| ReportError::Write {
        path: PathBuf::from(ARCHIVE),
        source: std::io::Error::other(error),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn folder_of(run: &Run) -> String {
    run.folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The configuration of an experiment: that of its first run, with a comment naming the keys in
/// which the others differ.
fn configuration(experiment: &RunGroup<'_>) -> String {
    let [first, others @ ..] = experiment.runs.as_slice() else { return String::new() };
    if others.is_empty() {
        return first.config_text.clone();
    }
    let keys = flatten(&first.config);
    let differing: BTreeSet<String> = others
        .iter()
        .map(|run| flatten(&run.config))
        .flat_map(|other| other.into_iter().filter(|(key, value)| keys.get(key) != Some(value)))
        .map(|(key, _)| key)
        .collect();
    let names: Vec<String> = others.iter().map(|run| folder_of(run)).collect();
    let differing: Vec<String> = differing.into_iter().collect();
    let what = if differing.is_empty() { "nothing".to_owned() } else { differing.join(", ") };
    let differ = if names.len() == 1 { "differs" } else { "differ" };
    format!(
        "# {}; {} {differ} in {what}\n{}",
        folder_of(first),
        names.join(", "),
        first.config_text
    )
}

/// A recording in progress: the archive, its unpacked files, and the report of them.
struct Recording {
    out: PathBuf,
    archive: Vec<u8>,
    unpacked: Rc<Unpacked>,
    report: tempfile::TempDir,
}

impl Recording {
    fn new(entries: &Entries, out: &Path) -> Result<Self, ReportError> {
        let write = |source| ReportError::Write { path: out.join(ARCHIVE), source };
        let archive = pack(entries).map_err(write)?;
        let report = tempfile::tempdir().map_err(write)?;
        let path = report.path().join(ARCHIVE);
        fs::write(&path, &archive).map_err(write)?;
        let unpacked = Rc::new(unpack(&path)?);
        fs::remove_file(&path).map_err(write)?;
        Ok(Self { out: out.to_owned(), archive, unpacked, report })
    }

    /// Copies tables, and the images that a README shows or, if there is none yet, the `usual`
    /// ones.
    fn keep(
        &self,
        written: &Written,
        tables: &[&str],
        usual: &[&str],
    ) -> Result<Folder, ReportError> {
        let mut kept = Folder::create(&self.out)?;
        let names: BTreeSet<String> = written.files.iter().filter_map(|p| file_name(p)).collect();
        let mut images: BTreeSet<String> =
            shown(&self.out).into_iter().filter(|name| names.contains(name)).collect();
        if images.is_empty() && !self.out.join("README.md").exists() {
            images = usual.iter().map(|name| format!("{name}.png")).collect();
        }
        let tables = tables.iter().map(|name| (*name).to_owned());
        for name in tables.chain(images).filter(|name| names.contains(name)) {
            if let Some(bytes) = read(&self.report.path().join(&name))? {
                kept.put(&name, &bytes)?;
            }
        }
        Ok(kept)
    }

    /// Writes the provenance and removes that of other revisions.
    fn put_provenance(
        &self,
        kept: &mut Folder,
        files: BTreeMap<String, String>,
    ) -> Result<(), ReportError> {
        for entry in fs::read_dir(&self.out).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("provenance") && name.ends_with(".json") {
                let _ = fs::remove_file(entry.path());
            }
        }
        files.iter().try_for_each(|(name, text)| kept.put(name, text.as_bytes()).map(drop))
    }

    /// Writes archive and README, and removes files that are no longer needed.
    fn finish(
        self,
        mut kept: Folder,
        written: Written,
        given: &[String],
        table: &str,
        remove: impl FnOnce(&mut Removal),
    ) -> Result<Written, ReportError> {
        kept.put(ARCHIVE, &self.archive)?;
        let readme = self.out.join("README.md");
        if !readme.exists() {
            let text = first_readme(&self.out, given, table, &kept.files);
            kept.put("README.md", text.as_bytes())?;
        }
        let mut notes = written.notes;
        let missing = shown(&self.out).into_iter().filter(|name| !self.out.join(name).is_file());
        notes.extend(missing.map(|name| {
            format!("{} shows {name}, which this report does not write.", readme.display())
        }));
        let mut removal = Removal { kept: kept.files.clone() };
        for name in written.files.iter().filter_map(|path| file_name(path)) {
            removal.file(&self.out.join(name), &self.out);
        }
        remove(&mut removal);
        Ok(Written { page: readme, files: kept.files, table: written.table, notes })
    }
}

/// Removes files that the archive contains or reproduces, only within the recorded folder.
struct Removal {
    kept: Vec<PathBuf>,
}

impl Removal {
    fn file(&mut self, path: &Path, out: &Path) {
        if !self.kept.iter().any(|kept| kept == path) && is_inside(path, out) {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes a run's folder if all of it is in the archive; that of an active run never is.
    fn run_folder(&mut self, run: &Path, out: &Path) {
        if !is_inside(run, out) || !is_kept_whole(run) {
            return;
        }
        for file in RUN_FILES {
            let _ = fs::remove_file(run.join(file));
        }
        let _ = fs::remove_dir(run);
        // In a sweep also the folder of the cells, if it is empty.
        if run.parent().is_some_and(|parent| parent.ends_with("cells")) {
            let _ = fs::remove_dir(run.parent().unwrap_or(run));
        }
    }
}

fn is_inside(path: &Path, out: &Path) -> bool {
    match (path.canonicalize(), out.canonicalize()) {
        (Ok(path), Ok(out)) => path != out && path.starts_with(out),
        _ => false,
    }
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// The PNG files of a folder that its README or that of the parent folder shows.
fn shown(out: &Path) -> Vec<String> {
    let own = fs::read_to_string(out.join("README.md")).unwrap_or_default();
    let mut found = images(&own, "");
    if let Some(name) = file_name(out)
        && let Ok(parent) = fs::read_to_string(out.join("..").join("README.md"))
    {
        found.extend(images(&parent, &format!("{name}/")));
    }
    found.sort();
    found.dedup();
    found
}

/// Link targets in a text that consist of `prefix` and the name of a PNG file.
fn images(text: &str, prefix: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next()?.strip_prefix(prefix))
        .filter(|name| name.ends_with(".png") && !name.contains(['/', '\\', ':']))
        .map(str::to_owned)
        .collect()
}

/// The generated draft of a README: the command that wrote the folder, and its contents.
fn first_readme(out: &Path, given: &[String], table: &str, files: &[PathBuf]) -> String {
    let title = file_name(out).unwrap_or_else(|| "Recorded".to_owned());
    let out = out.display();
    let given = given.join(" ");
    let images: String = files
        .iter()
        .filter_map(|path| file_name(path))
        .filter(|name| name.ends_with(".png"))
        .map(|name| format!("![{}]({name})\n\n", name.trim_end_matches(".png").replace('_', " ")))
        .collect();
    format!(
        "# {title}\n\nWritten by\n\n```sh\nleyden report {given} --out {out} --record\n```\n\n\
         {images}[{table}]({table}) has every figure with its interval; `leyden report {out}` \
         writes the page with every chart from `{ARCHIVE}`.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_the_links_of_a_readme() {
        let text = "![a](reward.png) [b](calc/reward.png) ![c](https://x.org/y.png) `loss.png` \
                    [d](table.md) ![e](../x.png)";
        assert_eq!(images(text, ""), ["reward.png"]);
        assert_eq!(images(text, "calc/"), ["reward.png"]);
    }
}
