use super::*;
use crate::config::OpenBy;
use crate::data::Mixture;

/// A task `NAME/INDEX` with the label `steps`.
fn task(name: &str, index: u64, steps: &str) -> Task {
    Task {
        id: format!("{name}/{index}"),
        question: String::new(),
        gold: String::new(),
        labels: vec![("steps".to_owned(), steps.to_owned())],
        fields: serde_json::Map::new(),
    }
}

/// A file with the tasks of these numbers of steps.
fn file(name: &str, steps: &[&str]) -> Vec<Task> {
    steps.iter().enumerate().map(|(index, steps)| task(name, index as u64, steps)).collect()
}

/// An endless source: the value of the label by index.
struct World(&'static str, Box<dyn Fn(u64) -> String + Send + Sync>);

impl TaskSource for World {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        task(self.0, index, &(self.1)(index))
    }
}

fn cycle(index: u64) -> String {
    (index % 4 + 1).to_string()
}

/// A file of 4 levels, a file of the upper two and a world.
fn mixture() -> Mixture {
    Mixture(vec![
        Box::new(file("a", &["1", "2", "3", "4", "1"])),
        Box::new(file("b", &["3", "4", "3"])),
        Box::new(World("w", Box::new(cycle))),
    ])
}

fn names() -> Vec<String> {
    ["a", "b", "w"].map(str::to_owned).to_vec()
}

fn by_step(first: usize, steps: u64) -> CurriculumConfig {
    CurriculumConfig {
        label: "steps".to_owned(),
        levels: Vec::new(),
        by: OpenBy::Step,
        first,
        steps: Some(steps),
        threshold: None,
        window: None,
    }
}

fn by_success(threshold: f64, window: usize) -> CurriculumConfig {
    CurriculumConfig {
        by: OpenBy::Success,
        steps: None,
        threshold: Some(threshold),
        window: Some(window),
        ..by_step(1, 1)
    }
}

fn order<'a>(
    source: &'a dyn TaskSource,
    weights: &'a [f64],
    curriculum: Option<&'a CurriculumConfig>,
    seed: u64,
) -> Result<TaskOrder<'a>, TrainError> {
    let options = OrderOptions { names: &[], weights, curriculum };
    TaskOrder::new(source, options, SeedTree::new(seed))
}

/// The ids of `count` tasks of each of the steps, with rewards from a fixed draw.
fn play(order: &mut TaskOrder<'_>, steps: std::ops::Range<u64>, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for step in steps {
        order.begin(step);
        let mut rewards = Vec::new();
        for place in 0..count {
            let drawn = order.next_task().unwrap();
            let draw = SeedTree::new(step).index(place as u64).uniform();
            rewards.push((drawn.level, f64::from(u8::from(draw < 0.8))));
            ids.push(drawn.task.id);
        }
        order.end(rewards.into_iter());
    }
    ids
}

#[test]
fn without_weights_and_curriculum_the_order_is_that_of_the_visits() {
    let tasks = file("a", &["1"; 7]);
    let mut visits = Visits::new(Some(7), SeedTree::new(5));
    let expected: Vec<String> = (0..20).map(|_| format!("a/{}", visits.next_item())).collect();
    let mut plain = order(&tasks, &[], None, 5).unwrap();
    assert_eq!(play(&mut plain, 1..11, 2), expected);
    assert_eq!((plain.position(), plain.state()), (20, None));
    // One weight is no weight.
    assert_eq!(play(&mut order(&tasks, &[3.0], None, 5).unwrap(), 1..11, 2), expected);
    // Nor does a curriculum whose levels are all open change anything.
    let one_level = by_step(1, 1);
    let mut open = order(&tasks, &[], Some(&one_level), 5).unwrap();
    assert_eq!(play(&mut open, 1..11, 2), expected);
}

