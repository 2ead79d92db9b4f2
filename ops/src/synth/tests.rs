//! Properties of the clips as a data set: labels, decidability, independence, and rendering of ranges.

use super::*;
use crate::mir::{KEYS, Mode};

fn clip(index: u64) -> ClipSpec {
    ClipSpec { seed: 17, index, seconds: 12.0 }
}

#[test]
fn addresses_round_trip() {
    for spec in [clip(123), ClipSpec { seed: u64::MAX, index: 0, seconds: 0.1 + 0.2 }] {
        assert_eq!(ClipSpec::parse(&spec.uri()).unwrap(), spec);
    }
    assert_eq!(clip(123).uri(), "synth:v1?seed=17&index=123&seconds=12");
    for (uri, why) in [
        ("file:x", "synth:"),
        ("synth:v1", "seed="),
        ("synth:v9?seed=1&index=2&seconds=3", "v9"),
        ("synth:v1?seed=1&index=2", "`seconds` is missing"),
        ("synth:v1?seed=1&index=2&seconds=3&seed=1", "twice"),
        ("synth:v1?seed=-1&index=2&seconds=3", "not a number"),
        ("synth:v1?seed=1&index=2&seconds=NaN", "seconds must"),
        ("synth:v1?seed=1&index=2&seconds=inf", "seconds must"),
        ("synth:v1?seed=1&index=2&seconds=0", "seconds must"),
        ("synth:v1?seed=1&index=2&tempo=3", "unknown parameter `tempo`"),
    ] {
        let error = ClipSpec::parse(uri).unwrap_err();
        assert_eq!(error.kind, RejectKind::BadUri);
        assert!(error.message.contains(why), "{}", error.message);
    }
}

/// Any change of this digest changes every stored clip: raise [`VERSION`] with it.
#[test]
fn scores_are_frozen() {
    let mut hash = blake3::Hasher::new();
    for index in 0..20 {
        let score = clip(index).score();
        hash.update(format!("{} {:.2} {} {} ", score.key, score.bpm, score.metre, score.style).as_bytes());
        hash.update(score.instruments.join(",").as_bytes());
        // Onsets in hundredths, so that a platform's last bit of a logarithm does not show.
        for note in &score.notes {
            hash.update(format!("{} {:.2} {}", note.part, note.onset_s + 0.000_37, note.pitch).as_bytes());
        }
        for hit in &score.hits {
            hash.update(format!("{:?} {:.2}", hit.sound, hit.onset_s + 0.000_37).as_bytes());
        }
    }
    assert_eq!(&hash.finalize().to_hex()[..16], "ff9fb6b67cc2b215");
}

#[test]
fn labels_have_their_distributions() {
    const CLIPS: u64 = 2400;
    let plans: Vec<Plan> = (0..CLIPS).map(|index| clip(index).plan()).collect();
    let mut keys = [0u32; KEYS];
    let (mut mean, mut square) = (0.0, 0.0);
    for plan in &plans {
        keys[plan.key.index()] += 1;
        assert!((60.0..=180.0).contains(&plan.grid.bpm) && plan.tuning.abs() <= 20.0);
        let x = (plan.grid.bpm / 60.0).ln() / 3f64.ln();
        mean += x / CLIPS as f64;
        square += x * x / CLIPS as f64;
    }
    // Chi-squared with 23 degrees of freedom: 49.7 has probability 0.001.
    let expected = CLIPS as f64 / KEYS as f64;
    let chi: f64 = keys.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert!(chi < 49.7, "{chi}: {keys:?}");
    // Mean and second moment of a uniform variable.
    assert!((mean - 0.5).abs() < 0.02 && (square - 1.0 / 3.0).abs() < 0.02, "{mean} {square}");
}

#[test]
fn every_instrument_is_common_and_none_universal() {
    const CLIPS: u64 = 500;
    let mut counts = std::collections::BTreeMap::new();
    for index in 0..CLIPS {
        let score = clip(index).score();
        assert!(score.instruments.is_sorted() && !score.notes.is_empty());
        for name in score.instruments {
            *counts.entry(name).or_insert(0u64) += 1;
        }
    }
    assert_eq!(counts.len(), Instrument::ALL.len());
    for (name, count) in counts {
        let share = count as f64 / CLIPS as f64;
        assert!((0.12..=0.68).contains(&share), "{name} {share}");
    }
}

#[test]
fn a_range_rendered_alone_equals_the_range_cut_out() {
    for index in 0..12 {
        let whole = clip(index).render(0.0, 6.0, 16_000);
        let start = 16_000 * 2 + 777;
        let part = clip(index).render(start as f64 / 16_000.0, 1.5, 16_000);
        assert_eq!((part.channels.len(), part.frames()), (2, 24_000));
        for (whole, part) in whole.channels.iter().zip(&part.channels) {
            for (a, b) in whole[start..].iter().zip(part) {
                assert!((a - b).abs() < 2e-3, "clip {index}: {a} {b}");
            }
        }
    }
}

