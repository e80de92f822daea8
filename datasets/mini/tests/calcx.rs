//! mini-calc against the real dataset's own code: its calculator, scorer, chains and loader.

use leyden_calcx::chain::{Turn, demonstration};
use leyden_calcx::scorer::same_result;
use leyden_calcx::{calculate, loader};
use leyden_core::SeedTree;
use leyden_mini::{DistractorKind, DistractorMix, MiniCalc};

#[test]
fn every_chain_is_a_demonstration_with_one_call() {
    let world = MiniCalc::new(1);
    let training = (0..500).map(|i| world.train(i));
    for task in training.chain(world.test(500)) {
        let shown = demonstration(&task).unwrap_or_else(|flaw| panic!("{}: {flaw}", task.id));
        let [
            Turn::Assistant { call: Some(call), .. },
            Turn::Tool { output },
            Turn::Assistant { .. },
        ] = shown.turns.as_slice()
        else {
            panic!("{}: {:?}", task.id, shown.turns)
        };
        assert_eq!(task.fields["expression"], call.as_str());
        assert!(same_result(output, &task.gold));
    }
}

#[test]
fn the_scorer_accepts_the_right_demonstrations_and_no_other() {
    let world = MiniCalc::new(1);
    let mix = DistractorMix { p_right: 0.3, ..DistractorMix::default() };
    for i in 0..2_000 {
        let task = world.train(i);
        let drawn = mix.draw(&task, SeedTree::new(2).index(i)).unwrap();
        let output = calculate(&drawn.expression);
        if drawn.value.is_some() {
            assert!(!output.starts_with("ERROR"), "{}: {output}", drawn.expression);
        }
        let right = drawn.kind == DistractorKind::Right;
        assert_eq!(same_result(&output, &task.gold), right, "{}: {}", task.id, drawn.expression);
    }
}

#[test]
fn the_loader_of_calc_x_reads_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniCalc::new(4);
    world.write_jsonl(folder.path(), 50, 30).unwrap();
    let loaded = loader::from_file(folder.path().join("test.jsonl")).unwrap();
    assert!(loaded.rejected.is_empty());
    let expected = world.test(30);
    assert_eq!(loaded.tasks.len(), expected.len());
    for (read, made) in loaded.tasks.iter().zip(&expected) {
        assert_eq!((&read.id, &read.question, &read.gold), (&made.id, &made.question, &made.gold));
        assert_eq!(read.fields["chain"], made.fields["chain"]);
    }
}
