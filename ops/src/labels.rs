//! What a draw does to the labels of a clip: key and tempo of a view follow from those of the clip.

use crate::chain::Chain;
use crate::operator::LabelEffect;
use crate::views::Draw;

/// The change that a view makes to its clip's labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelChange {
    /// How far the key is transposed upwards, in semitones.
    pub semitones: f64,
    /// By what the tempo is multiplied.
    pub rate: f64,
}

/// The total transposition and change of tempo over all operators that were applied.
pub fn label_effect(chain: &Chain, draw: &Draw) -> LabelChange {
    let mut change = LabelChange { semitones: 0.0, rate: 1.0 };
    for (spec, params) in chain.processing(draw) {
        for effect in spec.def().labels {
            match *effect {
                LabelEffect::Transpose(i) => change.semitones += params.get(i).copied().unwrap_or(0.0),
                LabelEffect::Tempo(i) => change.rate *= params.get(i).copied().unwrap_or(1.0),
                _ => {}
            }
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Channels, Entry, Sampling};
    use crate::operator::OperatorSpec;
    use crate::rng::Key;

    #[test]
    fn shifts_add_and_rates_multiply() {
        let ops = |names: &[&str]| names.iter().map(|n| OperatorSpec::new(n).unwrap()).collect::<Vec<_>>();
        let base = ops(&["gain", "time_stretch", "pitch_shift"]).into_iter().map(Entry::from).collect();
        let chain = Chain {
            sample_rate: 16_000,
            seconds: 3.0,
            channels: Channels::Mono,
            base,
            variant: ops(&["pitch_shift", "time_stretch"]),
            sampling: Sampling::Factorial,
        };
        let mut draw = chain.draw_identity(Key::root(1), "a", 0, 5.0);
        assert_eq!(label_effect(&chain, &draw), LabelChange { semitones: 0.0, rate: 1.0 });
        draw.params =
            vec![Some(vec![-3.0]), Some(vec![1.25]), Some(vec![6.0]), Some(vec![0.8]), Some(vec![2.0])];
        assert_eq!(label_effect(&chain, &draw), LabelChange { semitones: -1.0, rate: 1.0 });
        draw.params[3] = None;
        assert_eq!(label_effect(&chain, &draw), LabelChange { semitones: -1.0, rate: 1.25 });
    }
}
