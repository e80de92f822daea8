//! The page in headless Chromium. Skipped with a message if it is not installed.

use std::net::SocketAddr;
use std::sync::Arc;

use leyden_serve::live::{Guard, Handle, MOST_POINTS, serve};
use serde_json::json;

use crate::browser::Browser;
use crate::fixtures::{HOSTILE, TestRollouts, eval, feed, flight, step};

fn start(address: SocketAddr, feed: &leyden_serve::live::Feed) -> Handle {
    serve(address, Guard::loopback(), feed.clone(), Arc::new(TestRollouts)).unwrap()
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[test]
fn a_running_run_is_drawn_listed_and_escaped() {
    let Some(mut browser) = Browser::start("a_running_run_is_drawn_listed_and_escaped") else {
        return;
    };
    let feed = feed();
    let handle = start(any_port(), &feed);
    browser.size(1200, 900, false);
    browser.go(&handle.url());
    // Before any event.
    browser.until("document.querySelector('#status').textContent === 'Starting'");
    browser.until("!document.querySelector('#reward .empty').hidden");

    for number in 1..=3 {
        feed.record(&step(number, 0.2 * number as f64));
    }
    feed.record(&eval(3, "greedy", 0.7));
    feed.flight(&flight(4));
    browser.until("document.querySelectorAll('#flight tbody tr').length === 4");
    browser.until("document.querySelectorAll('#list tbody tr').length === 3");
    browser.until(
        "document.querySelector('#reward .plot .train path.line').getAttribute('d').match(/L/g).length === 2",
    );
    browser.until("document.querySelectorAll('#reward .plot .greedy rect.mark').length > 0");
    browser.until("document.querySelector('#tokens .plot path.line')");
    let states =
        "[...document.querySelectorAll('#flight td.state')].map((cell) => cell.textContent)";
    let expected = ["Agent", "Waiting", "Generating", "Ended"];
    assert_eq!(browser.value(states), json!(expected));
    browser.until("document.querySelector('#tiles').innerText.includes('0.600')");

    // By keyboard: open a rollout, and read the curve.
    browser.value("document.querySelector('#list button').focus()");
    browser.press("Enter");
    browser.until("document.activeElement.id === 'detail-title'");
    let responses = "[...document.querySelectorAll('pre.written')].map((text) => text.textContent)";
    let expected: Vec<String> = (0..2).map(|n| format!("response {n} {HOSTILE}")).collect();
    assert_eq!(browser.value(responses), json!(expected));
    browser.until(
        "document.querySelector('.numbers').textContent === 'Credit +0.500Advantage −0.250'",
    );
    browser.value("document.querySelector('#reward .plot').focus()");
    browser.press("ArrowLeft");
    browser.press("ArrowLeft");
    browser.until(
        "document.querySelector('#reward output').textContent.startsWith('Step 2: training 0.4')",
    );

    // No model output or other text became an element.
    let foreign =
        "document.querySelectorAll('img, body script, pre *').length + Number('hacked' in window)";
    assert_eq!(browser.value(foreign), json!(0));
    assert_eq!(
        browser.value("document.querySelector('#name').textContent"),
        format!("run {HOSTILE}")
    );
    let markup = browser.value("document.documentElement.outerHTML");
    assert!(markup.as_str().unwrap().contains("&lt;script&gt;window.hacked"));

    // Mobile size and dark scheme: no horizontal scrolling, another background.
    let background = "getComputedStyle(document.body).backgroundColor";
    let light = browser.value(background);
    browser.scheme("dark");
    assert_ne!(browser.value(background), light);
    browser.size(360, 740, true);
    browser.until("document.documentElement.scrollWidth === 360");
    assert_eq!(browser.errors, Vec::<String>::new());
}

#[test]
fn a_long_run_reconnects_and_ends() {
    let Some(mut browser) = Browser::start("a_long_run_reconnects_and_ends") else {
        return;
    };
    let feed = feed();
    let reward = |number: u64| if number == 2500 { 9.0 } else { 0.5 };
    for number in 1..=4990 {
        feed.record(&step(number, reward(number)));
    }
    let handle = start(any_port(), &feed);
    browser.go(&handle.url());
    browser.until("document.querySelector('#progress').value === 4990");
    for number in 4991..=4998 {
        feed.record(&step(number, 0.5));
    }
    browser.until("document.querySelector('#progress').value === 4998");
    let points = browser.value("run.train.points.length").as_u64().unwrap();
    assert!(points > MOST_POINTS as u64 / 2 && points <= MOST_POINTS as u64, "{points}");
    // The one high step is still the upper edge of its point.
    assert_eq!(browser.value("Math.max(...run.train.points.map((p) => p.high))"), json!(9));
    // … and within the plot.
    browser.until("document.querySelector('#reward .plot .band').getBBox().y > 10");

    // A new feed at the same address: the page reconnects and gets a snapshot.
    let address = handle.address();
    drop(handle);
    browser.until("document.querySelector('#notice').textContent.startsWith('Connection lost')");
    let feed = self::feed();
    feed.record(&step(1, 0.25));
    let handle = start(address, &feed);
    browser.until("document.querySelector('#notice').hidden && run.train.points.length === 1");

    feed.failed("step 2: the loss is not a number");
    browser.until("document.querySelector('#status').textContent === 'Failed'");
    browser.until(
        "document.querySelector('#notice').textContent.endsWith('the loss is not a number')",
    );
    drop(handle);
    // After the run has ended, the page does not report a lost connection.
    browser.until("source.readyState === EventSource.CLOSED");
    browser.until("document.querySelector('#notice').textContent.startsWith('The run failed')");
}
