//! Sampling of tokens.
//!
//! Logits → constraint → temperature → top-k → top-p (over what top-k left), as in transformers;
//! then the inverse of the cumulative distribution at one uniform number. A row's token depends
//! only on its own logits and number. On the CPU the probabilities are traversed in Rust, up to
//! the sampled token; elsewhere tensor operations do the same.

use leyden_core::Sampling;
use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::generate::request::TokenLogprob;
use crate::kernels::numbers;

/// Sampling parameters of one row.
#[derive(Clone, Copy)]
pub(super) struct Draw<'a> {
    pub sampling: &'a Sampling,
    /// In [0, 1); unused when greedy.
    pub uniform: f64,
    /// Bit mask of the allowed tokens, 32 per word, at least one within the vocabulary; all are
    /// allowed if absent.
    pub allowed: Option<&'a [u32]>,
    /// Number of most likely tokens to return.
    pub top: usize,
}

impl Draw<'_> {
    fn greedy(&self) -> bool {
        self.sampling.temperature == 0.0
    }

    /// (k, p) if top-k or top-p removes anything from a vocabulary of `size`.
    fn filter(&self, size: usize) -> Option<(usize, f64)> {
        let &Sampling { top_k, top_p, .. } = self.sampling;
        let top_k = if top_k == 0 { size } else { top_k.min(size) };
        (!self.greedy() && (top_k < size || top_p < 1.0)).then_some((top_k, top_p))
    }
}

/// Rejects invalid sampling settings.
pub(super) fn check(sampling: &Sampling) -> Result<(), LmError> {
    let Sampling { temperature, top_p, .. } = *sampling;
    if !(temperature.is_finite() && temperature >= 0.0) {
        let what = format!("temperature {temperature} is not a number of at least 0");
        return Err(LmError::Invalid(what));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(LmError::Invalid(format!("top_p {top_p} is not above 0 and at most 1")));
    }
    Ok(())
}

/// A token and its log-probability under the distribution it was drawn from: after temperature,
/// top-k and top-p, renormalised. For greedy rows it is the log-probability at temperature 1
/// without any filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drawn {
    pub id: u32,
    pub logprob: f32,
    /// The most likely tokens of that distribution, in descending order, none of probability 0.
    pub top: Vec<TokenLogprob>,
}

/// Samples one token for each row of `logits` [rows, vocabulary] that has a draw.
pub(super) fn sample(
    logits: &Tensor,
    draws: &[Option<Draw>],
) -> Result<Vec<Option<Drawn>>, LmError> {
    let temperature = |draw: &Option<Draw>| match draw {
        Some(draw) if !draw.greedy() => draw.sampling.temperature as f32,
        _ => 1.0,
    };
    let logits = constrained(logits.f_to_kind(Kind::Float)?, draws)?;
    let temperatures: Vec<f32> = draws.iter().map(temperature).collect();
    let scaled = if temperatures.iter().all(|&t| t == 1.0) {
        logits.shallow_clone()
    } else {
        let column = Tensor::f_from_slice(&temperatures)?.f_to_device(logits.device())?;
        logits.f_div(&column.f_unsqueeze(1)?)?
    };
    let probabilities = scaled.f_softmax(-1, Kind::Float)?;
    // Of equal logits, argmax takes the first.
    let greedy = if draws.iter().flatten().any(Draw::greedy) {
        Some(Vec::<i64>::try_from(logits.f_argmax(-1, false)?)?)
    } else {
        None
    };
    let greedy = greedy.as_deref();
    let drawn = match logits.device() {
        Device::Cpu => walk(&probabilities, greedy, draws)?,
        _ => by_tensors(&probabilities, greedy, draws)?,
    };
    for (draw, drawn) in draws.iter().zip(&drawn) {
        if draw.is_some() && !drawn.as_ref().is_some_and(|drawn| drawn.logprob.is_finite()) {
            return Err(LmError::NotFinite);
        }
    }
    Ok(drawn)
}

