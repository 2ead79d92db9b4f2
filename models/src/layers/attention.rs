//! Multi-head soft-max attention, composed.

use candle_core::{D, Result, Tensor};

/// Attention of `query: [views, queries, dim]` over `key_value: [views, tokens, 2 dim]` (keys, then
/// values) with `heads` heads; the result is `[views, queries, dim]`.
pub fn attention(query: &Tensor, key_value: &Tensor, heads: usize) -> Result<Tensor> {
    let dim = query.dim(D::Minus1)?;
    let split = |t: &Tensor| -> Result<Tensor> {
        let (views, tokens, dim) = t.dims3()?;
        t.reshape((views, tokens, heads, dim / heads))?.transpose(1, 2)?.contiguous()
    };
    let query = split(query)?;
    let key = split(&key_value.narrow(2, 0, dim)?.contiguous()?)?;
    let value = split(&key_value.narrow(2, dim, dim)?.contiguous()?)?;
    let scale = 1.0 / ((dim / heads) as f64).sqrt();
    let logits = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? * scale)?;
    let weights = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&value)?.transpose(1, 2)?.contiguous()?.flatten_from(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{gradients, wave};

    #[test]
    fn gradients_match_differences() {
        for (views, queries, tokens, dim, heads) in [(2, 3, 3, 4, 2), (1, 1, 5, 6, 3), (3, 2, 4, 4, 1)] {
            let inputs = [wave(&[views, queries, dim], 0.7, 1.5), wave(&[views, tokens, 2 * dim], 1.1, 1.5)];
            let mask = wave(&[views, queries, dim], 1.9, 1.0);
            gradients(&inputs, |t| (attention(&t[0], &t[1], heads)? * &mask)?.sum_all());
        }
    }

    #[test]
    fn large_logits_stay_finite() {
        let (q, kv) = (wave(&[1, 2, 4], 0.7, 1e3), wave(&[1, 3, 8], 1.1, 1e3));
        let out = attention(&q, &kv, 2).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(out.iter().all(|x| x.is_finite()));
    }
}