#[test]
fn audio_is_finite_audible_and_within_range() {
    for index in 0..60 {
        let audio = clip(index).render(index as f64 * 0.1, 2.0, if index % 7 == 0 { 44_100 } else { 16_000 });
        assert!(audio.is_finite() && audio.peak() < 1.0, "clip {index}");
        let power = audio.to_mono().iter().map(|s| f64::from(s * s)).sum::<f64>() / audio.frames() as f64;
        assert!(power.sqrt() > 1e-3, "clip {index}: {power}");
    }
    // Odd requests are answered, with silence if need be.
    assert_eq!(clip(0).render(-30.0, 0.5, 8000).frames(), 4000);
    assert_eq!(clip(0).render(0.0, -1.0, 0).frames(), 0);
    assert!(clip(0).render(3000.0, 0.5, 100).is_finite());
}

#[test]
fn rendering_is_repeatable() {
    assert_eq!(clip(5).render(1.0, 1.0, 16_000), clip(5).render(1.0, 1.0, 16_000));
    let longer = ClipSpec { seconds: 60.0, ..clip(5) };
    assert_eq!(clip(5).render(1.0, 1.0, 16_000), longer.render(1.0, 1.0, 16_000));
}

/// Key profiles of Temperley 1999 ("What's key for key?"), which suit functional harmony.
const PROFILES: [[f64; 12]; 2] = [
    [5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0],
    [5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0],
];

/// The key whose profile correlates best with the pitch classes of the notes, weighted by duration.
fn key_of(notes: &[Note]) -> MusicalKey {
    let mut weights = [0.0; 12];
    for note in notes {
        weights[usize::from(note.pitch % 12)] += note.seconds;
    }
    let correlation = |key: MusicalKey| {
        let profile = PROFILES[usize::from(key.mode() == Mode::Minor)];
        let mean = |x: &[f64; 12]| x.iter().sum::<f64>() / 12.0;
        let (pm, wm) = (mean(&profile), mean(&weights));
        let turned = |i: usize| profile[(i + 12 - usize::from(key.tonic())) % 12] - pm;
        let product: f64 = (0..12).map(|i| turned(i) * (weights[i] - wm)).sum();
        product / (0..12).map(|i| turned(i).powi(2)).sum::<f64>().sqrt()
    };
    (0..KEYS)
        .filter_map(MusicalKey::from_index)
        .max_by(|a, b| correlation(*a).total_cmp(&correlation(*b)))
        .unwrap()
}

#[test]
fn the_key_can_be_read_off_the_notes() {
    let scores: Vec<Score> = (0..200).map(|index| clip(index).score()).collect();
    let right = scores.iter().filter(|score| key_of(&score.notes) == score.key).count();
    assert!(right >= 170, "{right} of 200");
}

/// The share of onset strength that falls on the beats of a tempo, at the best phase, against chance.
fn beat_contrast(onsets: &[(f64, f64)], bpm: f64) -> f64 {
    let beat = 60.0 / bpm;
    let total: f64 = onsets.iter().map(|(_, weight)| weight).sum();
    let width = 0.02;
    let best = (0..100)
        .map(|phase| {
            let phase = f64::from(phase) / 100.0 * beat;
            let near = |t: f64| {
                let x = (t - phase) / beat;
                (x - x.round()).abs() * beat < width
            };
            onsets.iter().filter(|(t, _)| near(*t)).map(|(_, weight)| weight).sum::<f64>()
        })
        .fold(0.0, f64::max);
    best / total / (2.0 * width / beat)
}

#[test]
fn the_beat_stands_out_from_the_onsets() {
    let mut right = 0;
    for index in 0..100 {
        let score = clip(index).score();
        let onsets: Vec<(f64, f64)> = score
            .hits
            .iter()
            .map(|hit| (hit.onset_s, f64::from(hit.velocity)))
            .chain(score.notes.iter().map(|note| (note.onset_s, f64::from(note.velocity))))
            .collect();
        // The true tempo beats tempi that are no simple ratio of it.
        let truth = beat_contrast(&onsets, score.bpm);
        let others = [0.83, 0.91, 1.1, 1.21].map(|ratio| beat_contrast(&onsets, score.bpm * ratio));
        right += u32::from(others.iter().all(|other| truth > 1.2 * other));
    }
    assert!(right >= 85, "{right} of 100");
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(a, b)| f(a - mx, b - my)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// A stand-in for brightness that needs no transform: the rate of zero crossings, in log scale.
fn brightness(samples: &[f32]) -> f64 {
    let crossings = samples.windows(2).filter(|w| (w[0] < 0.0) != (w[1] < 0.0)).count();
    (crossings as f64 + 1.0).ln()
}

#[test]
fn simple_features_tell_neither_key_nor_tempo() {
    const CLIPS: u64 = 400;
    let (mut tempo, mut tonic, mut bright, mut loud) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut pitch, mut count) = (Vec::new(), Vec::new());
    for index in 0..CLIPS {
        let score = clip(index).score();
        let samples = clip(index).render(2.0, 2.0, 16_000).to_mono();
        tempo.push(score.bpm.ln());
        tonic.push(f64::from(score.key.tonic()));
        bright.push(brightness(&samples));
        loud.push(samples.iter().map(|s| f64::from(s * s)).sum::<f64>().ln());
        let notes = score.notes.len() as f64;
        pitch.push(score.notes.iter().map(|note| f64::from(note.pitch)).sum::<f64>() / notes);
        count.push((notes + score.hits.len() as f64).ln());
    }
    for (name, feature) in
        [("brightness", &bright), ("loudness", &loud), ("pitch", &pitch), ("count", &count)]
    {
        let (with_tempo, with_tonic) = (correlation(feature, &tempo), correlation(feature, &tonic));
        // Four standard errors of a correlation of nothing.
        assert!(with_tonic.abs() < 0.2, "{name} and tonic: {with_tonic}");
        assert!(with_tempo.abs() < 0.3, "{name} and tempo: {with_tempo}");
    }
}

