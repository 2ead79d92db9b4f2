//! A synthetic room: the early reflections of a box, and after them a diffuse decay.
//!
//! Source and microphone are put somewhere in the box. The mirror images of the source up to a certain distance
//! give the early reflections; there are about a thousand of them, whatever the room. From then on the images
//! come so densely that only their energy matters: Gaussian-like noise takes over at the level of the last images
//! and decays as Eyring's formula says. The direct sound comes at time zero with a gain of 1, so onsets stay.

use std::f64::consts::{LN_10, PI, TAU};

use crate::audio::Audio;
use crate::convolution::convolve;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;
use crate::wet;

const fn metres(min: f64, max: f64, default: (f64, f64)) -> ParamKind {
    ParamKind::Number { min, max, identity: None, default, scale: Scale::Log }
}

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "room",
    version: 1,
    summary: "Plays the sound in a box-shaped room and records it with a microphone.",
    source: "Image sources: Allen and Berkley, JASA 65(4), 1979; fractional delays: Peterson, JASA 80(5), 1986; \
             sign of reflections: Lehmann and Johansson, JASA 124(1), 2008; decay: Eyring, JASA 1(2), 1930.",
    params: &[
        ParamDef {
            name: "length_m",
            unit: "m",
            help: "The length of the room.",
            kind: metres(1.0, 60.0, (3.0, 15.0)),
        },
        ParamDef {
            name: "width_m",
            unit: "m",
            help: "The width of the room.",
            kind: metres(1.0, 60.0, (2.5, 10.0)),
        },
        ParamDef {
            name: "height_m",
            unit: "m",
            help: "The height of the room.",
            kind: metres(1.0, 20.0, (2.3, 5.0)),
        },
        ParamDef {
            name: "absorption",
            unit: "",
            help: "The share of the energy that a wall takes.",
            kind: ParamKind::Number {
                min: 0.01,
                max: 0.99,
                identity: None,
                default: (0.1, 0.6),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "distance_m",
            unit: "m",
            help: "From the source to the microphone; less where the room is too small.",
            kind: metres(0.1, 50.0, (0.5, 4.0)),
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The share of the sound in the room; the rest is the dry sound.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.5, 1.0),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "RoomSimulator")],
};

/// The speed of sound in air at 20 degrees Celsius, in m/s.
const SOUND: f64 = 343.2;
/// How many images are heard one by one, about.
const IMAGES: f64 = 1_000.0;
/// From one microphone to the next, in m, when there are several channels.
const SPACING: f64 = 0.2;
/// Half the length of the kernel of a fractional delay, in frames, and how many delays are tabulated per frame.
pub(crate) const HALF: usize = 8;
const PHASES: usize = 64;

/// A room: its walls and what they reflect.
#[derive(Clone, Copy, Debug)]
struct Room {
    size: [f64; 3],
    absorption: f64,
}

impl Room {
    fn volume(&self) -> f64 {
        self.size.iter().product()
    }

    /// Eyring's reverberation time, in seconds.
    fn rt60(&self) -> f64 {
        let [x, y, z] = self.size;
        let surface = 2.0 * (x * y + y * z + z * x);
        -24.0 * LN_10 * self.volume() / (SOUND * surface * (-self.absorption).ln_1p())
    }
}

/// One channel's path: where the source is and where the microphone.
#[derive(Clone, Copy, Debug)]
struct Path {
    source: [f64; 3],
    microphone: [f64; 3],
}

