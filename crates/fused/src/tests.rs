//! Elementwise kernels against their f64 definitions, and gradients against finite differences.

use half::bf16;

use crate::{AdamW, Element, Turn, rms_norm, rms_norm_backward, rotary, swiglu, swiglu_backward};

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f64 / 700.0 - 1.43).collect()
}

fn narrow<T: Element>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::narrow(x as f32)).collect()
}

fn exact<T: Element>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.widen())).collect()
}

fn close(ours: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(0.1), "[{i}]: {a} and {b}");
    }
}

/// Derivatives of Σ f(x) · cotangent by central differences.
fn differences(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], cotangent: &[f64]) -> Vec<f64> {
    let loss = |x: &[f64]| f(x).iter().zip(cotangent).map(|(a, b)| a * b).sum::<f64>();
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let (mut up, mut down) = (x.to_vec(), x.to_vec());
            up[i] += step;
            down[i] -= step;
            (loss(&up) - loss(&down)) / (2.0 * step)
        })
        .collect()
}

fn norm_by_definition(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let rows = x.chunks(weight.len()).flat_map(|row| {
        let rms = (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + 1e-5).sqrt();
        row.iter().zip(weight).map(move |(x, w)| x / rms * w).collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn rms_norm_and_its_gradients_match_the_definition() {
    // More rows than one task processes.
    let (rows, width) = (131, 32);
    let (x, w) = (numbers(rows * width, 1), numbers(width, 2));
    let of_y = numbers(rows * width, 3);
    let (x32, w32, of_y32) = (narrow::<f32>(&x), narrow::<f32>(&w), narrow::<f32>(&of_y));
    let run = |threads| {
        let (mut y, mut of_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        rms_norm(threads, &x32, &w32, 1e-5, &mut y);
        let of_w = rms_norm_backward(threads, &x32, &w32, 1e-5, &of_y32, &mut of_x);
        (y, of_x, of_w)
    };
    let ours = run(1);
    assert_eq!(ours, run(3));
    close(&exact(&ours.0), &norm_by_definition(&x, &w), 1e-6);
    close(&exact(&ours.1), &differences(|x| norm_by_definition(x, &w), &x, &of_y), 2e-5);
    close(&exact(&ours.2), &differences(|w| norm_by_definition(&x, w), &w, &of_y), 2e-5);

    let (x, w) = (narrow::<bf16>(&x), narrow::<bf16>(&w));
    let mut y = vec![bf16::ZERO; x.len()];
    rms_norm(2, &x, &w, 1e-5, &mut y);
    close(&exact(&y), &norm_by_definition(&exact(&x), &exact(&w)), 4e-3);
}

fn swiglu_by_definition(inner: usize, gate_up: &[f64]) -> Vec<f64> {
    let rows = gate_up
        .chunks(2 * inner)
        .flat_map(|row| (0..inner).map(move |i| row[i] / (1.0 + (-row[i]).exp()) * row[inner + i]));
    rows.collect()
}

#[test]
fn swiglu_and_its_gradient_match_the_definition() {
    let (rows, inner) = (67, 16);
    let gate_up: Vec<f64> = numbers(rows * 2 * inner, 4).iter().map(|x| 4.0 * x).collect();
    let of_y = numbers(rows * inner, 5);
    let (narrow_in, narrow_grad) = (narrow::<f32>(&gate_up), narrow::<f32>(&of_y));
    let run = |threads| {
        let (mut y, mut back) = (vec![0.0; rows * inner], vec![0.0; rows * 2 * inner]);
        swiglu(threads, inner, &narrow_in, &mut y);
        swiglu_backward(threads, inner, &narrow_in, &narrow_grad, &mut back);
        (y, back)
    };
    let ours = run(1);
    assert_eq!(ours, run(2));
    close(&exact(&ours.0), &swiglu_by_definition(inner, &gate_up), 1e-5);
    let expected = differences(|x| swiglu_by_definition(inner, x), &gate_up, &of_y);
    close(&exact(&ours.1), &expected, 1e-4);
}

#[test]
fn rotary_and_its_inverse_match_the_definition() {
    for head_dim in [16, 32, 48] {
        check_rotary(head_dim);
    }
}

fn check_rotary(hd: usize) {
    let (tokens, heads, stride) = (70, 3, 3 * hd + 16);
    let x = narrow::<f32>(&numbers(tokens * stride, 6));
    let angles = numbers(tokens * hd / 2, 7);
    let cos: Vec<f32> = angles.iter().map(|a| a.cos() as f32).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin() as f32).collect();
    let mut y = vec![0.0; tokens * heads * hd];
    rotary(2, (heads, hd), &x, stride, (&cos, &sin), Turn::Forth, &mut y);
    for (i, &y) in y.iter().enumerate() {
        let (token, head, d) = (i / (heads * hd), i / hd % heads, i % hd);
        let at = |d: usize| f64::from(x[token * stride + head * hd + d]);
        let angle = angles[token * hd / 2 + d % (hd / 2)];
        let turned = if d < hd / 2 { -at(d + hd / 2) } else { at(d - hd / 2) };
        let expected = at(d) * angle.cos() + turned * angle.sin();
        assert!((f64::from(y) - expected).abs() < 1e-6);
    }
    let mut back = vec![0.0; y.len()];
    rotary(1, (heads, hd), &y, heads * hd, (&cos, &sin), Turn::Back, &mut back);
    for (token, back) in back.chunks(heads * hd).enumerate() {
        close(&exact(back), &exact(&x[token * stride..][..heads * hd]), 1e-5);
    }
}

#[test]
fn adamw_matches_the_definition_for_every_length() {
    for n in [1, 16, 70_003] {
        let (start, gradients) = (numbers(n, 8), [numbers(n, 9), numbers(n, 10)]);
        let run = |threads| {
            let mut p = narrow::<f32>(&start);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            for (i, g) in gradients.iter().enumerate() {
                let rule = AdamW {
                    lr: 1e-2,
                    beta1: 0.9,
                    beta2: 0.999,
                    eps: 1e-8,
                    weight_decay: 0.1,
                    step: i as i32 + 1,
                };
                rule.step(threads, &mut p, &narrow::<f32>(g), &mut m, &mut v);
            }
            (p, m, v)
        };
        let ours = run(1);
        assert_eq!(ours, run(2));
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
        for (t, g) in (1..).zip(&gradients) {
            for i in 0..n {
                m[i] = 0.9 * m[i] + 0.1 * g[i];
                v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9_f64.powi(t)), v[i] / (1.0 - 0.999_f64.powi(t)));
                p[i] = p[i] * (1.0 - 1e-2 * 0.1) - 1e-2 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        close(&exact(&ours.0), &p, 1e-5);
        close(&exact(&ours.1), &m, 1e-5);
        close(&exact(&ours.2), &v, 1e-5);
    }
}
