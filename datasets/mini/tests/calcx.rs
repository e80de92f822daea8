//! mini-calc with the code of the real dataset: its calculator, scorer, chains and loader.

use leyden_calcx::chain::{Turn, demonstration};
use leyden_calcx::scorer::same_result;
use leyden_calcx::{calculate, loader};
use leyden_core::SeedTree;
use leyden_mini::{MiniCalc, Noise};

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
fn the_calculator_accepts_every_demonstration() {
    let world = MiniCalc::new(1);
    let noise = Noise { right: 0.3, lazy: 0.2, swapped: 0.5 };
    for i in 0..2_000 {
        let drawn = noise.draw(&world.train(i), SeedTree::new(2).index(i)).unwrap();
        let output = calculate(&drawn);
        // The divisor may be a difference of two equal products.
        assert!(!output.starts_with("ERROR") || drawn.contains('/'), "{drawn}: {output}");
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
    for (read, original) in loaded.tasks.iter().zip(&expected) {
        assert_eq!(
            (&read.id, &read.question, &read.gold),
            (&original.id, &original.question, &original.gold)
        );
        assert_eq!(read.fields["chain"], original.fields["chain"]);
    }
}