#[test]
fn sources_are_drawn_by_their_weights_and_visited_in_their_own_order() {
    let mixture = mixture();
    let count = 20_000;
    for weights in [[3.0, 1.0, 4.0], [3e-300, 1e-300, 4e-300], [3e307, 1e307, 4e307]] {
        let mut order = order(&mixture, &weights, None, 1).unwrap();
        let ids = play(&mut order, 1..2, count);
        for (name, share) in [("a/", 3.0 / 8.0), ("b/", 1.0 / 8.0), ("w/", 0.5)] {
            let found = ids.iter().filter(|id| id.starts_with(name)).count();
            // Four standard errors.
            let error = 4.0 * (share * (1.0 - share) / count as f64).sqrt();
            let frequency = found as f64 / count as f64;
            assert!((frequency - share).abs() < error, "{name} {frequency} {weights:?}");
        }
        let worlds: Vec<&String> = ids.iter().filter(|id| id.starts_with("w/")).collect();
        let number = |id: &str| id[2..].parse::<u64>().unwrap();
        assert!(worlds.windows(2).all(|pair| number(pair[1]) == number(pair[0]) + 1));
        let files: Vec<&String> = ids.iter().filter(|id| id.starts_with("a/")).collect();
        for epoch in files.chunks_exact(5) {
            let mut epoch = epoch.to_vec();
            epoch.sort();
            assert_eq!(epoch, ["a/0", "a/1", "a/2", "a/3", "a/4"]);
        }
        // Draws are independent: of three after a draw of the world half are of the world again.
        let after = ids.windows(2).filter(|pair| pair[0].starts_with("w/"));
        let (mut again, mut all) = (0, 0);
        for pair in after {
            again += usize::from(pair[1].starts_with("w/"));
            all += 1;
        }
        assert!((f64::from(again as u32) / f64::from(all) - 0.5).abs() < 0.03);
    }
}

#[test]
fn the_seed_determines_the_order() {
    let mixture = mixture();
    let ids = |seed| play(&mut order(&mixture, &[1.0, 1.0, 1.0], None, seed).unwrap(), 1..9, 8);
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
}

#[test]
fn a_run_resumes_at_any_step() {
    let mixture = mixture();
    let (step, success) = (by_step(2, 12), by_success(0.75, 6));
    for case in 0..40 {
        let seed = SeedTree::new(case);
        let weights = [0, 1, 2].map(|part| 0.1 + seed.child("weight").index(part).uniform());
        let weights = if case % 4 == 0 { &[][..] } else { &weights };
        let curriculum = [None, Some(&step), Some(&success)][case as usize % 3];
        let steps = 30;
        let new = || order(&mixture, weights, curriculum, case).unwrap();
        let whole = play(&mut new(), 1..steps, 3);
        let at = 1 + (seed.child("stop").uniform() * (steps - 1) as f64) as u64;
        let mut first = new();
        let mut ids = play(&mut first, 1..at, 3);
        let text = serde_json::to_string(&first.state()).unwrap();
        let state: Option<OrderState> = serde_json::from_str(&text).unwrap();
        let mut second = new();
        second.restore(first.position(), state.as_ref()).unwrap();
        ids.extend(play(&mut second, at..steps, 3));
        assert_eq!(ids, whole, "case {case}, resumed at {at}");
        assert_eq!(second.state().is_some(), !weights.is_empty() || curriculum.is_some());
    }
}

#[test]
fn tasks_above_the_open_level_are_not_drawn() {
    let mixture = mixture();
    let curriculum = by_step(1, 6);
    let mut order = order(&mixture, &[1.0, 1.0, 1.0], Some(&curriculum), 3).unwrap();
    for step in 1..20_u64 {
        order.begin(step);
        // Three further levels, each after two steps.
        let open = ((step - 1) / 2).min(3) as usize;
        let mut reached = 0;
        for _ in 0..200 {
            let drawn = order.next_task().unwrap();
            assert!(drawn.level <= open, "step {step}: {}", drawn.task.id);
            assert_eq!(drawn.task.label("steps"), Some(&*(drawn.level + 1).to_string()));
            reached = reached.max(drawn.level);
            // The lowest level of b is the third.
            assert!(open >= 2 || !drawn.task.id.starts_with("b/"));
        }
        assert_eq!(reached, open);
        assert_eq!(order.end(std::iter::empty()).unwrap().level, (open + 1).to_string());
    }
}

#[test]
fn an_epoch_is_the_order_without_the_tasks_above_the_level() {
    let tasks = file("a", &["1", "2", "1", "3", "2", "1"]);
    let mut visits = Visits::new(Some(6), SeedTree::new(2));
    let whole: Vec<u64> = (0..60).map(|_| visits.next_item()).collect();
    let expected: Vec<String> = whole
        .iter()
        .filter(|index| tasks[**index as usize].label("steps") != Some("3"))
        .map(|index| format!("a/{index}"))
        .collect();
    let curriculum = by_step(2, 1000);
    let mut order = order(&tasks, &[], Some(&curriculum), 2).unwrap();
    assert_eq!(play(&mut order, 1..2, 50), expected);
}