impl Path {
    fn distance(&self) -> f64 {
        let squares = self.source.iter().zip(&self.microphone).map(|(s, m)| (s - m).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

/// The images along one axis: squared distance and reflection gain.
type Axis = Vec<(f64, f64)>;

/// The kernels of fractional delays, the response, the axes and the wet channels.
#[derive(Default)]
struct Buffers {
    kernels: Vec<[f32; 2 * HALF]>,
    axes: [Axis; 3],
    response: Vec<f32>,
    wet: Vec<Vec<f32>>,
}

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, scratch: &mut Scratch) {
    let &[length, width, height, absorption, distance, mix] = params else { return };
    let Some(unit) = wet::unit(&audio.channels).filter(|_| mix > 0.0) else { return };
    let room = Room { size: [length, width, height], absorption };
    let path = place(&room, distance, rng);
    let count = audio.channels.len();
    let mut buffers = std::mem::take(scratch.slot::<Buffers>());
    let mut wet = std::mem::take(&mut buffers.wet);
    wet.resize_with(count, Vec::new);
    let mut energy = 0.0;
    for (c, (channel, wet)) in audio.channels.iter().zip(&mut wet).enumerate() {
        let path = Path { microphone: microphone(&room, &path, c, count), ..path };
        buffers.respond(&room, &path, f64::from(audio.rate), channel.len(), rng);
        energy += wet::energy(&buffers.response, 1.0) / count as f64;
        convolve(channel, unit, &buffers.response, HALF, wet, scratch);
    }
    wet::blend(audio, &wet, unit, 0, mix, energy.sqrt().recip());
    buffers.wet = wet;
    *scratch.slot() = buffers;
}

/// The responses of the channels of a view, and the mean of their energies.
pub(crate) fn responses(
    params: &[f64],
    rate: u32,
    frames: usize,
    channels: usize,
    rng: &mut Rng,
    scratch: &mut Scratch,
) -> Option<(Vec<Vec<f32>>, f64)> {
    let &[length, width, height, absorption, distance, _] = params else { return None };
    let room = Room { size: [length, width, height], absorption };
    let path = place(&room, distance, rng);
    let buffers: &mut Buffers = scratch.slot();
    let mut energy = 0.0;
    let response = |c: usize| {
        let path = Path { microphone: microphone(&room, &path, c, channels), ..path };
        buffers.respond(&room, &path, f64::from(rate), frames, rng);
        energy += wet::energy(&buffers.response, 1.0) / channels as f64;
        buffers.response.clone()
    };
    let responses = (0..channels).map(response).collect();
    Some((responses, energy))
}

/// Puts source and microphone into the room, away from the walls and within 30 degrees of one level; every place
/// that the distance leaves is equally likely.
fn place(room: &Room, distance: f64, rng: &mut Rng) -> Path {
    let (sin, cos) = rng.uniform(0.0, TAU).sin_cos();
    let up = rng.uniform(-0.5, 0.5);
    let level = (1.0 - up * up).sqrt();
    let mut path = Path { source: [0.0; 3], microphone: [0.0; 3] };
    for (axis, direction) in [level * cos, level * sin, up].into_iter().enumerate() {
        let margin = 0.1 * room.size[axis].min(5.0);
        let free = room.size[axis] - 2.0 * margin;
        let apart = (distance * direction).clamp(-free, free);
        let at = margin + (-apart).max(0.0) + rng.uniform(0.0, free - apart.abs());
        (path.microphone[axis], path.source[axis]) = (at, at + apart);
    }
    path
}

/// The microphone of a channel: they stand in a row that is centred on the first one's place and looks at the
/// source, as far as the walls allow.
fn microphone(room: &Room, path: &Path, channel: usize, count: usize) -> [f64; 3] {
    let along = SPACING * (channel as f64 - (count - 1) as f64 / 2.0);
    let [dx, dy] = [0, 1].map(|axis| path.source[axis] - path.microphone[axis]);
    let level = dx.hypot(dy).max(1e-9);
    let [x, y, z] = path.microphone;
    let inside = |x: f64, axis: usize| x.clamp(0.01 * room.size[axis], 0.99 * room.size[axis]);
    [inside(x - along * dy / level, 0), inside(y + along * dx / level, 1), z]
}

impl Buffers {
    /// The response of a path for a view of that many frames; time zero is at frame [`HALF`].
    fn respond(&mut self, room: &Room, path: &Path, rate: f64, frames: usize, rng: &mut Rng) {
        let direct = path.distance();
        let reach = (3.0 * room.volume() * IMAGES / (4.0 * PI)).cbrt().max(1.5 * direct);
        let frames_to = |distance: f64| (distance - direct) / SOUND * rate;
        let length = (frames_to(reach) + room.rt60() * rate).min(frames as f64) as usize;
        self.response.clear();
        self.response.resize(length + 2 * HALF + 1, 0.0);
        let shell = self.images(room, path, rate, reach);

        // Images per metre times the energy of each, and what absorption leaves of it.
        let density = |distance: f64| {
            let decay = 6.0 * LN_10 * distance / (SOUND * room.rt60());
            4.0 * PI * direct * direct / room.volume() * (-decay).exp()
        };
        let decay = 6.0 * LN_10 / (SOUND * room.rt60());
        let expected = (density(SHELL * reach) - density(reach)) / decay;
        let level = if expected > 0.0 { shell / expected } else { 0.0 };
        let power = level * density(reach) * SOUND / rate;
        let start = (frames_to(reach).ceil() as usize).min(length);
        tail(&mut self.response[HALF + start..HALF + length], power, decay * SOUND / rate, rng);
    }

    /// Adds all images of the source within `reach` metres, and returns the energy of those in the outer shell.
    fn images(&mut self, room: &Room, path: &Path, rate: f64, reach: f64) -> f64 {
        // Walls turn the polarity: with a positive factor all images would add up at low frequencies.
        let reflection = -(1.0 - room.absorption).sqrt();
        if self.kernels.is_empty() {
            self.kernels.extend((0..=PHASES).map(|p| kernel(p as f64 / PHASES as f64)));
        }
        for (axis, images) in self.axes.iter_mut().enumerate() {
            let (size, source, microphone) = (room.size[axis], path.source[axis], path.microphone[axis]);
            let most = (reach / (2.0 * size)).ceil() as i32 + 1;
            images.clear();
            for n in -most..=most {
                for (at, bounces) in [(source, 2 * n.abs()), (-source, (2 * n - 1).abs())] {
                    let apart = at + 2.0 * f64::from(n) * size - microphone;
                    images.push((apart * apart, reflection.powi(bounces)));
                }
            }
        }
        let direct = path.distance();
        let frames_per_metre = rate / SOUND;
        let last = self.response.len() - 2 * HALF;
        let mut shell = 0.0;
        let [xs, ys, zs] = &self.axes;
        let reach2 = reach * reach;
        for (x2, x_gain) in xs.iter().filter(|x| x.0 < reach2) {
            for (y2, y_gain) in ys.iter().filter(|y| x2 + y.0 < reach2) {
                for (z2, z_gain) in zs.iter().filter(|z| x2 + y2 + z.0 < reach2) {
                    let distance = (x2 + y2 + z2).sqrt();
                    let gain = x_gain * y_gain * z_gain * direct / distance;
                    if distance > SHELL * reach {
                        shell += gain * gain;
                    }
                    let delay = (distance - direct).max(0.0) * frames_per_metre;
                    let whole = delay as usize;
                    if whole < last {
                        let phase = (delay - whole as f64) * PHASES as f64;
                        let row = (phase as usize).min(PHASES - 1);
                        let between = (phase - row as f64) as f32;
                        let gain = gain as f32;
                        let to = &mut self.response[whole + 1..whole + 1 + 2 * HALF];
                        for ((to, a), b) in to.iter_mut().zip(&self.kernels[row]).zip(&self.kernels[row + 1])
                        {
                            *to += gain * (a + between * (b - a));
                        }
                    }
                }
            }
        }
        shell
    }
}

/// The inner radius of the shell of images that the tail is matched to, over the outer.
const SHELL: f64 = 0.7;

/// A delay by `fraction` of a frame: a sinc under a Hann window. Element `HALF - 1` is time zero.
fn kernel(fraction: f64) -> [f32; 2 * HALF] {
    std::array::from_fn(|i| {
        let x = i as f64 + 1.0 - HALF as f64 - fraction;
        let sinc = if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) };
        (sinc * (0.5 + 0.5 * (PI * x / HALF as f64).cos())) as f32
    })
}

