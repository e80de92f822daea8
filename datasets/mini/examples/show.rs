//! Prints tasks of the worlds: `cargo run -p leyden-mini --example show -- 20`.

use leyden_core::SeedTree;
use leyden_mini::{MiniCalc, MiniLedger, MiniMusique, MiniSpider, spider};

fn main() {
    let n = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(12);
    for task in MiniCalc::new(1).test(n) {
        let expression = task.fields["expression"].as_str().unwrap_or_default();
        println!("{}  {}\n    {expression} = {}", task.id, task.question, task.gold);
    }
    for task in MiniLedger::new(1).test(n) {
        println!(
            "{}  {}\n    {} = {}",
            task.id, task.question, task.fields["expressions"], task.gold
        );
    }
    let world = MiniMusique::new(1);
    for task in world.test(n) {
        println!("{}  {}\n    {}", task.id, task.question, task.fields["path"]);
    }
    for passage in world.passages().iter().take(n) {
        println!("{}  {}: {}", passage.id, passage.title, passage.text);
    }
    let world = MiniSpider::new(1);
    for task in world.test(n) {
        println!("{}  {}\n    {}", task.id, task.fields["schema"], task.question);
        println!("    {}", task.gold);
    }
    for i in 0..n as u64 {
        let shown = world.demonstration(i, &spider::Noise::default(), SeedTree::new(i));
        println!("{}\n    {:?}", shown.task.question, shown.turns);
    }
}
