use half::bf16;

use super::{Heads, Outcome, Plan, Shape, backward, cached, forward};
use crate::Element;

/// Pseudo-random numbers in (−1, 1).
fn noise(count: usize, seed: usize) -> Vec<f64> {
    let mix = |i: usize| {
        let x = (i * 2_654_435_761 + seed * 40_503 + 12_345) as u64;
        let x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d_85eb_ca6b);
        (x ^ (x >> 31)) % 20_001
    };
    (0..count).map(|i| mix(i) as f64 / 10_000.0 - 1.0).collect()
}

/// Two trees that branch at many depths, and a chain.
fn ancestry() -> (Vec<Option<usize>>, Vec<std::ops::Range<usize>>) {
    let (mut parents, mut trees): (Vec<Option<usize>>, Vec<_>) = (Vec::new(), Vec::new());
    for (length, branches) in [(150, vec![149, 149, 80, 3]), (70, vec![]), (5, vec![4, 2, 2])] {
        let start = parents.len();
        let mut grow = |from: Option<usize>, count: usize| {
            for i in 0..count {
                let parent = if i == 0 { from } else { Some(parents.len() - 1) };
                parents.push(parent);
            }
        };
        grow(None, length);
        for (i, branch) in branches.into_iter().enumerate() {
            grow(Some(start + branch), 20 + 37 * i);
        }
        trees.push(start..parents.len());
    }
    (parents, trees)
}

/// Outputs, and gradients of Σ output · cotangent, by definition in f64.
struct Naive {
    mixed: Vec<f64>,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

fn naive(
    parents: &[Option<usize>],
    Shape { heads, kv_heads, head_dim: hd }: Shape,
    [q, k, v, cotangent]: [&[f64]; 4],
) -> Naive {
    let n = parents.len();
    let scale = 1.0 / (hd as f64).sqrt();
    let zeros = |heads: usize| vec![0.0; n * heads * hd];
    let mut out =
        Naive { mixed: zeros(heads), q: zeros(heads), k: zeros(kv_heads), v: zeros(kv_heads) };
    for token in 0..n {
        let seen: Vec<usize> = std::iter::successors(Some(token), |&t| parents[t]).collect();
        for head in 0..heads {
            let at = (token * heads + head) * hd;
            let of = |t: usize| (t * kv_heads + head / (heads / kv_heads)) * hd;
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            let (query, slope) = (&q[at..at + hd], &cotangent[at..at + hd]);
            let e: Vec<f64> =
                seen.iter().map(|&t| (scale * dot(query, &k[of(t)..of(t) + hd])).exp()).collect();
            let sum: f64 = e.iter().sum();
            let of_p: Vec<f64> = seen.iter().map(|&t| dot(slope, &v[of(t)..of(t) + hd])).collect();
            let mean: f64 = e.iter().zip(&of_p).map(|(e, d)| e / sum * d).sum();
            for ((&t, e), of_p) in seen.iter().zip(&e).zip(&of_p) {
                let p = e / sum;
                let of_s = p * (of_p - mean) * scale;
                for d in 0..hd {
                    out.mixed[at + d] += p * v[of(t) + d];
                    out.q[at + d] += of_s * k[of(t) + d];
                    out.k[of(t) + d] += of_s * q[at + d];
                    out.v[of(t) + d] += p * slope[d];
                }
            }
        }
    }
    out
}

fn check<T: Element>(shape: Shape, tolerance: f64) {
    let (parents, trees) = ancestry();
    let n = parents.len();
    let Shape { heads, kv_heads, head_dim } = shape;
    let random = |heads: usize, seed: usize| -> Vec<T> {
        noise(n * heads * head_dim, seed).into_iter().map(|x| T::narrow(2.0 * x as f32)).collect()
    };
    let (q, k, v) = (random(heads, 1), random(kv_heads, 2), random(kv_heads, 3));
    let cotangent = random(heads, 4);
    let exact = |x: &[T]| x.iter().map(|x| f64::from(x.widen())).collect::<Vec<f64>>();
    let inputs = [&q, &k, &v, &cotangent].map(|x| exact(x));
    let expected = naive(&parents, shape, [&inputs[0], &inputs[1], &inputs[2], &inputs[3]]);
    let plan = Plan::new(&parents, &trees);
    let run = |threads: usize| {
        let packed = |x, heads| Heads::packed(x, heads, head_dim);
        let (q, k, v) = (packed(&q[..], heads), packed(&k[..], kv_heads), packed(&v[..], kv_heads));
        let zeros = |heads: usize| vec![T::default(); n * heads * head_dim];
        let mut mixed = zeros(heads);
        let log_sums = forward(threads, &plan, shape, q, k, v, &mut mixed);
        let outcome = Outcome { mixed: &mixed, log_sums: &log_sums, gradient: &cotangent };
        let mut of = [zeros(heads), zeros(kv_heads), zeros(kv_heads)];
        let outs = of.each_mut().map(|of| of.as_mut_slice());
        backward(threads, &plan, shape, q, k, v, outcome, outs);
        let [of_q, of_k, of_v] = of;
        [mixed, of_q, of_k, of_v].map(|x| exact(&x))
    };
    let ours = run(1);
    assert_eq!(ours, run(3), "threads change the result");
    let expected = [expected.mixed, expected.q, expected.k, expected.v];
    for ((ours, expected), name) in ours.iter().zip(&expected).zip(["mixed", "dq", "dk", "dv"]) {
        let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance * largest, "{name}[{i}]: {a} and {b}");
        }
    }
}

#[test]
fn tree_attention_and_gradients_match_the_definition() {
    check::<f32>(Shape { heads: 4, kv_heads: 4, head_dim: 32 }, 1e-6);
    check::<f32>(Shape { heads: 6, kv_heads: 2, head_dim: 16 }, 1e-6);
    // Only inputs and outputs are rounded.
    check::<bf16>(Shape { heads: 3, kv_heads: 1, head_dim: 64 }, 6e-3);
}

