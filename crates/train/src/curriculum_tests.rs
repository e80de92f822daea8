use super::*;

fn task(id: &str, label: &str, value: &str) -> Task {
    Task {
        id: id.to_owned(),
        question: String::new(),
        gold: String::new(),
        labels: vec![("source".to_owned(), "x".to_owned()), (label.to_owned(), value.to_owned())],
        fields: serde_json::Map::new(),
    }
}

fn tasks(values: &[&str]) -> Vec<Task> {
    let of = |(place, value): (usize, &&str)| task(&format!("t{place}"), "steps", value);
    values.iter().enumerate().map(of).collect()
}

fn config(levels: &[&str]) -> CurriculumConfig {
    CurriculumConfig {
        label: "steps".to_owned(),
        levels: levels.iter().map(|level| (*level).to_owned()).collect(),
        by: OpenBy::Success,
        first: 1,
        steps: None,
        threshold: Some(0.5),
        window: Some(4),
    }
}

fn names(config: &CurriculumConfig, values: &[&str]) -> Result<Vec<String>, String> {
    let source = tasks(values);
    let (curriculum, _) = Curriculum::new(config, &[&source]).map_err(|e| e.to_string())?;
    Ok((0..curriculum.levels.len()).map(|level| curriculum.levels.name(level).to_owned()).collect())
}

#[test]
fn levels_are_listed_or_numbers_ascending() {
    assert_eq!(
        names(&config(&[]), &["10", "9", "2", "9.0", "-1", "1e1"]).unwrap(),
        ["-1", "2", "9", "10"]
    );
    let listed = config(&["2-4", "5-8"]);
    assert_eq!(names(&listed, &["5-8", "2-4", "5-8"]).unwrap(), ["2-4", "5-8"]);
}

#[test]
fn a_number_between_levels_belongs_to_the_higher_one() {
    let (config, source) = (config(&[]), tasks(&["2", "4", "8"]));
    let (curriculum, of_source) = Curriculum::new(&config, &[&source]).unwrap();
    assert_eq!(of_source[0].by_index, Some(vec![0, 1, 2]));
    for (value, level) in [("-5", 0), ("2", 0), ("2.5", 1), ("4", 1), (" 7 ", 2), ("99", 2)] {
        assert_eq!(curriculum.level(&task("t", "steps", value)).unwrap(), level, "{value}");
    }
}

#[test]
fn tasks_without_a_level_are_named_before_training() {
    let many = CurriculumConfig { first: 3, ..config(&[]) };
    let other = CurriculumConfig { label: "hops".to_owned(), ..config(&[]) };
    for (config, values, words) in [
        (other, &["1"][..], &["data.curriculum.label", "t0", "`hops`", "source, steps"][..]),
        (config(&[]), &["1", "2-4"], &["data.curriculum.label", "t1", "`2-4`", "not a number"]),
        (config(&[]), &["1", "nan"], &["t1", "`nan`", "not a number"]),
        (config(&[]), &["1", "inf"], &["t1", "`inf`", "not a number"]),
        (config(&[]), &["1", ""], &["t1", "``", "not a number"]),
        (config(&["1"]), &["1", "2"], &["data.curriculum.levels", "t1", "`2`", "not among 1"]),
        (config(&["1", "3"]), &["1"], &["data.curriculum.levels", "no task", "steps = `3`"]),
        (many, &["1", "2"], &["data.curriculum.first: 3", "steps (2)"]),
    ] {
        let error = names(&config, values).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n'));
    }
    let plain = Task { labels: Vec::new(), ..task("t0", "", "") };
    let config = config(&[]);
    let error = Curriculum::new(&config, &[&vec![plain]]).err().unwrap().to_string();
    assert!(error.contains("its labels: none"), "{error}");
}

/// An endless source whose task `odd` has another value.
struct World {
    odd: u64,
    value: &'static str,
}

impl TaskSource for World {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        let value = if index == self.odd { self.value } else { "1" };
        task(&format!("w{index}"), "steps", value)
    }
}

