//! Runs a sweep as a Slurm job array.
//!
//! Each task of the array is a worker for one cell, given by its line in `cells.jsonl` or
//! `tuning.jsonl`. Locks, skipping and failures work as for any worker, so the same script can be
//! submitted again, and other workers may share the folder. The tuning cells of a sweep are an
//! array of their own, after which that of the other cells is submitted.

use std::path::PathBuf;

use crate::folder::TUNING;

/// Contents of the job script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub name: String,
    /// The file that has the cells: [`CELLS`](crate::CELLS) or [`TUNING`].
    pub file: &'static str,
    /// Lines of that file, counted from 1, ascending.
    pub lines: Vec<usize>,
    /// Maximum number of parallel tasks; unlimited if absent.
    pub at_once: Option<usize>,
    pub cpus: usize,
    /// Working directory of the command.
    pub directory: PathBuf,
    /// Output file of the tasks.
    pub output: PathBuf,
    /// The command and its arguments, to which the line is appended.
    pub command: Vec<String>,
}

impl Job {
    /// The text of the job script.
    pub fn script(&self) -> String {
        let at_once = self.at_once.map_or_else(String::new, |most| format!("%{most}"));
        let command: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        let option = |path: &PathBuf| format!("\"{}\"", path.display());
        let line = if self.file == TUNING { "--tuning-cell" } else { "--cell" };
        format!(
            "#!/bin/bash\n\
             #SBATCH --job-name={}\n\
             #SBATCH --array={}{at_once}\n\
             #SBATCH --ntasks=1\n\
             #SBATCH --cpus-per-task={}\n\
             #SBATCH --chdir={}\n\
             #SBATCH --output={}\n\
             #SBATCH --open-mode=append\n\
             # One task per cell, by its line in {}. Submit this file again to resume:\n\
             # finished cells exit immediately, failed ones report why (add --retry to rerun).\n\
             exec {} {line} \"$SLURM_ARRAY_TASK_ID\"\n",
            self.name,
            ranges(&self.lines),
            self.cpus,
            option(&self.directory),
            option(&self.output),
            self.file,
            command.join(" "),
        )
    }
}

/// Ascending numbers as `1-4,7`.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Quotes a word for the shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_formatted_as_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3,7,9-10");
        assert_eq!(ranges(&[4]), "4");
    }

    #[test]
    fn words_survive_the_shell() {
        let hostile = "it's $HOME `x` \"y\"\n;";
        let script = format!("printf %s {}", quoted(hostile));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), hostile);
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn the_script_gives_each_task_its_cell() {
        let job = Job {
            name: "credit".to_owned(),
            file: crate::CELLS,
            lines: vec![1, 2, 5],
            at_once: Some(2),
            cpus: 1,
            directory: "/there".into(),
            output: "/there/status/slurm-%a.txt".into(),
            command: vec!["leyden".to_owned(), "sweep".to_owned(), "a b.toml".to_owned()],
        };
        let script = job.script();
        assert!(script.starts_with("#!/bin/bash\n#SBATCH"));
        assert!(script.contains("\n#SBATCH --array=1-2,5%2\n"), "{script}");
        let last = script.lines().last().unwrap();
        assert_eq!(last, "exec leyden sweep 'a b.toml' --cell \"$SLURM_ARRAY_TASK_ID\"");
        let script = Job { file: TUNING, ..job }.script();
        assert!(script.contains("in tuning.jsonl.") && script.contains("' --tuning-cell \"$SLURM"));
    }
}