/// Sets logits to -inf for tokens that a draw does not allow.
fn constrained(logits: Tensor, draws: &[Option<Draw>]) -> Result<Tensor, LmError> {
    let allowed = |draw: &Option<Draw>| draw.as_ref().and_then(|draw| draw.allowed).is_some();
    if !draws.iter().any(allowed) {
        return Ok(logits);
    }
    let size = logits.size()[1] as usize;
    let logits = logits.f_mul_scalar(1.0)?;
    for (row, draw) in draws.iter().enumerate() {
        let Some(allowed) = draw.as_ref().and_then(|draw| draw.allowed) else { continue };
        let bit = |id: usize| allowed.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        let refused: Vec<bool> = (0..size).map(|id| !bit(id)).collect();
        let refused = Tensor::f_from_slice(&refused)?.f_to_device(logits.device())?;
        let _ = logits.f_select(0, row as i64)?.f_masked_fill_(&refused, f64::NEG_INFINITY)?;
    }
    Ok(logits)
}

/// Log-probabilities from probabilities that sum to `mass`.
fn logs(ids: impl Iterator<Item = (usize, f64)>, mass: f64) -> Vec<TokenLogprob> {
    ids.filter(|&(_, p)| p > 0.0).map(|(id, p)| (id as u32, (p / mass).ln() as f32)).collect()
}

/// Sampling on the CPU, row by row.
fn walk(
    probabilities: &Tensor,
    greedy: Option<&[i64]>,
    draws: &[Option<Draw>],
) -> Result<Vec<Option<Drawn>>, LmError> {
    let size = probabilities.size()[1] as usize;
    let probabilities = probabilities.f_contiguous()?;
    let values = numbers::<f32>(&probabilities);
    let pick = |(i, (row, draw)): (usize, (&[f32], &Option<Draw>))| {
        let draw = draw.as_ref()?;
        let unfiltered = |id: usize| {
            let best = descending(row, draw.top, |kept| kept.len() >= draw.top);
            (id, f64::from(row[id]), logs(best.into_iter().map(|(i, p)| (i, f64::from(p))), 1.0))
        };
        let (id, probability, top) = match (greedy, draw.filter(size)) {
            (Some(best), _) if draw.greedy() => unfiltered(best[i] as usize),
            (_, None) => unfiltered(find(row, draw.uniform)?),
            (_, Some((top_k, top_p))) => {
                let (ids, kept) = likeliest(row, top_k, top_p);
                let mass: f64 = kept.iter().copied().map(f64::from).sum();
                let place = find(&kept, draw.uniform * mass)?;
                let best = ids.iter().copied().zip(kept.iter().copied().map(f64::from));
                let top = logs(best.take(draw.top), mass);
                (ids[place], f64::from(kept[place]) / mass, top)
            }
        };
        Some(Drawn { id: id as u32, logprob: probability.ln() as f32, top })
    };
    Ok(values.chunks_exact(size).zip(draws).enumerate().map(pick).collect())
}

/// The first index at which the running sum exceeds `target`; the last index of non-zero
/// probability if rounding keeps the sum below it.
fn find(probabilities: &[f32], target: f64) -> Option<usize> {
    // Whole blocks are summed in independent lanes first: a running sum over a large vocabulary is
    // a long chain of dependent additions.
    const BLOCK: usize = 512;
    const LANES: usize = 8;
    let mut before = 0.0;
    let mut last = None;
    for (b, block) in probabilities.chunks(BLOCK).enumerate() {
        let mut lanes = [0f64; LANES];
        for chunk in block.chunks(LANES) {
            for (lane, &p) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(p);
            }
        }
        let sum: f64 = lanes.iter().sum();
        if before + sum > target {
            let mut running = before;
            for (i, &p) in block.iter().enumerate() {
                running += f64::from(p);
                if p > 0.0 {
                    last = Some(b * BLOCK + i);
                }
                if running > target {
                    return Some(b * BLOCK + i);
                }
            }
        } else if sum > 0.0 {
            last = block.iter().rposition(|&p| p > 0.0).map(|i| b * BLOCK + i).or(last);
        }
        before += sum;
    }
    last
}

/// The `count` most likely tokens with their probabilities, descending, ties by id; `enough`
/// decides whether a set of all tokens above some probability contains them.
fn descending(
    row: &[f32],
    count: usize,
    enough: impl Fn(&[(usize, f32)]) -> bool,
) -> Vec<(usize, f32)> {
    if count == 0 {
        return Vec::new();
    }
    // Sorting a whole vocabulary is slow, and the set is nearly always small: the threshold
    // is lowered until the set certainly contains the result.
    let mut kept: Vec<(usize, f32)> = Vec::new();
    for threshold in [1e-3, 1e-5, 1e-7, 0.0] {
        kept = row.iter().copied().enumerate().filter(|&(_, p)| p >= threshold).collect();
        if enough(&kept) {
            break;
        }
    }
    kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    kept.truncate(count);
    kept
}

