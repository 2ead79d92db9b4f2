//! IMA ADPCM: four bits per sample, there and back (IMA Digital Audio Focus and Technical Working Groups,
//! "Recommended practices for enhancing digital audio compatibility in multimedia systems", revision 3.00, 1992).

/// Step sizes: each about 1.1 times the one before.
const STEPS: [i32; 89] = [
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88,
    97, 107, 118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658,
    724, 796, 876, 963, 1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660,
    4026, 4428, 4871, 5358, 5894, 6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818,
    18500, 20350, 22385, 24623, 27086, 29794, 32767,
];

/// How the index of the step moves, by the magnitude of the code.
const MOVES: [i32; 8] = [-1, -1, -1, -1, 2, 4, 6, 8];

/// Coded and decoded from a predictor of zero and the least step; full scale is 1.
pub(super) fn code(samples: &mut [f32]) {
    let (mut predicted, mut index) = (0i32, 0i32);
    for sample in samples {
        // Truncation rounds, of what is positive.
        let wanted = ((f64::from(*sample) * 32_768.0 + 32_768.5) as i32 - 32_768).min(32_767);
        let step = STEPS[index as usize];
        let difference = wanted - predicted;
        let mut rest = difference.abs();
        let (mut magnitude, mut change) = (0, step >> 3);
        for bit in [2, 1, 0] {
            let part = step >> (2 - bit);
            if rest >= part {
                magnitude |= 1 << bit;
                rest -= part;
                change += part;
            }
        }
        let change = if difference < 0 { -change } else { change };
        predicted = (predicted + change).clamp(-32_768, 32_767);
        index = (index + MOVES[magnitude as usize]).clamp(0, 88);
        *sample = predicted as f32 / 32_768.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(samples: &[i32]) -> Vec<i32> {
        let mut x: Vec<f32> = samples.iter().map(|s| *s as f32 / 32_768.0).collect();
        code(&mut x);
        x.iter().map(|s| (s * 32_768.0) as i32).collect()
    }

    /// What `audioop.lin2adpcm` and `adpcm2lin` of Python 3.11 give.
    #[test]
    fn decoded_samples_are_those_of_python() {
        let tone = [
            0, 595, 1182, 1757, 2321, 2871, 3407, 3927, 4430, 4915, 5382, 5828, 6254, 6659, 7041, 7401, 7737,
            8049, 8336, 8599, 8837, 9049, 9235, 9396,
        ];
        let want = [
            0, 11, 41, 104, 240, 533, 1164, 2521, 4267, 4970, 5183, 5765, 6293, 6773, 6918, 7315, 7675, 8003,
            8301, 8572, 8818, 9041, 9245, 9429,
        ];
        assert_eq!(coded(&tone), want);
        // Full swings, through clipping; then 5000 samples of noise, as a running sum.
        let mut swings = vec![0; 4];
        swings.extend([20_000, -20_000].repeat(6));
        swings.extend([32_767; 4].into_iter().chain([-32_768; 4]));
        let want = [
            0, 0, 0, 0, 11, -19, 44, -92, 201, -430, 927, -1983, 4253, -9119, 19547, -17315, 32767, 32767,
            32767, 32767, -13399, -32768, -29044, -32429,
        ];
        assert_eq!(coded(&swings), want);
        let mut state = 1u64;
        let noise: Vec<i32> = (0..5_000)
            .map(|_| {
                state = (state * 1_103_515_245 + 12_345) % (1 << 31);
                (state >> 15) as i32 - 32_768
            })
            .collect();
        let sum = coded(&noise)
            .iter()
            .fold(0u32, |sum, s| sum.wrapping_mul(31).wrapping_add(u32::from(*s as i16 as u16)));
        assert_eq!((noise[0], sum), (908, 1_073_846_495));
    }
}
