//! Timbres: the sound of an instrument in one clip.
//!
//! Every clip draws its own: spectra, envelope, vibrato, detuning, strike and breath noise. Families keep what
//! the ear knows them by (a plucked string's decay, a section's swell), the rest varies widely.

use super::instrument::Instrument;
use super::wavetable::{HARMONICS, Spectrum};
use crate::rng::Rng;

/// What a part does in the arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Bass,
    /// The chords that carry harmony and pulse where there is no bass or no beat.
    Anchor,
    Comp,
    Pad,
    Lead,
}

/// How a note sounds. Times are in seconds, rates in Hz.
#[derive(Debug, Clone)]
pub(super) struct Timbre {
    pub(super) spectrum: Spectrum,
    pub(super) attack: f32,
    /// Time constant of the decay to `sustain`, at middle C; higher notes decay faster.
    pub(super) decay: f32,
    pub(super) sustain: f32,
    pub(super) release: f32,
    /// Share of the bright spectrum at first and in the end, and the time constant between.
    pub(super) bright: (f32, f32),
    pub(super) bright_time: f32,
    pub(super) vibrato_cents: f32,
    pub(super) vibrato_rate: f32,
    /// Depth of amplitude modulation at the vibrato rate, 0..1.
    pub(super) tremolo: f32,
    /// Distance of a second, equal voice; 0 for none.
    pub(super) unison_cents: f32,
    /// An inharmonic sine: frequency ratio, level, time constant.
    pub(super) overtone: Option<(f32, f32, f32)>,
    /// Noise that lasts as the tone does.
    pub(super) breath: f32,
    /// Noise of the attack.
    pub(super) strike: f32,
}

impl Timbre {
    pub(super) fn draw(instrument: Instrument, role: Role, rng: &mut Rng) -> Self {
        let mut timbre = match instrument {
            Instrument::Bass => bass(rng),
            Instrument::Brass => brass(rng),
            Instrument::ElectricPiano => electric_piano(rng),
            Instrument::Flute => flute(rng),
            Instrument::Guitar => guitar(rng),
            Instrument::Mallets => mallets(rng),
            Instrument::Organ => organ(rng),
            Instrument::Strings => strings(rng),
            Instrument::Synth => synth(rng),
            Instrument::Piano | Instrument::Drums | Instrument::Percussion => piano(rng),
        };
        if role == Role::Pad {
            timbre.attack = timbre.attack.max(rng.uniform(0.04, 0.2) as f32);
            timbre.release = timbre.release.max(0.12);
        }
        timbre.roughen(rng);
        timbre
    }

    /// Random spectral detail, then unit root mean square for both spectra.
    fn roughen(&mut self, rng: &mut Rng) {
        let amount = rng.uniform(0.15, 0.6);
        for h in 0..HARMONICS {
            self.spectrum.phases[h] = rng.f64() as f32;
            let factor = (amount * rng.normal()).exp() as f32;
            self.spectrum.dull[h] *= factor;
            self.spectrum.bright[h] *= factor;
        }
        for amplitudes in [&mut self.spectrum.dull, &mut self.spectrum.bright] {
            let power: f32 = amplitudes.iter().map(|a| a * a * 0.5).sum();
            let scale = 1.0 / power.sqrt().max(1e-6);
            amplitudes.iter_mut().for_each(|a| *a *= scale);
        }
    }
}

/// Spectra from two laws of the harmonic number; everything else plain.
fn from_laws(dull: impl Fn(f64) -> f64, bright: impl Fn(f64) -> f64) -> Timbre {
    let fill = |law: &dyn Fn(f64) -> f64| {
        let mut amplitudes = [0.0f32; HARMONICS];
        for (h, amplitude) in amplitudes.iter_mut().enumerate() {
            *amplitude = law((h + 1) as f64) as f32;
        }
        amplitudes
    };
    Timbre {
        spectrum: Spectrum { dull: fill(&dull), bright: fill(&bright), phases: [0.0; HARMONICS] },
        attack: 0.004,
        decay: 1.0,
        sustain: 0.0,
        release: 0.06,
        bright: (0.5, 0.5),
        bright_time: 0.2,
        vibrato_cents: 0.0,
        vibrato_rate: 5.0,
        tremolo: 0.0,
        unison_cents: 0.0,
        overtone: None,
        breath: 0.0,
        strike: 0.0,
    }
}