/// The `top_k` most likely tokens, of them the fewest that hold `top_p` of their mass: ids and
/// probabilities, descending, ties by id.
fn likeliest(row: &[f32], top_k: usize, top_p: f64) -> (Vec<usize>, Vec<f32>) {
    let sum = |kept: &[(usize, f32)]| kept.iter().map(|&(_, p)| f64::from(p)).sum::<f64>();
    let all = if top_k < row.len() { None } else { Some(row.iter().copied().map(f64::from).sum()) };
    let mut kept = descending(row, top_k, |kept| {
        all.map_or(kept.len() >= top_k, |all: f64| sum(kept) >= top_p * all)
    });
    let mass = all.unwrap_or_else(|| sum(&kept));
    let mut running = 0.0;
    let count = kept.iter().take_while(|&&(_, p)| {
        let needed = running < top_p * mass;
        running += f64::from(p);
        needed
    });
    let count = count.count();
    kept.truncate(count);
    kept.into_iter().unzip()
}

/// As [`walk`], on any device.
fn by_tensors(
    probabilities: &Tensor,
    greedy: Option<&[i64]>,
    draws: &[Option<Draw>],
) -> Result<Vec<Option<Drawn>>, LmError> {
    let size = probabilities.size()[1] as usize;
    let device = probabilities.device();
    let filters: Vec<Option<(usize, f64)>> =
        draws.iter().map(|d| d.as_ref().and_then(|d| d.filter(size))).collect();
    let column = |value: &dyn Fn(usize) -> f64| {
        let list: Vec<f64> = (0..draws.len()).map(value).collect();
        Tensor::f_from_slice(&list)?.f_to_device(device)?.f_unsqueeze(1)
    };
    let uniform = column(&|i| draws[i].as_ref().map_or(0.0, |d| d.uniform))?;
    let wide = probabilities.f_to_kind(Kind::Double)?;
    let find = |p: &Tensor, target: &Tensor| {
        let running = p.f_cumsum(-1, Kind::Double)?;
        target
            .f_searchsorted(&running, false, true, "right", None::<&Tensor>)?
            .f_clamp_max(size as i64 - 1)
    };
    let mut ids = find(&wide, &uniform)?;
    let mut chosen = wide.f_gather(1, &ids, false)?;
    let mut tops: Vec<Vec<TokenLogprob>> = vec![Vec::new(); draws.len()];
    for (i, draw) in draws.iter().enumerate() {
        if let Some(draw) = draw.filter(|draw| draw.top > 0 && filters[i].is_none()) {
            let count = draw.top.min(size) as i64;
            let (best, ids) = wide.f_select(0, i as i64)?.f_topk(count, -1, true, true)?;
            tops[i] = pairs(&ids, &best, 1.0)?;
        }
    }
    if filters.iter().any(Option::is_some) {
        let (sorted, order) = wide.f_sort_stable(true, -1, true)?;
        let rank = Tensor::f_arange(size as i64, (Kind::Double, device))?;
        let top_k = column(&|i| filters[i].map_or(size as f64, |f| f.0 as f64))?;
        let top_p = column(&|i| filters[i].map_or(1.0, |f| f.1))?;
        let sorted = &sorted * rank.f_lt_tensor(&top_k)?;
        let mass = sorted.f_sum_dim_intlist(-1i64, true, Kind::Double)?;
        let before = sorted.f_cumsum(-1, Kind::Double)? - &sorted;
        let kept = &sorted * before.f_lt_tensor(&(top_p * mass))?;
        let mass = kept.f_sum_dim_intlist(-1i64, true, Kind::Double)?;
        let places = find(&kept, &(&uniform * &mass))?;
        for (i, draw) in draws.iter().enumerate() {
            if let Some(draw) = draw.filter(|draw| draw.top > 0 && filters[i].is_some()) {
                let (row, count) = (i as i64, draw.top.min(size) as i64);
                let part = |x: &Tensor| x.f_select(0, row)?.f_narrow(0, 0, count);
                tops[i] = pairs(&part(&order)?, &part(&kept)?, mass.double_value(&[row, 0]))?;
            }
        }
        let filtered =
            column(&|i| f64::from(u8::from(filters[i].is_some())))?.f_to_kind(Kind::Bool)?;
        chosen = (kept.f_gather(1, &places, false)? / mass).f_where_self(&filtered, &chosen)?;
        ids = order.f_gather(1, &places, false)?.f_where_self(&filtered, &ids)?;
    }
    if let Some(best) = greedy {
        let best = Tensor::f_from_slice(best)?.f_to_device(device)?.f_unsqueeze(1)?;
        let is_greedy = column(&|i| f64::from(u8::from(draws[i].is_some_and(|d| d.greedy()))))?
            .f_to_kind(Kind::Bool)?;
        chosen = wide.f_gather(1, &best, false)?.f_where_self(&is_greedy, &chosen)?;
        ids = best.f_where_self(&is_greedy, &ids)?;
    }
    let ids = Vec::<i64>::try_from(ids.f_view([-1])?)?;
    let logprobs = Vec::<f64>::try_from(chosen.f_log()?.f_view([-1])?)?;
    let rows = draws.iter().zip(ids.into_iter().zip(logprobs)).zip(tops);
    let drawn = |((draw, (id, logprob)), top): ((&Option<Draw>, (i64, f64)), _)| {
        draw.as_ref().map(|_| Drawn { id: id as u32, logprob: logprob as f32, top })
    };
    Ok(rows.map(drawn).collect())
}