#[test]
fn strided_vectors_are_supported() {
    // Queries and keys interleaved in one buffer, as a projection writes them.
    let shape = Shape { heads: 2, kv_heads: 1, head_dim: 16 };
    let (parents, trees) = ancestry();
    let n = parents.len();
    let both: Vec<f32> = noise(n * 48, 5).into_iter().map(|x| x as f32).collect();
    let v: Vec<f32> = noise(n * 16, 6).into_iter().map(|x| x as f32).collect();
    let apart = |from: usize| Heads { data: &both[from..], token: 48, head: 16 };
    let columns = |from: usize, width: usize| -> Vec<f32> {
        both.chunks(48).flat_map(|row| row[from..from + width].to_vec()).collect()
    };
    let (q, k) = (columns(0, 32), columns(32, 16));
    let plan = Plan::new(&parents, &trees);
    let v = Heads::packed(&v[..], 1, 16);
    let (mut ours, mut expected) = (vec![0.0; n * 32], vec![0.0; n * 32]);
    forward(1, &plan, shape, apart(0), apart(32), v, &mut ours);
    let (q, k) = (Heads::packed(&q[..], 2, 16), Heads::packed(&k[..], 1, 16));
    forward(1, &plan, shape, q, k, v, &mut expected);
    assert_eq!(ours, expected);
}

/// Compares queries over a cache whose slots were written token by token with the definition.
fn check_cached<T: Element>(shape: Shape, tolerance: f64) {
    let Shape { heads, kv_heads, head_dim: hd } = shape;
    // (trunk columns, own columns) of each token; two see different lengths of one slot.
    let sights = [((1, 40), (0, 3)), ((1, 40), (0, 17)), ((0, 7), (2, 1)), ((1, 37), (1, 30))];
    let (slots, capacity) = (3, 64);
    let cache = |seed: usize| -> Vec<T> {
        noise(slots * capacity * 2 * kv_heads * hd, seed)
            .iter()
            .map(|&x| T::narrow(x as f32))
            .collect()
    };
    let fill = |vectors: &[T], memory: &mut Vec<T>| {
        memory.resize(slots * capacity * 2 * kv_heads * hd, T::default());
        // SAFETY: the memory has that size and no other code uses it.
        let mut layer = unsafe { cached::Layer::new(memory.as_mut_ptr(), slots, capacity) };
        let width = kv_heads * hd;
        for token in 0..slots * capacity {
            let both = &vectors[token * 2 * width..(token + 1) * 2 * width];
            let (k, v) = both.split_at(width);
            let place = (0, token / capacity, token % capacity);
            layer.write(
                shape,
                &[place],
                Heads::packed(k, kv_heads, hd),
                Heads::packed(v, kv_heads, hd),
            );
        }
        layer
    };
    let (own, trunk) = (cache(11), cache(12));
    let (mut own_memory, mut trunk_memory) = (Vec::new(), Vec::new());
    let layers = (fill(&own, &mut own_memory), fill(&trunk, &mut trunk_memory));
    let n = sights.len();
    let q: Vec<T> = noise(n * heads * hd, 13).iter().map(|&x| T::narrow(3.0 * x as f32)).collect();
    let mut visible: Vec<cached::VisibleColumns> = sights
        .iter()
        .enumerate()
        .map(|(token, &(trunk, own))| cached::VisibleColumns { trunk, own, token })
        .collect();
    visible.sort_unstable();
    let run = |threads: usize| {
        let mut mixed = vec![T::default(); n * heads * hd];
        cached::attend(threads, shape, layers, &visible, Heads::packed(&q, heads, hd), &mut mixed);
        mixed.iter().map(|x| f64::from(x.widen())).collect::<Vec<f64>>()
    };
    let ours = run(1);
    assert_eq!(ours, run(3));
    for (token, &((trunk_slot, trunk_columns), (slot, columns))) in sights.iter().enumerate() {
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let vectors = |half: usize| -> Vec<&[T]> {
                let of = |cache: &'_ [T], slot: usize, column: usize| -> usize {
                    assert!(cache.len() > slot);
                    (((slot * capacity + column) * 2 + half) * kv_heads + kv_head) * hd
                };
                let trunk = (0..trunk_columns).map(|c| &trunk[of(&trunk, trunk_slot, c)..][..hd]);
                trunk.chain((0..columns).map(|c| &own[of(&own, slot, c)..][..hd])).collect()
            };
            let at = (token * heads + head) * hd;
            let dot = |k: &[T]| {
                let pairs = q[at..at + hd].iter().zip(k);
                pairs.map(|(a, b)| f64::from(a.widen()) * f64::from(b.widen())).sum::<f64>()
            };
            let e: Vec<f64> =
                vectors(0).into_iter().map(|k| (dot(k) / (hd as f64).sqrt()).exp()).collect();
            let sum: f64 = e.iter().sum();
            for d in 0..hd {
                let values = vectors(1);
                let expected: f64 =
                    e.iter().zip(&values).map(|(e, v)| e / sum * f64::from(v[d].widen())).sum();
                assert!((ours[at + d] - expected).abs() < tolerance, "token {token}, head {head}");
            }
        }
    }
}

#[test]
fn cached_attention_matches_the_definition() {
    check_cached::<f32>(Shape { heads: 4, kv_heads: 4, head_dim: 32 }, 1e-6);
    check_cached::<f32>(Shape { heads: 6, kv_heads: 2, head_dim: 16 }, 1e-6);
    check_cached::<bf16>(Shape { heads: 3, kv_heads: 1, head_dim: 64 }, 4e-3);
}