/// The pitch classes of a chord by its name, from the definition of Harte's shorthands.
fn tones_of(name: &str) -> Vec<u8> {
    let (root, quality) = name.split_once(':').unwrap();
    let intervals: &[u8] = match quality {
        "maj" => &[0, 4, 7],
        "min" => &[0, 3, 7],
        "dim" => &[0, 3, 6],
        "maj7" => &[0, 4, 7, 11],
        "7" => &[0, 4, 7, 10],
        "min7" => &[0, 3, 7, 10],
        "hdim7" => &[0, 3, 6, 10],
        "dim7" => &[0, 3, 6, 9],
        _ => panic!("{name}"),
    };
    let root = crate::mir::PITCH_CLASSES.iter().position(|p| *p == root).unwrap() as u8;
    intervals.iter().map(|interval| (root + interval) % 12).collect()
}

/// Every note of a chordal part is a tone of the chord that its onset lies in, and all tones of a chord sound.
#[test]
fn the_chords_are_those_that_sound() {
    let (mut sounding, mut named) = (0, 0);
    for index in 0..100 {
        let (plan, score, chords) = (clip(index).plan(), clip(index).score(), clip(index).chords());
        assert_eq!((chords[0].0, chords.last().unwrap().1), (0.0, 12.0));
        assert!(chords.windows(2).all(|w| w[0].1 == w[1].0 && w[0].2 != w[1].2 && w[0].0 < w[0].1));
        // Human inexactness and the strum of a guitar stay within these seconds.
        let at = |t: f64| chords.iter().find(|(start, end, _)| (*start..*end).contains(&(t + 0.03)));
        for note in &score.notes {
            if !matches!(plan.parts[note.part].line, plan::Line::Chords { .. }) {
                continue;
            }
            if let Some((_, _, name)) = at(note.onset_s) {
                assert!(tones_of(name).contains(&(note.pitch % 12)), "clip {index}: {name} {note:?}");
            }
        }
        for (start, end, name) in &chords {
            let heard = |tone: &u8| {
                score
                    .notes
                    .iter()
                    .any(|n| n.pitch % 12 == *tone && (*start..*end).contains(&(n.onset_s + 0.03)))
            };
            let tones = tones_of(name);
            sounding += tones.iter().filter(|tone| heard(tone)).count();
            named += tones.len();
        }
    }
    assert!(sounding * 10 >= named * 8, "{sounding} of {named}");
}

/// More than twice the onset strength falls on the beats than on places of the beat that no metre uses much, and
/// chords begin on beats.
#[test]
fn the_beats_are_those_of_the_notes() {
    let mut right = 0;
    for index in 0..100 {
        let (score, beats, chords) = (clip(index).score(), clip(index).beats(), clip(index).chords());
        let beat = 60.0 / score.bpm;
        assert!(beats.windows(2).all(|w| (w[1] - w[0] - beat).abs() < 1e-9));
        assert!(beats[0] >= 0.0 && beats[0] < beat && (12.0 - beat..12.0).contains(beats.last().unwrap()));
        for (start, ..) in &chords[1..] {
            assert!(beats.iter().any(|t| (t - start).abs() < 1e-9), "clip {index}: {start}");
        }
        let onsets = score
            .hits
            .iter()
            .map(|hit| (hit.onset_s, f64::from(hit.velocity)))
            .chain(score.notes.iter().map(|note| (note.onset_s, f64::from(note.velocity))));
        let (mut on, mut off) = (0.0, 0.0);
        for (t, weight) in onsets.filter(|(t, _)| *t >= 0.0) {
            let phase = ((t - beats[0]) / beat).rem_euclid(1.0);
            let near = |x: f64| ((phase - x + 0.5).rem_euclid(1.0) - 0.5).abs() * beat < 0.025;
            on += if near(0.0) { weight } else { 0.0 };
            off += if near(0.3) || near(0.85) { weight / 2.0 } else { 0.0 };
        }
        right += u32::from(on > 2.0 * off);
    }
    assert!(right >= 97, "{right} of 100");
}
