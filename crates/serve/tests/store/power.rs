//! Power cuts and full disks: what was acknowledged is in the file, once, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use leyden_core::SeedTree;
use leyden_power_cut::Disk;
use leyden_serve::store::{FILE, Limits, NewEvent, Reading, Store};

use super::fixtures::{create, event};

/// Events of each agent.
const EVENTS: usize = 30;
const AGENTS: usize = 8;
/// Bytes of an event: enough for two checkpoints of the write-ahead log.
const BYTES: usize = 160_000;

/// An event whose text cannot be compressed.
fn long_event(mark: &str, seed: SeedTree) -> NewEvent {
    use rand::RngExt;
    let mut rng = seed.rng();
    let text: String = (0..BYTES).map(|_| rng.random_range('0'..='z')).collect();
    let text = text.replace('\\', "/");
    let data = format!(r#"{{"mark":"{mark}","text":"{text}"}}"#);
    NewEvent { key: Some(mark.as_bytes().to_vec()), ..event("r", "0", &data) }
}

/// The marks of all events in a store's file, checking that none occurs twice.
fn marks(folder: &Path) -> BTreeSet<String> {
    // As a server does after the power is back.
    Store::open(folder, Limits::default()).expect("a whole store").close();
    let reading = Reading::open(&folder.join(FILE)).expect("a file");
    let mut marks = BTreeSet::new();
    if reading.rollout("r").expect("a table").is_none() {
        return marks;
    }
    for event in reading.events("r", true).expect("events") {
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        let mark = data["mark"].as_str().expect("a mark").to_owned();
        assert!(marks.insert(mark.clone()), "{mark} is stored twice");
    }
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_survive_a_power_cut_at_any_write() {
    let (folder, cuts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir());
    let cuts = cuts.expect("a folder");
    let seed = SeedTree::new(0).child("power");
    let disk = Disk::watch(folder.path());
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    create(&store, "r").await;

    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let found = Arc::new(Mutex::new(Vec::new()));
    let (known, places, root) = (acknowledged.clone(), found.clone(), cuts.path().to_owned());
    disk.on_change(move |change, files| {
        // Each of the first changes, and some of the later ones.
        if change < 60 || seed.index(change).uniform() < 0.006 {
            let known: BTreeSet<String> = known.lock().expect("no panic").clone();
            let to = root.join(change.to_string());
            std::fs::create_dir(&to).expect("a folder");
            files.cut(&to, seed.child("cut").index(change));
            places.lock().expect("no panic").push((to, known));
        }
    });
    let agents = (0..AGENTS).map(|agent| {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for number in 0..EVENTS {
                let mark = format!("{agent} {number}");
                let event = long_event(&mark, SeedTree::new(agent as u64).index(number as u64));
                store.append(event).await.expect("an append");
                acknowledged.lock().expect("no panic").insert(mark);
            }
        })
    });
    for agent in futures::future::join_all(agents).await {
        agent.expect("the agent finishes");
    }
    store.close();
    drop(disk);

    let all = acknowledged.lock().expect("no panic").clone();
    assert_eq!(marks(folder.path()), all);
    let places = std::mem::take(&mut *found.lock().expect("no panic"));
    let mut latest = 0;
    for (place, acknowledged) in &places {
        let stored = marks(place);
        let lost: Vec<&String> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", place.display());
        assert!(stored.is_subset(&all), "{}", place.display());
        latest = latest.max(acknowledged.len());
    }
    assert!(places.len() > 45 && latest > all.len() / 2, "{} cuts, {latest}", places.len());
    println!("{} power cuts, at most {latest} events acknowledged before", places.len());
}

#[tokio::test]
async fn a_full_disk_refuses_events_until_there_is_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::watch(folder.path());
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    create(&store, "r").await;
    let mut acknowledged = BTreeSet::new();
    let mut refused = Vec::new();
    for number in 0..12_u64 {
        match number {
            4 => disk.set_space(Some(BYTES as u64 * 2)),
            // The log is as long as it was, so there is space for one more event in any case.
            10 => disk.set_space(None),
            _ => {}
        }
        let mark = number.to_string();
        match store.append(long_event(&mark, SeedTree::new(number))).await {
            Ok(_) => assert!(acknowledged.insert(mark)),
            Err(error) => refused.push((number, error.to_string())),
        }
    }
    assert!(!refused.is_empty() && acknowledged.len() >= 6, "{refused:?}");
    for (number, error) in &refused {
        assert!((4..10).contains(number), "{number}: {error}");
        assert!(error.contains("the disk is full") && error.contains("send it again"), "{error}");
    }
    // A refused event is sent again.
    let (number, _) = refused[0];
    store.append(long_event(&number.to_string(), SeedTree::new(number))).await.expect("space");
    acknowledged.insert(number.to_string());
    store.close();
    assert_eq!(marks(folder.path()), acknowledged);
}