/// Amplitude of harmonic `h` for a string plucked or struck at a fraction `at` of its length.
fn pluck(h: f64, at: f64) -> f64 {
    (std::f64::consts::PI * h * at).sin().abs() + 0.05
}

/// A resonance about harmonic `centre`.
fn formant(h: f64, centre: f64, width: f64) -> f64 {
    1.0 + 3.0 * (-((h / centre).ln() / width).powi(2)).exp()
}

fn piano(rng: &mut Rng) -> Timbre {
    let (at, tilt) = (rng.uniform(0.1, 0.16), rng.uniform(0.9, 1.5));
    let mut t = from_laws(|h| pluck(h, at) * h.powf(-tilt - 1.0), |h| pluck(h, at) * h.powf(-tilt));
    t.decay = rng.uniform(0.7, 1.8) as f32;
    t.release = rng.uniform(0.05, 0.25) as f32;
    t.bright = (rng.uniform(0.5, 0.95) as f32, 0.1);
    t.bright_time = rng.uniform(0.1, 0.4) as f32;
    t.unison_cents = rng.uniform(0.0, 2.5) as f32;
    t.strike = rng.uniform(0.02, 0.12) as f32;
    t
}

fn electric_piano(rng: &mut Rng) -> Timbre {
    let tilt = rng.uniform(1.8, 2.6);
    let even = rng.uniform(0.3, 1.2);
    let law = move |h: f64| if h % 2.0 == 0.0 { even } else { 1.0 };
    let mut t = from_laws(|h| h.powf(-tilt - 1.2), |h| law(h) * h.powf(-tilt + 0.7));
    t.decay = rng.uniform(0.8, 2.0) as f32;
    t.release = rng.uniform(0.06, 0.2) as f32;
    t.bright = (rng.uniform(0.4, 0.9) as f32, 0.15);
    t.bright_time = rng.uniform(0.15, 0.5) as f32;
    t.overtone = Some((rng.uniform(6.1, 7.3) as f32, rng.uniform(0.1, 0.4) as f32, 0.12));
    t.vibrato_rate = rng.uniform(3.5, 7.0) as f32;
    t.tremolo = if rng.f64() < 0.5 { rng.uniform(0.1, 0.45) as f32 } else { 0.0 };
    t
}

fn organ(rng: &mut Rng) -> Timbre {
    let mut bars = [0.0; 17];
    for h in [1, 2, 3, 4, 5, 6, 8, 10, 12, 16] {
        bars[h] = rng.f64().powf(0.7);
    }
    bars[1] = bars[1].max(0.5);
    let bar = move |h: f64| bars.get(h as usize).copied().unwrap_or(0.0);
    let mut t = from_laws(move |h| bar(h) * if h < 4.5 { 1.0 } else { 0.2 }, bar);
    let bright = rng.uniform(0.2, 0.9) as f32;
    t.bright = (bright, bright);
    t.sustain = 1.0;
    t.attack = rng.uniform(0.004, 0.02) as f32;
    t.release = rng.uniform(0.015, 0.06) as f32;
    t.vibrato_rate = rng.uniform(5.5, 7.0) as f32;
    t.vibrato_cents = rng.uniform(0.0, 14.0) as f32;
    t.tremolo = rng.uniform(0.0, 0.25) as f32;
    t.strike = rng.uniform(0.0, 0.06) as f32;
    t
}