#[test]
fn the_first_tasks_of_a_world_are_surveyed() {
    let numbers = config(&[]);
    let count = |odd| {
        let world = World { odd, value: "2" };
        let (curriculum, of_source) = Curriculum::new(&numbers, &[&world]).unwrap();
        assert!(of_source[0].by_index.is_none());
        curriculum.levels.len()
    };
    assert_eq!((count(4095), count(4096)), (2, 1));
    // Listed levels are looked for as far; once all are found, some tasks are checked.
    let listed = config(&["1", "2"]);
    let survey = |odd| {
        let world = World { odd, value: "2" };
        Curriculum::new(&listed, &[&world]).err().map(|e| e.to_string())
    };
    assert_eq!(survey(4095), None);
    let error = survey(4096).unwrap();
    assert!(error.contains("steps = `2`") && error.contains("first 4,096"), "{error}");
    let one = config(&["1"]);
    let checked = |odd| Curriculum::new(&one, &[&World { odd, value: "2" }]).is_ok();
    assert!(!checked(255) && checked(256));
    // A level may be in another source.
    let (a, b) = (World { odd: 0, value: "1" }, tasks(&["2", "2"]));
    let (_, of_sources) = Curriculum::new(&listed, &[&a, &b]).unwrap();
    assert_eq!((of_sources[0].lowest, of_sources[1].lowest), (0, 1));
}

#[test]
fn levels_open_evenly_over_the_steps() {
    let over = |others, steps| (1..=12).map(|step| opened(step, others, steps)).collect::<Vec<_>>();
    assert_eq!(over(2, 8), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(over(3, 1), [0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
    assert_eq!(over(0, 4), [0; 12]);
    assert_eq!(opened(u64::MAX, 3, u64::MAX), 2);
    assert_eq!(opened(u64::MAX, 3, 1), 3);
    assert_eq!(opened(0, 3, 1), 0);
}

fn end(curriculum: &mut Curriculum<'_>, rollouts: &[(usize, f64)]) -> (String, Option<f64>) {
    let progress = curriculum.end(rollouts.iter().copied());
    (progress.level, progress.success)
}

#[test]
fn a_level_opens_when_its_last_rollouts_succeed() {
    let (config, source) = (config(&[]), tasks(&["1", "2", "3"]));
    let (mut curriculum, _) = Curriculum::new(&config, &[&source]).unwrap();
    let is_open = |curriculum: &Curriculum<'_>| [0, 1, 2].map(|level| curriculum.is_open(level));
    let level = |name: &str, success| (name.to_owned(), success);
    assert_eq!(end(&mut curriculum, &[]), level("1", None));
    // Three are fewer than the window.
    assert_eq!(end(&mut curriculum, &[(0, 1.0), (0, 1.0), (0, 1.0)]), level("1", Some(1.0)));
    assert_eq!(is_open(&curriculum), [true, false, false]);
    // The last four: 1, 0, 0, 0.
    assert_eq!(end(&mut curriculum, &[(0, 0.0); 3]), level("1", Some(0.25)));
    // 0, 0, 1, 1 is the threshold; the level is open in the next step.
    assert_eq!(end(&mut curriculum, &[(0, 1.0); 2]), level("1", Some(0.5)));
    assert_eq!(is_open(&curriculum), [true, true, false]);
    // Only rollouts of the new level count.
    let both: Vec<(usize, f64)> = (0..4).flat_map(|_| [(0, 1.0), (1, 0.0)]).collect();
    assert_eq!(end(&mut curriculum, &both), level("2", Some(0.0)));
    assert_eq!(end(&mut curriculum, &[(0, 1.0); 9]), level("2", Some(0.0)));
    // At most one level opens after a step.
    assert_eq!(end(&mut curriculum, &[(1, 1.0); 40]), level("2", Some(1.0)));
    assert_eq!(is_open(&curriculum), [true; 3]);
    // The last level is measured, too.
    for _ in 0..3 {
        assert_eq!(end(&mut curriculum, &[(2, 1.0); 8]), level("3", Some(1.0)));
    }
}

#[test]
fn steps_open_levels_whatever_the_rewards() {
    let config = CurriculumConfig {
        by: OpenBy::Step,
        steps: Some(4),
        threshold: None,
        window: None,
        ..config(&["a", "b", "c"])
    };
    let source = tasks(&["c", "a", "b"]);
    let (mut curriculum, _) = Curriculum::new(&config, &[&source]).unwrap();
    let names: Vec<String> = (1..=6)
        .map(|step| {
            curriculum.begin(step);
            end(&mut curriculum, &[(0, 1.0); 99]).0
        })
        .collect();
    assert_eq!(names, ["a", "a", "b", "b", "c", "c"]);
    assert_eq!(curriculum.state(), None);
}
