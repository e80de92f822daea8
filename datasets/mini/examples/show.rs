//! Prints tasks of mini-calc: `cargo run -p leyden-mini --example show -- 20`.

use leyden_mini::MiniCalc;

fn main() {
    let n = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(12);
    for task in MiniCalc::new(1).test(n) {
        let expression = task.fields["expression"].as_str().unwrap_or_default();
        println!("{}  {}\n    {expression} = {}", task.id, task.question, task.gold);
    }
}