fn guitar(rng: &mut Rng) -> Timbre {
    let at = rng.uniform(0.08, 0.3);
    let driven = rng.f64() < 0.35;
    let tilt = if driven { rng.uniform(0.5, 0.9) } else { rng.uniform(0.7, 1.3) };
    let mut t = from_laws(|h| pluck(h, at) * h.powf(-tilt - 1.0), |h| pluck(h, at) * h.powf(-tilt));
    if driven {
        t.decay = rng.uniform(1.5, 3.0) as f32;
        t.sustain = 0.4;
        t.bright = (1.0, rng.uniform(0.5, 0.8) as f32);
        t.vibrato_cents = rng.uniform(0.0, 14.0) as f32;
    } else {
        t.decay = rng.uniform(0.25, 0.9) as f32;
        t.bright = (1.0, 0.05);
    }
    t.bright_time = rng.uniform(0.06, 0.25) as f32;
    t.release = rng.uniform(0.03, 0.12) as f32;
    t.strike = rng.uniform(0.05, 0.2) as f32;
    t
}

fn bass(rng: &mut Rng) -> Timbre {
    let synthetic = rng.f64() < 0.4;
    let (at, tilt) = (rng.uniform(0.1, 0.35), rng.uniform(0.9, 1.6));
    let mut t = if synthetic {
        from_laws(|h| h.powf(-tilt - 1.2), |h| h.powf(-tilt))
    } else {
        from_laws(|h| pluck(h, at) * h.powf(-tilt - 1.0), |h| pluck(h, at) * h.powf(-tilt))
    };
    t.decay = rng.uniform(0.5, 1.5) as f32;
    t.sustain = if synthetic { rng.uniform(0.2, 0.8) as f32 } else { 0.1 };
    t.bright = (rng.uniform(0.5, 1.0) as f32, rng.uniform(0.1, 0.4) as f32);
    t.bright_time = rng.uniform(0.05, 0.25) as f32;
    t.attack = rng.uniform(0.003, 0.012) as f32;
    t.release = 0.04;
    t.strike = rng.uniform(0.0, 0.08) as f32;
    t
}

fn strings(rng: &mut Rng) -> Timbre {
    let (centre, tilt) = (rng.uniform(3.0, 9.0), rng.uniform(0.8, 1.3));
    let law = move |h: f64| formant(h, centre, 0.5) * h.powf(-tilt);
    let mut t = from_laws(|h| law(h) * h.powf(-0.9), law);
    t.attack = rng.uniform(0.04, 0.14) as f32;
    t.sustain = 0.85;
    t.release = rng.uniform(0.08, 0.25) as f32;
    t.bright = (rng.uniform(0.2, 0.7) as f32, rng.uniform(0.4, 0.9) as f32);
    t.vibrato_cents = rng.uniform(5.0, 18.0) as f32;
    t.vibrato_rate = rng.uniform(4.8, 6.2) as f32;
    t.unison_cents = rng.uniform(6.0, 16.0) as f32;
    t.breath = rng.uniform(0.0, 0.03) as f32;
    t
}

fn brass(rng: &mut Rng) -> Timbre {
    let (centre, tilt) = (rng.uniform(3.0, 7.0), rng.uniform(0.6, 1.0));
    let law = move |h: f64| formant(h, centre, 0.6) * h.powf(-tilt);
    let mut t = from_laws(|h| law(h) * h.powf(-1.6), law);
    t.attack = rng.uniform(0.02, 0.06) as f32;
    t.decay = 0.4;
    t.sustain = rng.uniform(0.6, 0.9) as f32;
    t.release = rng.uniform(0.04, 0.1) as f32;
    // Brass opens up as it is blown.
    t.bright = (0.0, rng.uniform(0.5, 1.0) as f32);
    t.bright_time = rng.uniform(0.03, 0.09) as f32;
    t.vibrato_cents = rng.uniform(0.0, 12.0) as f32;
    t.unison_cents = if rng.f64() < 0.5 { rng.uniform(3.0, 9.0) as f32 } else { 0.0 };
    t
}

