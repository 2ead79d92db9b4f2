//! From notes to samples.
//!
//! ```text
//! notes -> voices ---> part bus --pan--> left, right --+-> equaliser -> limiter
//! hits  -> one-shots -'        '-send-> room taps -----'
//! ```

use super::kit::level;
use super::mix::{Mix, PRE_ROLL};
use super::parts::note_stream;
use super::plan::Plan;
use super::strike::Sound;
use super::voice::Voice;
use super::wavetable::Tables;
use super::{Hit, Note, REACH_SECONDS, write_notes};

/// Level of a part of 0 dB; leaves headroom for a full arrangement before the limiter.
const UNIT: f32 = 0.16;

/// Left and right of `frames` samples from number `first` of the clip on.
pub(super) fn render(plan: &Plan, first: i64, frames: usize, rate: f64) -> [Vec<f32>; 2] {
    let pre_roll = (PRE_ROLL * rate).ceil() as usize;
    let (start, total) = (first - pre_roll as i64, frames + pre_roll);
    let (from_s, to_s) = (start as f64 / rate, (start + total as i64) as f64 / rate);
    let (notes, hits) = write_notes(plan, from_s - REACH_SECONDS, to_s);
    let mix = Mix::draw(plan.sound.with_str("mix"));
    let mut desk = Desk {
        sides: [vec![0.0; total], vec![0.0; total]],
        wet: vec![0.0; total],
        bus: vec![0.0; total],
        send: mix.send,
        rate,
        start,
    };
    for index in 0..plan.parts.len() {
        desk.part(plan, index, &notes);
    }
    desk.hits(plan, &hits);
    mix.finish(&mut desk.sides, &desk.wet, rate, start);
    desk.sides.map(|side| side[pre_roll..].to_vec())
}

struct Desk {
    sides: [Vec<f32>; 2],
    wet: Vec<f32>,
    bus: Vec<f32>,
    send: f32,
    rate: f64,
    start: i64,
}

impl Desk {
    fn part(&mut self, plan: &Plan, index: usize, notes: &[Note]) {
        let part = &plan.parts[index];
        let mut tables = Tables::new(&part.timbre.spectrum);
        self.bus.fill(0.0);
        for note in notes.iter().filter(|note| note.part == index) {
            let semitones = f64::from(note.pitch) - 69.0 + plan.tuning / 100.0;
            let voice = Voice {
                timbre: &part.timbre,
                onset_s: note.onset_s,
                gate: note.seconds as f32,
                hz: 440.0 * (semitones / 12.0).exp2(),
                velocity: note.velocity,
                key: note_stream(plan.sound, note),
            };
            voice.add(&mut tables, self.rate, self.start, &mut self.bus);
        }
        self.pan(part.gain * UNIT, part.pan);
    }

    /// Adds the bus to both sides at constant power, and to the room.
    fn pan(&mut self, gain: f32, pan: f32) {
        let angle = (pan + 1.0) * std::f32::consts::FRAC_PI_4;
        for (side, share) in self.sides.iter_mut().zip([angle.cos(), angle.sin()]) {
            let gain = gain * share * std::f32::consts::SQRT_2;
            for (sample, bus) in side.iter_mut().zip(&self.bus) {
                *sample += gain * bus;
            }
        }
        let send = gain * self.send;
        for (sample, bus) in self.wet.iter_mut().zip(&self.bus) {
            *sample += send * bus;
        }
    }

    fn hits(&mut self, plan: &Plan, hits: &[Hit]) {
        let key = plan.sound.with_str("kit");
        for sound in Sound::ALL {
            let mut struck = hits.iter().filter(|hit| hit.sound == sound).peekable();
            if struck.peek().is_none() {
                continue;
            }
            let shot = sound.render(key, self.rate);
            self.bus.fill(0.0);
            for hit in struck {
                let at = (hit.onset_s * self.rate).round() as i64 - self.start;
                let skip = (-at).max(0) as usize;
                let at = at.max(0) as usize;
                if skip < shot.len() && at < self.bus.len() {
                    for (sample, shot) in self.bus[at..].iter_mut().zip(&shot[skip..]) {
                        *sample += hit.velocity * shot;
                    }
                }
            }
            let (gain, pan) = level(plan, sound);
            self.pan(gain * UNIT, pan);
        }
    }
}
