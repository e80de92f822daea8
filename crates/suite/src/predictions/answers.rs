//! Files of answers: JSON lines of `id` and `answer`, or one answer per line.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use serde_json::{Map, Value};

use super::Gold;
use crate::lines;
use crate::table::counted;

/// The answer to one question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// `None` if the agent gave no answer.
    pub text: Option<String>,
    /// The recorded reward; the inner `None` is a missing reward.
    pub recorded: Option<Option<f64>>,
}

/// An answer with the id of its question.
struct Named {
    line: usize,
    id: String,
    answer: Answer,
}

/// Possible names of the answer's field, for files of other programs.
const FIELDS: [&str; 4] = ["answer", "prediction", "pred", "predicted"];

/// Whether the lines of a file have question ids, judging by the first line.
///
/// # Errors
/// A file that cannot be read.
pub fn are_named(path: &Path) -> Result<bool> {
    let Some(first) = lines::open(path)?.next().transpose()? else { return Ok(false) };
    Ok(first.row.is_ok_and(|row| row.contains_key("id") && row.contains_key("answer")))
}

/// The answers in the order of the questions, matched by id; for a file with several modes, those
/// of `mode`. Questions without an answer are an error, or with `partial` are removed from
/// `gold`: an evaluation may cover only some of a file's questions.
///
/// # Errors
/// A line that is not an answer, an unknown or repeated id, a question without an answer, or no
/// answers at all.
pub fn named(
    path: &Path,
    mode: Option<&str>,
    partial: bool,
    gold: &mut Gold,
) -> Result<Vec<Answer>> {
    let mut by_id: HashMap<&str, (usize, Option<Answer>)> =
        gold.read.tasks.iter().map(|task| (task.id.as_str(), (0, None))).collect();
    for Named { line, id, answer } in of_mode(path, mode)? {
        match by_id.get_mut(id.as_str()) {
            None => bail!(
                "the file {}, line {line}: there is no question {id} in {}",
                path.display(),
                gold.name
            ),
            Some((before, Some(_))) => bail!(
                "the file {}, line {line}: the question {id} was answered before, in line {before}",
                path.display()
            ),
            Some(entry) => *entry = (line, Some(answer)),
        }
    }
    let answer = |task: &Task| by_id.get_mut(task.id.as_str()).and_then(|entry| entry.1.take());
    let found: Vec<Option<Answer>> = gold.read.tasks.iter().map(answer).collect();
    let missing = found.iter().filter(|answer| answer.is_none()).count();
    let first = found.iter().zip(&gold.read.tasks).find(|(answer, _)| answer.is_none());
    if let Some((_, task)) = first
        && (!partial || missing == found.len())
    {
        bail!(
            "the file {} has no answer to the question {} ({missing} of {} are missing); if it \
             covers only a part of {}, use --partial",
            path.display(),
            task.id,
            found.len(),
            gold.name
        );
    }
    let mut answered = found.iter().map(Option::is_some);
    gold.read.tasks.retain(|_| answered.next().unwrap_or(false));
    gold.left_out = missing;
    Ok(found.into_iter().flatten().collect())
}

fn of_mode(path: &Path, mode: Option<&str>) -> Result<Vec<Named>> {
    let mut modes: BTreeSet<String> = BTreeSet::new();
    let mut answers = Vec::new();
    for line in lines::open(path)? {
        let line = line?;
        let at = || format!("the file {}, line {}", path.display(), line.number);
        let row = line.row.with_context(at)?;
        let own = row.get("mode").and_then(Value::as_str);
        modes.extend(own.map(str::to_owned));
        if mode.is_none_or(|mode| own == Some(mode)) {
            let id = match row.get("id") {
                Some(Value::String(id)) => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                _ => bail!("{}: there is no field id", at()),
            };
            let answer = answer(&row).with_context(at)?;
            answers.push(Named { line: line.number, id, answer });
        }
    }
    let known = || modes.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    match mode {
        None if modes.len() > 1 => {
            bail!("the file {} contains answers of {}; choose with --mode", path.display(), known())
        }
        Some(mode) if answers.is_empty() && !modes.is_empty() => {
            bail!("the file {} contains no {mode} answers, only {}", path.display(), known())
        }
        Some(mode) if answers.is_empty() => {
            bail!("--mode {mode}: the file {} has no modes", path.display())
        }
        _ => Ok(answers),
    }
}

fn answer(row: &Map<String, Value>) -> Result<Answer> {
    let text = match FIELDS.iter().find_map(|name| row.get(*name)) {
        Some(Value::String(text)) => Some(text.clone()),
        // A result may be a JSON number.
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Null) => None,
        Some(_) => bail!("the field answer is not a text"),
        None => bail!("there is no field answer"),
    };
    Ok(Answer { text, recorded: row.get("reward").map(Value::as_f64) })
}

/// One answer per line in the order of `gold`, as plain text or as JSON objects; a blank line is
/// a missing answer.
///
/// # Errors
/// A number of answers that differs from the number of questions, a line that is not an answer,
/// a bad row among the questions.
pub fn in_order(path: &Path, gold: &Gold) -> Result<Vec<Answer>> {
    gold.without_flaw()?;
    let bytes = std::fs::read(path)
        .with_context(|| format!("the file {} cannot be read", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
    let questions = gold.read.tasks.len();
    // Ignore blank lines at the end if there are enough lines without them.
    while lines.len() > questions && lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    if lines.len() != questions {
        bail!(
            "the file {} has {} for {} in {}: there must be one per line, and a blank line for a \
             missing answer",
            path.display(),
            counted(lines.len(), "answer"),
            counted(questions, "question"),
            gold.name
        );
    }
    let read =
        |(index, line): (usize, &&str)| plain(line).with_context(|| at(path.to_owned(), index + 1));
    lines.iter().enumerate().map(read).collect()
}

fn at(path: PathBuf, line: usize) -> String {
    format!("the file {}, line {line}", path.display())
}

fn plain(line: &str) -> Result<Answer> {
    match serde_json::from_str(line) {
        Ok(Value::Object(row)) => answer(&row),
        _ if line.trim().is_empty() => Ok(Answer::default()),
        _ => Ok(Answer { text: Some(line.to_owned()), recorded: None }),
    }
}