#[test]
fn a_world_without_open_tasks_ends_with_an_error() {
    // Only the first tasks are open, those of the run and those that levels are found by.
    let first = Visits::of_tasks(None, SeedTree::new(1)).next_item();
    let is_open = move |index: u64| index < 500 || (first..first + 500).contains(&index);
    let level = move |index| if is_open(index) { "1".to_owned() } else { "2".to_owned() };
    let world = World("w", Box::new(level));
    let curriculum = by_success(0.5, 4);
    let mut order = order(&world, &[], Some(&curriculum), 1).unwrap();
    for _ in 0..500 {
        order.next_task().unwrap();
    }
    let error = order.next_task().err().unwrap().to_string();
    for words in ["100000 tasks in a row", "steps = `1`", "data.curriculum.first"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_late_task_that_has_no_level_is_named() {
    let listed = CurriculumConfig { levels: vec!["1".to_owned(), "2".to_owned()], ..by_step(2, 1) };
    for (curriculum, value) in [(listed, "3"), (by_step(2, 1), "many")] {
        let flawed = Visits::of_tasks(None, SeedTree::new(1)).next_item() + 5000;
        let level = move |index: u64| match index {
            _ if index == flawed => value.to_owned(),
            _ => (index % 2 + 1).to_string(),
        };
        let world = World("w", Box::new(level));
        let mut order = order(&world, &[], Some(&curriculum), 1).unwrap();
        let late = (0..=5000).map(|_| order.next_task()).find_map(Result::err).unwrap();
        let late = late.to_string();
        assert!(
            late.contains(&format!("the task w/{flawed} has steps")) && late.contains(value),
            "{late}"
        );
    }
}

#[test]
fn orders_of_other_configurations_are_refused() {
    let mixture = mixture();
    let (step, success) = (by_step(1, 4), by_success(0.5, 4));
    let weights = [1.0, 1.0, 1.0];
    let new = |weights, curriculum| order(&mixture, weights, curriculum, 1).unwrap();
    let state = |text: &str| serde_json::from_str::<OrderState>(text);
    let refused = |mut order: TaskOrder<'_>, text: &str| {
        order.restore(3, Some(&state(text).unwrap())).unwrap_err()
    };
    assert!(new(&weights, None).restore(3, None).unwrap_err().contains("another configuration"));
    for text in [r#"{"visited": [1, 2]}"#, r#"{"visited": []}"#, r#"{"visited": [1, 2, 3, 4]}"#] {
        assert!(refused(new(&weights, None), text).contains("another configuration"));
        assert!(refused(new(&[], None), text).contains("another configuration"));
    }
    for open in [0_u64, 5, 1 << 40] {
        let text =
            format!(r#"{{"visited": [0, 0, 0], "curriculum": {{"open": {open}, "rewards": []}}}}"#);
        assert!(refused(new(&weights, Some(&success)), &text).contains("another configuration"));
        assert!(refused(new(&weights, Some(&step)), &text).contains("another configuration"));
    }
    assert!(
        refused(new(&weights, Some(&success)), r#"{"visited": [1, 2, 3]}"#).contains("curriculum")
    );
    assert!(state(r#"{"visited": [-1]}"#).is_err() && state(r#"{"visits": []}"#).is_err());
}

#[test]
fn mixtures_that_cannot_be_drawn_are_refused() {
    let mixture = mixture();
    let names = names();
    let refused = |source: &dyn TaskSource, weights: &[f64]| {
        let options = OrderOptions { names: &names, weights, curriculum: None };
        TaskOrder::new(source, options, SeedTree::new(1)).err().unwrap().to_string()
    };
    let error = refused(&mixture, &[1.0, 2.0]);
    assert!(error.contains("weights (2)") && error.contains("sources (3)"), "{error}");
    let error = refused(&file("a", &["1"]), &[1.0, 2.0]);
    assert!(error.contains("weights (2)") && error.contains("sources (1)"), "{error}");
    let empty = Mixture(vec![Box::new(file("a", &["1"])), Box::new(Vec::<Task>::new())]);
    let error = refused(&empty, &[1.0, 2.0]);
    assert_eq!(error, "data.train: b has no tasks");
}

#[test]
fn a_draw_falls_on_weights_above_zero() {
    for draw in [0.0, 0.3, 0.5, 0.9999, 1.0 - f64::EPSILON / 2.0] {
        assert_eq!(choose(&[0.0, 1.0, 0.0], draw), 1);
        let chosen = choose(&[1.0, 0.0, 1.0], draw);
        assert_eq!(chosen, if draw < 0.5 { 0 } else { 2 });
    }
    assert_eq!(choose(&[1e-320, 1e308], 0.0), 1, "a share that is 0 in floating point");
}