/// Adds noise that begins with `power` per frame and loses `decay` nepers of power per frame.
fn tail(response: &mut [f32], power: f64, decay: f64, rng: &mut Rng) {
    let within: [f32; 8] = std::array::from_fn(|i| (-0.5 * decay * i as f64).exp() as f32);
    let per_eight = (-4.0 * decay).exp();
    // Uniform noise on (-0.5, 0.5) has a variance of 1/12.
    let mut level = (12.0 * power).sqrt();
    for frames in response.chunks_mut(8) {
        let words = rng.next_four();
        let scale = level as f32 * (1.0 / 65_536.0);
        for (i, (to, within)) in frames.iter_mut().zip(within).enumerate() {
            let half_word = (words[i / 2] >> (16 * (i % 2))) & 0xFFFF;
            *to += (half_word as f32 - 32_767.5) * scale * within;
        }
        level *= per_eight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use crate::wet::decay_time;

    fn room() -> Room {
        Room { size: [6.0, 4.5, 2.8], absorption: 0.25 }
    }

    fn path() -> Path {
        Path { source: [1.3, 2.9, 1.1], microphone: [4.2, 1.6, 1.5] }
    }

    /// Allen and Berkley's sum over images, written as they do, with signs per axis and whole rooms: pairs of the
    /// delay behind the direct sound in seconds and the gain over it.
    fn reference(room: &Room, path: &Path, reach: f64) -> Vec<(f64, f64)> {
        let mut images = Vec::new();
        let most = 14i32;
        for p in 0..8 {
            let q = [p & 1, p >> 1 & 1, p >> 2 & 1];
            for n in 0..(2 * most + 1).pow(3) {
                let side = 2 * most + 1;
                let m = [n % side - most, n / side % side - most, n / side / side - most];
                let mut squares = 0.0;
                let mut bounces = 0;
                for a in 0..3 {
                    let source = f64::from(1 - 2 * q[a]) * path.source[a];
                    squares += (source + 2.0 * f64::from(m[a]) * room.size[a] - path.microphone[a]).powi(2);
                    bounces += (m[a] - q[a]).abs() + m[a].abs();
                }
                let distance = squares.sqrt();
                if distance < reach {
                    let wall = (-(1.0 - room.absorption).sqrt()).powi(bounces);
                    images.push(((distance - path.distance()) / 343.2, wall * path.distance() / distance));
                }
            }
        }
        images
    }

    /// The spectrum of the early response is that of the images, over all frequencies that the kernels pass.
    #[test]
    fn images_are_where_they_belong() {
        let (rate, reach) = (16_000.0, 25.0);
        let want = reference(&room(), &path(), reach);
        assert!(want.len() > 700, "{}", want.len());
        let mut buffers = Buffers { response: vec![0.0; 4_000], ..Buffers::default() };
        buffers.images(&room(), &path(), rate, reach);
        let energy: f64 = want.iter().map(|(_, gain)| gain * gain).sum();
        for hz in (0..60).map(|i| 17.0 + 100.0 * f64::from(i)) {
            let w = TAU * hz;
            let spectrum = |sum: &mut dyn Iterator<Item = (f64, f64)>| {
                sum.fold((0.0, 0.0), |(re, im), (t, g)| (re + g * (w * t).cos(), im - g * (w * t).sin()))
            };
            let (re, im) = spectrum(&mut want.iter().copied());
            let frames = buffers.response.iter().enumerate();
            let (got_re, got_im) =
                spectrum(&mut frames.map(|(n, s)| ((n as f64 - HALF as f64) / rate, f64::from(*s))));
            let error = (re - got_re).hypot(im - got_im) / energy.sqrt();
            assert!(error < 0.02, "{hz} Hz: {error}");
        }
    }

    #[test]
    fn the_direct_sound_is_one_at_time_zero() {
        let far = Room { size: [40.0, 40.0, 15.0], absorption: 0.5 };
        let path = Path { source: [20.0, 20.0, 7.0], microphone: [20.0, 21.0, 7.0] };
        let mut buffers = Buffers::default();
        buffers.respond(&far, &path, 16_000.0, 4_000, &mut Key::root(0).rng());
        assert!((buffers.response[HALF] - 1.0).abs() < 1e-6);
        assert!(
            buffers.response[..HALF].iter().chain(&buffers.response[HALF + 1..300]).all(|s| s.abs() < 1e-6)
        );
    }

    /// Eyring's time within a tenth; a large room with absorbing walls decays slower, up to a quarter, since sound
    /// along its long axis meets few walls.
    #[test]
    fn the_decay_is_near_eyring() {
        for (seed, size, absorption, tolerance) in [
            (1, [6.0, 4.5, 2.8], 0.1, 0.1),
            (2, [6.0, 4.5, 2.8], 0.3, 0.1),
            (3, [10.0, 8.0, 4.0], 0.2, 0.1),
            (4, [4.0, 3.5, 3.0], 0.4, 0.1),
            (5, [20.0, 15.0, 8.0], 0.5, 0.25),
        ] {
            let room = Room { size, absorption };
            let mut rng = Key::root(seed).rng();
            let path = place(&room, 2.0, &mut rng);
            for rate in [8_000.0, 16_000.0, 48_000.0] {
                let mut buffers = Buffers::default();
                buffers.respond(&room, &path, rate, 1_000_000, &mut rng);
                let measured = decay_time(&buffers.response[HALF + 1..], rate);
                assert!(
                    (measured / room.rt60() - 1.0).abs() < tolerance,
                    "{size:?}: {measured} {}",
                    room.rt60()
                );
            }
        }
    }

    /// Places are inside, and as far apart as asked where there is room.
    #[test]
    fn places_are_inside_the_room() {
        let mut rng = Key::root(9).rng();
        for size in [[1.0, 1.0, 1.0], [60.0, 1.0, 2.0], [8.0, 6.0, 3.0]] {
            let room = Room { size, absorption: 0.3 };
            for distance in [0.1, 1.0, 50.0] {
                for _ in 0..50 {
                    let path = place(&room, distance, &mut rng);
                    for c in 0..6 {
                        for point in [path.source, microphone(&room, &path, c, 6)] {
                            assert!(point.iter().zip(size).all(|(p, s)| *p > 0.0 && *p < s), "{point:?}");
                        }
                    }
                    assert!(path.distance() <= distance + 1e-9);
                    assert!(size[2] < 3.0 || distance > 1.0 || (path.distance() - distance).abs() < 1e-9);
                }
            }
        }
    }

    fn in_room(mut audio: Audio, params: [f64; 6]) -> Audio {
        run(&mut audio, &params, &mut Key::root(5).rng(), &mut Scratch::default());
        audio
    }

    #[test]
    fn channels_differ_onsets_stay_and_levels_hold() {
        let mut rng = Key::root(1).rng();
        let mut noise: Vec<f32> = (0..32_000).map(|_| rng.normal() as f32 * 0.1).collect();
        noise[..8_000].fill(0.0);
        let audio = Audio { rate: 16_000, channels: vec![noise; 2] };
        let got = in_room(audio.clone(), [6.0, 4.0, 3.0, 0.2, 2.0, 1.0]);
        assert_ne!(got.channels[0], got.channels[1]);
        let energy = |audio: &Audio| audio.channels.iter().map(|c| wet::energy(c, 1.0)).sum::<f64>();
        assert!((energy(&got) / energy(&audio) - 1.0).abs() < 1e-3);
        let before = wet::energy(&got.channels[0][..8_000 - HALF], 1.0);
        assert!(before < 1e-9 * energy(&got), "{before}");
        assert_eq!(in_room(audio.clone(), [6.0, 4.0, 3.0, 0.2, 2.0, 0.0]), audio);
    }

    #[test]
    fn extremes() {
        for params in [
            [60.0, 1.0, 1.0, 0.01, 50.0, 1.0],
            [1.0, 1.0, 1.0, 0.99, 50.0, 0.5],
            [60.0, 60.0, 20.0, 0.01, 0.1, 1.0],
        ] {
            for samples in [vec![], vec![0.5], vec![f32::MAX; 3_000], vec![f32::MIN_POSITIVE; 3_000]] {
                for rate in [4_000, 192_000] {
                    let audio = Audio { rate, channels: vec![samples.clone(); 3] };
                    assert!(in_room(audio, params).is_finite(), "{params:?}");
                }
            }
        }
    }
}