/// Tokens and log-probabilities from ids and probabilities that sum to `mass`.
fn pairs(ids: &Tensor, probabilities: &Tensor, mass: f64) -> Result<Vec<TokenLogprob>, LmError> {
    let ids = Vec::<i64>::try_from(ids)?;
    let probabilities = Vec::<f64>::try_from(probabilities)?;
    Ok(logs(ids.into_iter().map(|id| id as usize).zip(probabilities), mass))
}

#[cfg(test)]
mod tests {
    use leyden_core::{Sampling, SeedTree};
    use tch::{Device, Kind, Tensor};

    use super::{Draw, Drawn, by_tensors, check, find, likeliest, sample, walk};

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, max_tokens: 1 }
    }

    fn draw(sampling: &Sampling, uniform: f64) -> Draw<'_> {
        Draw { sampling, uniform, allowed: None, top: 0 }
    }

    #[test]
    fn find_inverts_the_cumulative_distribution() {
        let p: Vec<f32> = (0..2000).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 / 1333.0 }).collect();
        for target in [0.0, 0.1, 0.5, 0.77, 0.999] {
            let mut running = 0.0;
            let expected = p.iter().position(|&p| {
                running += f64::from(p);
                running > target
            });
            assert_eq!(find(&p, target), expected, "{target}");
        }
        assert_eq!(find(&p, 2.0), Some(1999), "beyond the sum: the last possible token");
        assert_eq!(find(&[0.5, 0.5, 0.0], 1.5), Some(1), "never one of probability 0");
    }

    #[test]
    fn filters_keep_the_likeliest_and_break_ties_by_id() {
        let row = [0.1, 0.3, 0.05, 0.3, 0.25];
        assert_eq!(likeliest(&row, 2, 1.0).0, [1, 3]);
        assert_eq!(likeliest(&row, 1, 1.0).0, [1]);
        assert_eq!(likeliest(&row, 5, 0.6).0, [1, 3], "reached exactly");
        assert_eq!(likeliest(&row, 5, 0.61).0, [1, 3, 4]);
        assert_eq!(likeliest(&row, 3, 0.5).0, [1, 3], "p of what k left: 0.6 of 0.85");
        assert_eq!(likeliest(&row, 5, 1e-9).0, [1], "never empty");
        assert_eq!(likeliest(&row, 4, 1.0).0, [1, 3, 4, 0]);
        let flat = [0.25f32; 4];
        assert_eq!(likeliest(&flat, 3, 1.0).0, [0, 1, 2]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = Tensor::from_slice(&[0.5f32, 1.5, -1.0, 0.0]).unsqueeze(0);
        let n = 4000;
        let settings = sampling(0.7, 3, 1.0);
        let weights = [0.5f64 / 0.7, 1.5 / 0.7, f64::NEG_INFINITY, 0.0].map(f64::exp);
        let total: f64 = weights.iter().sum();
        let mut counts = [0usize; 4];
        for i in 0..n {
            let draw = draw(&settings, SeedTree::new(5).index(i).uniform());
            let Drawn { id, logprob, .. } =
                sample(&logits, &[Some(draw)]).unwrap().remove(0).unwrap();
            counts[id as usize] += 1;
            assert!((f64::from(logprob) - (weights[id as usize] / total).ln()).abs() < 1e-6);
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            let p = weight / total;
            let deviation = (p * (1.0 - p) / n as f64).sqrt();
            assert!((count as f64 / n as f64 - p).abs() <= 4.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn tensor_and_cpu_sampling_agree() {
        tch::manual_seed(3);
        let logits = Tensor::randn([40, 700], (Kind::Float, Device::Cpu)) * 3.0;
        let settings = [
            sampling(1.0, 0, 1.0),
            sampling(0.0, 0, 1.0),
            sampling(0.7, 20, 1.0),
            sampling(1.3, 0, 0.9),
            sampling(1.0, 50, 0.5),
        ];
        let draws: Vec<Option<Draw>> = (0..40)
            .map(|i| {
                let uniform = SeedTree::new(1).index(i as u64).uniform();
                let draw = draw(&settings[i % 5], uniform);
                (i % 7 != 6).then_some(Draw { top: i % 4, ..draw })
            })
            .collect();
        let p = logits.softmax(-1, Kind::Float);
        let best = Vec::<i64>::try_from(logits.argmax(-1, false)).unwrap();
        let (a, b) =
            (walk(&p, Some(&best), &draws).unwrap(), by_tensors(&p, Some(&best), &draws).unwrap());
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!(a.as_ref().map(|x| x.id), b.as_ref().map(|x| x.id), "row {i}");
            if let (Some(a), Some(b)) = (a, b) {
                assert!((a.logprob - b.logprob).abs() < 1e-6, "row {i}");
                assert_eq!(a.top.len(), i % 4, "row {i}");
                for (a, b) in a.top.iter().zip(&b.top) {
                    assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-6, "row {i}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_logits() {
        let mut row = vec![0f32; 300];
        (row[17], row[41], row[299]) = (2.0, 2.0, 2.0);
        let logits = Tensor::from_slice(&row).unsqueeze(0);
        let settings = sampling(0.0, 0, 1.0);
        let drawn = sample(&logits, &[Some(draw(&settings, 0.9))]).unwrap();
        assert_eq!(drawn[0].as_ref().unwrap().id, 17);
    }

    #[test]
    fn constraints_apply_before_all_filters() {
        let row = [3.0f32, 2.0, 1.0, 0.5, 0.0];
        let logits = Tensor::from_slice(&row).unsqueeze(0).repeat([2, 1]);
        let allowed = [0b11010u32];
        let (greedy, warm) = (sampling(0.0, 0, 1.0), sampling(2.0, 2, 1.0));
        let constrained =
            |settings| Draw { allowed: Some(&allowed), top: 5, ..draw(settings, 0.99) };
        let drawn =
            sample(&logits, &[Some(constrained(&greedy)), Some(constrained(&warm))]).unwrap();
        let (a, b) = (drawn[0].clone().unwrap(), drawn[1].clone().unwrap());
        // Greedy: at temperature 1, over the three that remain.
        let total = 2f32.exp() + 0.5f32.exp() + 1.0;
        assert_eq!(a.id, 1);
        assert!((a.logprob - (2.0 - total.ln())).abs() < 1e-6);
        assert_eq!(a.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 4]);
        // Top-2 of them at temperature 2.
        let total = 1f32.exp() + 0.25f32.exp();
        assert_eq!((b.id, b.top.len()), (3, 2));
        assert!((b.logprob - (0.25 - total.ln())).abs() < 1e-6);
        assert!((b.top[0].1 - (1.0 - total.ln())).abs() < 1e-6);
        assert_eq!(logits.double_value(&[0, 0]), 3.0, "the caller's logits are untouched");
        // A mask shorter than the vocabulary allows nothing beyond its end.
        let wide = Tensor::from_slice(&[0f32; 40]).unsqueeze(0);
        let draw = Draw { allowed: Some(&[1 << 7]), ..draw(&warm, 0.5) };
        assert_eq!(sample(&wide, &[Some(draw)]).unwrap()[0].as_ref().unwrap().id, 7);
    }

    #[test]
    fn invalid_settings_are_rejected() {
        for bad in [sampling(-1.0, 0, 1.0), sampling(f64::NAN, 0, 1.0), sampling(1.0, 0, 0.0)] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        assert!(check(&sampling(0.0, 0, 1.0)).is_ok());
        let broken = Tensor::from_slice(&[f32::NAN, 0.0]).unsqueeze(0);
        let settings = sampling(1.0, 0, 1.0);
        assert!(sample(&broken, &[Some(draw(&settings, 0.5))]).is_err());
    }
}
