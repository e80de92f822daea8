//! Constrained responses, and the most likely tokens that are returned.

use leyden_core::{FinishReason, Sampling};
use leyden_lm::LmError;
use leyden_lm::generate::{Completion, Constraint, Request};

use crate::helpers::{LIMITS, alone, assert_same, engine, request, sampling, tokens};

/// Allows one set of tokens after the other, then nothing.
struct Script {
    sets: Vec<Vec<u32>>,
    place: usize,
    mask: Vec<u32>,
    fails_at: usize,
}

impl Script {
    fn new(sets: Vec<Vec<u32>>) -> Self {
        Self { sets, place: 0, mask: Vec::new(), fails_at: usize::MAX }
    }
}

impl Constraint for Script {
    fn allowed(&mut self) -> Result<&[u32], String> {
        if self.place == self.fails_at {
            return Err("the script has failed".to_owned());
        }
        self.mask = vec![0; 2];
        for &id in &self.sets[self.place] {
            self.mask[id as usize / 32] |= 1 << (id % 32);
        }
        Ok(&self.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        assert!(self.sets[self.place].contains(&id), "{id} was not allowed");
        self.place += 1;
        Ok(())
    }

    fn ended(&self) -> bool {
        self.place == self.sets.len()
    }
}

fn constrained(key: u64, script: Script, settings: Sampling) -> Request {
    Request { constraint: Some(Box::new(script)), ..request(key, tokens(key, 20), settings) }
}

/// By `generate` and by steps.
fn both(requests: impl Fn() -> Vec<Request>) -> Vec<Result<Completion, LmError>> {
    let generated = engine(LIMITS).generate(requests()).unwrap();
    let mut engine = engine(LIMITS);
    let tickets: Vec<_> = requests().into_iter().map(|r| engine.submit(r)).collect();
    while !engine.is_idle() {
        engine.step().unwrap();
    }
    let mut finished = engine.take_finished();
    finished.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(finished.iter().map(|(t, _)| *t).collect::<Vec<_>>(), tickets);
    for ((_, a), b) in finished.iter().zip(&generated) {
        match (a, b) {
            (Ok(a), Ok(b)) => assert_same(std::slice::from_ref(a), std::slice::from_ref(b)),
            (a, b) => assert_eq!(a.is_ok(), b.is_ok()),
        }
    }
    generated
}

#[test]
fn constraints_hold_end_the_response_and_shape_the_distribution() {
    let sets = vec![vec![1, 2, 3], vec![40], vec![5, 60, 33], vec![7, 8]];
    for temperature in [0.0, 0.7] {
        let settings = Sampling { temperature, ..sampling(1.0, 30) };
        let requests = || {
            let script = Script::new(sets.clone());
            vec![
                Request { top_logprobs: 61, ..constrained(1, script, settings.clone()) },
                request(2, tokens(2, 30), settings.clone()),
            ]
        };
        let done = both(requests);
        let done: Vec<Completion> = done.into_iter().map(Result::unwrap).collect();
        assert_eq!((done[0].ids.len(), done[0].finish), (4, FinishReason::Stop));
        assert_eq!(done[0].logprobs[1], 0.0, "a single possible token is certain");
        for (t, set) in sets.iter().enumerate() {
            assert!(set.contains(&done[0].ids[t]));
            let mut returned: Vec<u32> = done[0].top[t].iter().map(|top| top.0).collect();
            returned.sort_unstable();
            let mut set = set.clone();
            set.sort_unstable();
            assert_eq!(returned, set);
            let mass: f32 = done[0].top[t].iter().map(|top| top.1.exp()).sum();
            assert!((mass - 1.0).abs() < 1e-5);
        }
        // Other requests are not affected.
        assert_same(&done[1..], &alone(&[request(2, tokens(2, 30), settings.clone())]));
    }
}

#[test]
fn a_failing_constraint_fails_only_its_request() {
    let requests = || {
        let torn = Script { fails_at: 2, ..Script::new(vec![vec![1], vec![2], vec![3]]) };
        let impossible = Script::new(vec![vec![4], vec![]]);
        vec![
            constrained(1, torn, sampling(1.0, 30)),
            request(2, tokens(2, 30), sampling(1.0, 30)),
            constrained(3, impossible, sampling(1.0, 30)),
        ]
    };
    let done = both(requests);
    let message = |i: usize| done[i].as_ref().unwrap_err().to_string();
    assert!(message(0).contains("the script has failed"), "{}", message(0));
    assert!(message(2).contains("allows no token"), "{}", message(2));
    let good = done[1].as_ref().unwrap().clone();
    assert_same(&[good], &alone(&[request(2, tokens(2, 30), sampling(1.0, 30))]));
}

#[test]
fn stop_ids_end_a_response_before_its_constraint() {
    let requests = || {
        let script = Script::new(vec![vec![1], vec![2], vec![3]]);
        vec![Request { stop_ids: [2].into(), ..constrained(1, script, sampling(1.0, 30)) }]
    };
    let done = both(requests).remove(0).unwrap();
    assert_eq!((done.ids.as_slice(), done.finish), (&[1, 2][..], FinishReason::Stop));
}

#[test]
fn likely_tokens_follow_the_sampled_distribution() {
    for (temperature, top_k, top_p, count) in
        [(1.0, 0, 1.0, 61), (0.0, 0, 1.0, 5), (0.8, 7, 0.95, 20)]
    {
        let settings = Sampling { temperature, top_k, top_p, max_tokens: 25 };
        let requests = || {
            let plain = request(1, tokens(1, 20), settings.clone());
            vec![
                Request { top_logprobs: count, ..plain },
                request(2, tokens(2, 9), settings.clone()),
            ]
        };
        let done = both(requests);
        let (returned, without_top) = (done[0].as_ref().unwrap(), done[1].as_ref().unwrap());
        assert!(without_top.top.is_empty());
        assert_eq!(returned.top.len(), returned.ids.len());
        for (top, (id, logprob)) in
            returned.top.iter().zip(returned.ids.iter().zip(&returned.logprobs))
        {
            assert!(!top.is_empty() && top.len() <= count);
            assert!(top.is_sorted_by(|a, b| a.1 >= b.1), "{top:?}");
            if let Some(own) = top.iter().find(|top| top.0 == *id) {
                assert!((own.1 - logprob).abs() < 1e-6);
            } else {
                assert!(count < 61 && *logprob <= top.last().unwrap().1);
            }
            let mass: f32 = top.iter().map(|top| top.1.exp()).sum();
            assert!(mass < 1.0 + 1e-5);
            if count == 61 || top_k > 0 {
                assert!((mass - 1.0).abs() < 1e-4, "{mass}");
            }
        }
    }
}