fn flute(rng: &mut Rng) -> Timbre {
    let tilt = rng.uniform(1.8, 2.8);
    let odd = rng.uniform(0.3, 1.0);
    let law = move |h: f64| if h % 2.0 == 0.0 { odd } else { 1.0 };
    let mut t = from_laws(|h| law(h) * h.powf(-tilt - 0.7), |h| law(h) * h.powf(-tilt + 0.4));
    t.attack = rng.uniform(0.025, 0.07) as f32;
    t.sustain = 0.9;
    t.release = rng.uniform(0.04, 0.1) as f32;
    t.bright = (0.8, rng.uniform(0.2, 0.6) as f32);
    t.vibrato_cents = rng.uniform(4.0, 22.0) as f32;
    t.vibrato_rate = rng.uniform(4.5, 6.2) as f32;
    t.tremolo = rng.uniform(0.0, 0.2) as f32;
    t.breath = rng.uniform(0.03, 0.14) as f32;
    t.strike = 0.05;
    t
}

fn mallets(rng: &mut Rng) -> Timbre {
    let tilt = rng.uniform(2.5, 4.0);
    let mut t = from_laws(|h| h.powf(-tilt - 1.0), |h| h.powf(-tilt));
    let (ratio, decay) = *rng.pick(&[(3.93, 0.3), (4.0, 1.2), (2.76, 0.8), (9.2, 0.35)]);
    t.overtone = Some((ratio, rng.uniform(0.3, 0.9) as f32, rng.uniform(0.04, 0.2) as f32));
    t.decay = (decay * rng.uniform(0.7, 1.4)) as f32;
    t.release = (0.2 * decay + rng.uniform(0.05, 0.2)) as f32;
    t.attack = 0.002;
    t.strike = rng.uniform(0.05, 0.25) as f32;
    t.vibrato_rate = rng.uniform(3.5, 6.5) as f32;
    t.tremolo = if decay > 0.5 && rng.f64() < 0.5 { rng.uniform(0.1, 0.4) as f32 } else { 0.0 };
    t
}

fn synth(rng: &mut Rng) -> Timbre {
    let saw = rng.f64() < 0.5;
    let width = rng.uniform(0.15, 0.5);
    let law = move |h: f64| if saw { 1.0 / h } else { pluck(h, width) / h };
    let cut = rng.uniform(2.0, 6.0);
    let mut t = from_laws(move |h| law(h) / (1.0 + (h / cut).powi(2)), law);
    t.attack = rng.uniform(0.003, 0.03) as f32;
    t.decay = rng.uniform(0.2, 1.5) as f32;
    t.sustain = rng.uniform(0.2, 0.9) as f32;
    t.release = rng.uniform(0.04, 0.2) as f32;
    t.bright = (rng.uniform(0.5, 1.0) as f32, rng.uniform(0.1, 0.6) as f32);
    t.bright_time = rng.uniform(0.08, 0.5) as f32;
    t.unison_cents = if rng.f64() < 0.6 { rng.uniform(5.0, 20.0) as f32 } else { 0.0 };
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn timbres_are_level_and_within_reach() {
        let mut rng = Key::root(1).rng();
        for instrument in Instrument::ALL {
            for role in [Role::Bass, Role::Anchor, Role::Comp, Role::Pad, Role::Lead] {
                let timbre = Timbre::draw(instrument, role, &mut rng);
                for amplitudes in [&timbre.spectrum.dull, &timbre.spectrum.bright] {
                    let power: f32 = amplitudes.iter().map(|a| a * a * 0.5).sum();
                    assert!((power - 1.0).abs() < 1e-3, "{instrument:?} {power}");
                }
                assert!(super::super::voice::tail(&timbre) < 2.0, "{instrument:?}");
            }
        }
    }
}
