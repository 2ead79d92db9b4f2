//! Files good and bad, against the sweeps that they were made from.

use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::rng::Key;
use crate::wav::write_wav;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The sweep of the fixtures, `frames` of it from frame `first` on.
fn sweep(k: f64, rate: u32, first: i64, frames: usize) -> Vec<f32> {
    (0..frames as i64)
        .map(|i| (first + i) as f64 / f64::from(rate))
        .map(|t| if t < 0.0 { 0.0 } else { (0.4 * (TAU * (200.0 * t + k * t * t)).sin()) as f32 })
        .collect()
}

fn error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// By how many frames the audio comes later than the sweep, and the SNR in dB at that place.
fn lag(audio: &[f32], k: f64, rate: u32, first: i64) -> (i64, f64) {
    let all = sweep(k, rate, first - 3000, audio.len() + 6000);
    let candidates = (-3000..3000).map(|d| (d, error(audio, &all[(3000 - d) as usize..])));
    let (lag, error) = candidates.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let signal: f64 = audio.iter().map(|x| f64::from(*x).powi(2)).sum();
    (lag, 10.0 * (signal / error).log10())
}

fn read(path: &Path, start_s: f64, seconds: f64, rate: u32) -> Result<Audio, AudioError> {
    Source::File(path.to_owned()).read(start_s, seconds, rate)
}

fn write_sweep(path: &Path, rate: u32, frames: usize, gain: f32) {
    let left = sweep(200.0, rate, 0, frames);
    let right: Vec<f32> = left.iter().map(|x| -gain * x).collect();
    write_wav(path, rate, &[&left, &right]).unwrap();
}

#[test]
fn a_crop_begins_at_the_frame_that_was_asked_for() {
    // (file, k, rate, the codec's own lag, least SNR)
    let files = [
        ("chirp.flac", 200.0, 8000, 0, 70.0),
        ("chirp.mp3", 200.0, 44_100, 0, 15.0),
        ("chirp.ogg", 200.0, 44_100, 0, 15.0),
        ("long.ogg", 30.0, 8000, 0, 10.0),
        ("vbr.mp3", 200.0, 16_000, 0, 15.0),
        ("chain.ogg", 200.0, 16_000, 0, 10.0),
        ("chain.opus", 200.0, 48_000, 0, 10.0),
        ("long.opus", 200.0, 48_000, 0, 15.0),
        ("alac.m4a", 200.0, 8000, 0, 70.0),
        ("chirp.aiff", 200.0, 8000, 0, 90.0),
        // Its first page says that the first 64 frames of the sweep are not to be heard.
        ("joint.ogg", 200.0, 44_100, -64, 15.0),
        // The file does not state LAME's delay.
        ("bare.mp3", 200.0, 44_100, 1105, 15.0),
        // This AAC is noisy, and moves the best match by a frame (0.02 ms) or so.
        ("chirp.m4a", 200.0, 44_100, 0, 7.0),
    ];
    for (name, k, rate, own, least) in files {
        for start in [0.25, 0.55, 1.4] {
            let audio = read(&fixture(name), start, 0.4, rate).unwrap();
            let first = (start * f64::from(rate)).round() as i64;
            let (lag, snr) = lag(&audio.channels[0], k, rate, first);
            let slack = i64::from(name == "chirp.m4a" || name.ends_with("opus"));
            assert!(
                (lag - own).abs() <= slack && snr > least,
                "{name} at {start} s: lag {lag}, SNR {snr:.1} dB"
            );
        }
    }
}

#[test]
fn a_crop_is_what_the_whole_file_has_there() {
    let names = [
        ("chirp.flac", 1e-6),
        ("chirp.mp3", 1e-6),
        ("chirp.ogg", 1e-6),
        ("long.ogg", 1e-6),
        ("bare.mp3", 1e-6),
        ("vbr.mp3", 1e-6),
        ("chirp.m4a", 1e-6),
        ("alac.m4a", 0.0),
        ("chirp.aiff", 0.0),
        ("high.flac", 0.0),
        ("surround.flac", 0.0),
        ("chain.ogg", 1e-6),
        ("joint.ogg", 1e-6),
        ("surround.ogg", 1e-6),
        // At low rates Opus predicts in integers, and never quite forgets where decoding began.
        ("chain.opus", 0.02),
        ("long.opus", 0.02),
        ("surround.opus", 0.02),
    ];
    for (name, most) in names {
        let path = fixture(name);
        let info = probe_file(&path, &Limits::default()).unwrap();
        let whole = read(&path, 0.0, info.seconds, info.rate).unwrap();
        assert_eq!(whole.frames() as u64, info.frames, "{name}");
        let steps = 23;
        for i in 0..steps {
            let start = (info.seconds - 0.2) * f64::from(i) / f64::from(steps - 1);
            let first = (start * f64::from(info.rate)).round() as usize;
            let crop = read(&path, start, 0.2, info.rate).unwrap();
            let expected = &whole.channels[0][first..first + crop.frames()];
            let worst = crop.channels[0].iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= most, "{name} at {start:.3} s: differs by {worst}");
        }
    }
}

#[test]
fn the_last_frame_of_a_wav_is_reached_and_channels_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b.wav");
    write_sweep(&path, 22_050, 50_000, 0.5);
    let source = Source::parse(&format!("file://{}", path.display()).replace(' ', "%20")).unwrap();
    assert_eq!(source, Source::File(path.clone()));
    let seconds = source.seconds().unwrap();
    assert_eq!(seconds, 50_000.0 / 22_050.0);
    let audio = source.read(seconds - 0.5, 0.5, 22_050).unwrap();
    assert_eq!((audio.channels.len(), audio.frames()), (2, 11_025));
    let expected = sweep(200.0, 22_050, 50_000 - 11_025, 11_025);
    assert!(error(&audio.channels[0], &expected) < 1e-9);
    let mixed = source.read_mono(seconds - 0.5, 0.5, 22_050).unwrap();
    assert!(mixed.channels[0].iter().zip(&expected).all(|(m, e)| (m - 0.25 * e).abs() < 1e-6));
}

#[test]
fn a_resampled_crop_has_no_edges() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    write_sweep(&path, 44_100, 4 * 44_100, 1.0);
    for start in [0.0, 0.37, 1.5, 3.0] {
        let audio = read(&path, start, 1.0, 16_000).unwrap();
        assert_eq!((audio.rate, audio.frames()), (16_000, 16_000));
        // The native start is rounded to a frame, which is 11 us at most.
        let first = (start * 44_100.0).round() / 44_100.0;
        let expected: Vec<f32> = (0..16_000)
            .map(|i| first + f64::from(i) / 16_000.0)
            .map(|t| (0.4 * (TAU * (200.0 * t + 200.0 * t * t)).sin()) as f32)
            .collect();
        // Before the first frame of the file and after its last there is silence: an edge of its own.
        let inside = if start == 0.0 { 400..16_000 } else { 0..16_000 };
        let inside = if start == 3.0 { inside.start..15_600 } else { inside };
        let signal: f64 = expected[inside.clone()].iter().map(|x| f64::from(*x).powi(2)).sum();
        let snr = 10.0 * (signal / error(&audio.channels[0][inside.clone()], &expected[inside])).log10();
        assert!(snr > 80.0, "at {start} s: {snr:.1} dB");
    }
    let upsampled = read(&path, 1.0, 0.3, 48_000).unwrap();
    assert_eq!(upsampled.frames(), 14_400);
}

#[test]
fn a_range_must_lie_within_the_clip() {
    let path = fixture("chirp.flac");
    assert_eq!(read(&path, 3.0, 1.0, 16_000).unwrap().frames(), 16_000);
    // One frame beyond the end is forgiven, for the sake of rounding.
    assert!(read(&path, 3.0 + 1.0 / 8000.0, 1.0, 16_000).is_ok());
    for (start, seconds) in
        [(3.001, 1.0), (-0.1, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (0.0, -1.0), (1e300, 1.0)]
    {
        assert_eq!(
            read(&path, start, seconds, 16_000).unwrap_err().kind,
            RejectKind::TooShort,
            "{start} {seconds}"
        );
    }
    // A file whose length no header states is found out while decoding.
    assert_eq!(read(&fixture("bare.mp3"), 2.5, 1.0, 16_000).unwrap_err().kind, RejectKind::TooShort);
    assert_eq!(read(&path, 0.0, 1.0, 0).unwrap_err().kind, RejectKind::OverLimit);
    assert_eq!(read(&path, 0.0, 0.0, 16_000).unwrap().frames(), 0);
}

#[test]
fn a_probe_describes_good_files() {
    let expected = [
        ("chirp.flac", "flac", "flac", 8000, 32_000),
        ("chirp.mp3", "mp3", "mp3", 44_100, 4 * 44_100),
        ("chirp.ogg", "vorbis", "ogg", 44_100, 4 * 44_100),
        ("long.ogg", "vorbis", "ogg", 8000, 24 * 8000),
        ("bare.mp3", "mp3", "mp3", 44_100, 78 * 1152),
        ("vbr.mp3", "mp3", "mp3", 16_000, 8 * 16_000),
        ("chirp.opus", "opus", "ogg", 48_000, 24_000),
        ("long.opus", "opus", "ogg", 48_000, 6 * 48_000),
        ("chain.opus", "opus", "ogg", 48_000, 4 * 48_000),
        ("chain.ogg", "vorbis", "ogg", 16_000, 6 * 16_000),
        ("high.flac", "flac", "flac", 192_000, 48_000),
        ("chirp.aiff", "pcm_s24be", "aiff", 8000, 16_000),
        ("alac.m4a", "alac", "isomp4", 8000, 16_000),
        ("chirp.m4a", "aac", "isomp4", 44_100, 2 * 44_100),
    ];
    for (name, codec, container, rate, frames) in expected {
        let path = fixture(name);
        let info = probe_file(&path, &Limits::default()).unwrap();
        assert_eq!((info.codec.as_str(), info.container.as_str()), (codec, container));
        assert_eq!((info.rate, info.channels, info.frames), (rate, 1, frames), "{name}");
        assert_eq!(info.seconds, frames as f64 / f64::from(rate));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(
            (info.bytes, info.digest),
            (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string())
        );
        assert_eq!(Source::File(path).seconds().unwrap(), info.seconds);
    }
}

#[test]
fn the_five_files_of_a_bad_folder_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let kind = |path: &Path| probe_file(path, &Limits::default()).map(|_| ()).map_err(|e| e.kind);
    let flac = fs::read(fixture("chirp.flac")).unwrap();
    assert_eq!(kind(&put("good.flac", &flac)), Ok(()));
    assert_eq!(kind(&put("empty.wav", b"")), Err(RejectKind::Empty));
    let text = "These are the lyrics, and not the song.\n".repeat(500);
    assert_eq!(kind(&put("text.mp3", text.as_bytes())), Err(RejectKind::Unsupported));
    assert_eq!(kind(&put("short text.mp3", b"la la la")), Err(RejectKind::Unsupported));
    for share in [0.3, 0.5, 0.9, 0.99] {
        let cut = &flac[..(flac.len() as f64 * share) as usize];
        assert_eq!(kind(&put("cut.flac", cut)), Err(RejectKind::Truncated), "{share}");
    }
    assert_eq!(kind(&put("stub.flac", &flac[..30])), Err(RejectKind::Truncated));
    let brief = dir.path().join("brief.wav");
    write_wav(&brief, 44_100, &[&[0.1; 441]]).unwrap();
    assert_eq!(kind(&brief), Err(RejectKind::TooShort));
}

#[test]
fn other_faults_are_told_apart_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    let kind = |path: &Path, limits: &Limits| probe_file(path, limits).unwrap_err().kind;
    let limits = Limits::default();
    assert_eq!(kind(&dir.path().join("none.wav"), &limits), RejectKind::Missing);
    assert_eq!(kind(dir.path(), &limits), RejectKind::Io);
    write_sweep(&path, 8000, 16_000, 1.0);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(kind(&path, &Limits { max_seconds: 1.0, ..limits.clone() }), RejectKind::OverLimit);
    assert_eq!(kind(&path, &Limits { max_channels: 1, ..limits.clone() }), RejectKind::OverLimit);
    assert_eq!(kind(&path, &Limits { max_bytes: 100, ..limits.clone() }), RejectKind::OverLimit);
    assert_eq!(kind(&path, &Limits { min_rate: 16_000, ..limits.clone() }), RejectKind::OverLimit);
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(kind(&path, &limits), RejectKind::Truncated);
    for bad in [f32::NAN, f32::NEG_INFINITY, 1e30] {
        let samples: Vec<f32> = (0..8000).map(|i| if i == 7900 { bad } else { 0.1 }).collect();
        write_wav(&path, 8000, &[&samples]).unwrap();
        assert_eq!(kind(&path, &limits), RejectKind::NotFinite);
        assert_eq!(read(&path, 0.9, 0.1, 16_000).unwrap_err().kind, RejectKind::NotFinite);
        assert!(read(&path, 0.1, 0.1, 8000).is_ok());
    }
}

/// The whole of a fixture against the sweep in each channel at the gain it was given.
fn gains(name: &str, rate: u32, frames: usize) -> Vec<f64> {
    let audio = read(&fixture(name), 0.0, frames as f64 / f64::from(rate), rate).unwrap();
    let sweep = sweep(200.0, rate, 0, frames);
    let power: f64 = sweep.iter().map(|x| f64::from(*x).powi(2)).sum();
    let dot = |c: &Vec<f32>| c.iter().zip(&sweep).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    audio.channels.iter().map(|c| dot(c) / power).collect()
}

#[test]
fn channels_come_in_the_order_of_a_wav() {
    let made = [1.0, 0.5, 0.25, -1.0, -0.5, -0.25, 0.75, -0.75];
    let flac = gains("surround.flac", 8000, 4000);
    assert_eq!(flac.len(), 8);
    assert!(flac.iter().zip(made).all(|(g, m)| (g - m).abs() < 1e-4), "{flac:?}");
    for lossy in [gains("surround.opus", 48_000, 24_000), gains("surround.ogg", 16_000, 8000)] {
        assert_eq!(lossy.len(), 6);
        // The bass channel, the fourth, keeps only what is low.
        for c in [0, 1, 2, 4, 5] {
            assert!((lossy[c] - made[c]).abs() < 0.1, "{lossy:?}");
        }
    }
}

#[test]
fn all_24_bits_of_a_high_rate_file_are_kept() {
    let audio = read(&fixture("high.flac"), 0.0, 0.25, 192_000).unwrap();
    let expected = sweep(200.0, 192_000, 0, 48_000);
    let worst = audio.channels[0].iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1.5 / f32::from(1u16 << 15) / 256.0, "{worst:e}");
}

#[test]
fn a_wav_of_eight_channels_at_any_rate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("eight.wav");
    for rate in [8000, 192_000] {
        let planes: Vec<Vec<f32>> =
            (0..8).map(|c| (0..rate).map(|i| (i + c) as f32 / (2 * rate) as f32).collect()).collect();
        let planes: Vec<&[f32]> = planes.iter().map(Vec::as_slice).collect();
        write_wav(&path, rate, &planes).unwrap();
        let audio = read(&path, 0.5, 0.25, rate).unwrap();
        for (c, channel) in audio.channels.iter().enumerate() {
            assert_eq!(channel[..], planes[c][rate as usize / 2..rate as usize * 3 / 4], "{c} at {rate} Hz");
        }
    }
}

/// Megabytes of tags, full of what looks like frames, and tags at the end: the same audio.
#[test]
fn tags_of_any_size_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["chirp.mp3", "vbr.mp3", "bare.mp3"] {
        let plain = fixture(name);
        let info = probe_file(&plain, &Limits::default()).unwrap();
        let content = [0xff, 0xfb, 0x90, 0x64].repeat(700_000);
        let size = content.len() + 11;
        let syncsafe = [21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7f);
        let mut bytes = [b"ID3\x03\0\0", &syncsafe[..], b"APIC"].concat();
        bytes.extend((content.len() as u32 + 1).to_be_bytes());
        bytes.extend([0, 0, 0]);
        bytes.extend(content);
        bytes.extend(fs::read(&plain).unwrap());
        bytes.extend([&b"TAG"[..], &[b' '; 125]].concat());
        let tagged = dir.path().join(name);
        fs::write(&tagged, bytes).unwrap();
        let found = probe_file(&tagged, &Limits::default()).unwrap();
        assert_eq!((found.frames, found.rate), (info.frames, info.rate), "{name}");
        for start in [0.0, 0.7, info.seconds - 0.3] {
            let crop = read(&tagged, start, 0.3, info.rate).unwrap();
            assert_eq!(crop, read(&plain, start, 0.3, info.rate).unwrap(), "{name} at {start} s");
        }
    }
}

/// What is remembered of a file must not outlive it.
#[test]
fn a_file_that_changes_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp3");
    for name in ["chirp.mp3", "vbr.mp3", "chirp.mp3"] {
        fs::copy(fixture(name), &path).unwrap();
        let rate = probe_file(&path, &Limits::default()).unwrap().rate;
        for _ in 0..2 {
            assert_eq!(read(&path, 1.0, 0.5, rate).unwrap(), read(&fixture(name), 1.0, 0.5, rate).unwrap());
        }
    }
}

#[test]
fn links_of_a_chain_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ogg");
    let chain = fs::read(fixture("chain.ogg")).unwrap();
    let other = fs::read(fixture("long.ogg")).unwrap();
    fs::write(&path, [chain.clone(), other].concat()).unwrap();
    assert_eq!(probe_file(&path, &Limits::default()).unwrap_err().kind, RejectKind::Unsupported);
    // Cut off in the headers of its last link.
    fs::write(&path, &chain[..chain.len() - 2000]).unwrap();
    assert_eq!(probe_file(&path, &Limits::default()).unwrap_err().kind, RejectKind::Truncated);
}

#[test]
fn addresses_are_parsed_and_printed() {
    let clip = "synth:v1?seed=17&index=3&seconds=12";
    let Source::Synth(spec) = Source::parse(clip).unwrap() else { panic!("not a synth clip") };
    assert_eq!((spec.seed, spec.index, spec.seconds), (17, 3, 12.0));
    assert_eq!(Source::parse(&Source::Synth(spec).uri()).unwrap(), Source::parse(clip).unwrap());
    assert_eq!(Source::parse("a/b.wav").unwrap(), Source::File("a/b.wav".into()));
    assert_eq!(Source::parse("file:///a/100%25%20b%.wav").unwrap(), Source::File("/a/100% b%.wav".into()));
    for bad in ["", "  ", "file://a.wav", "http://a/b.wav", "file:///%ff", "synth:v0"] {
        assert_eq!(Source::parse(bad).unwrap_err().kind, RejectKind::BadUri, "{bad}");
    }
}

#[test]
fn a_synth_source_is_read_like_a_file() {
    let source = Source::parse("synth:v1?seed=17&index=3&seconds=12").unwrap();
    assert_eq!(source.seconds().unwrap(), 12.0);
    assert_eq!(source.read(11.0, 1.0, 16_000).unwrap().frames(), 16_000);
    assert_eq!(source.read_mono(0.0, 1.0, 8000).unwrap().channels.len(), 1);
    assert_eq!(source.read(11.5, 1.0, 16_000).unwrap_err().kind, RejectKind::TooShort);
}

/// Whatever bytes are damaged, a probe and a read return: with audio of the right length or an error.
#[test]
fn damaged_files_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wav = dir.path().join("source.wav");
    write_sweep(&wav, 8000, 16_000, 1.0);
    let mut files: Vec<PathBuf> = [
        "chirp.flac",
        "chirp.mp3",
        "chirp.ogg",
        "long.ogg",
        "bare.mp3",
        "vbr.mp3",
        "chirp.m4a",
        "chain.ogg",
        "long.opus",
        "surround.opus",
    ]
    .map(fixture)
    .into();
    files.push(wav);
    let mut refused = 0;
    for (f, path) in files.iter().enumerate() {
        let good = fs::read(path).unwrap();
        let extension = path.extension().unwrap().to_str().unwrap();
        for round in 0..40 {
            let mut rng = Key::root(5).with(f as u64).with(round).rng();
            let mut bytes = good.clone();
            // Headers are hit as often as audio.
            let reach = if round % 2 == 0 { 400.min(bytes.len()) } else { bytes.len() };
            for _ in 0..1 + rng.below(12) {
                let at = rng.below(reach);
                bytes[at] = rng.next_u32() as u8;
            }
            if round % 5 == 0 {
                bytes.truncate(1 + rng.below(good.len()));
            }
            let damaged = dir.path().join(format!("damaged.{extension}"));
            fs::write(&damaged, &bytes).unwrap();
            let probed = probe_file(&damaged, &Limits::default());
            let crop = read(&damaged, 0.8, 0.4, 16_000);
            refused += usize::from(probed.is_err()) + usize::from(crop.is_err());
            if let Ok(crop) = crop {
                assert!(crop.is_finite() && crop.channels.iter().all(|c| c.len() == 6400));
            }
        }
    }
    assert!(refused > 100, "{refused}: the damage does not reach the decoders");
}

#[test]
fn time_spent_on_a_file_is_limited() {
    let path = Input::File(fixture("chirp.flac"));
    let limits = Limits::default();
    let span = || Span { first: 0, frames: 8000, needed: 0..8000 };
    let after = |seconds: u64| {
        guarded(&path, &limits, |watch| {
            let stream = Stream::open(&path, &limits, watch)?;
            // As if so much time had passed until now; 5 s are the most that one look at the clock counts.
            (0..=seconds).step_by(4).for_each(|s| watch.look_at(std::time::Duration::from_secs(s)));
            stream.decode(&span())
        })
    };
    assert_eq!(after(56).unwrap()[0].len(), 8000);
    let error = after(64).unwrap_err();
    assert_eq!(error.kind, RejectKind::OverLimit);
    assert!(error.message.contains("takes longer than 60 s"), "{}", error.message);
}

#[test]
fn what_is_taken_into_memory_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp3");
    let tag = [b"ID3\x03\0\0\0\x40\0\x0aAPIC\0\x10\0\0\0\0", &[0; 1 << 20][..]].concat();
    fs::write(&path, [tag, fs::read(fixture("chirp.mp3")).unwrap()].concat()).unwrap();
    let limits = Limits { max_step_bytes: 1 << 19, ..Limits::default() };
    let error = probe_file(&path, &limits).unwrap_err();
    assert_eq!(error.kind, RejectKind::OverLimit);
    assert!(error.message.contains("a header, a tag or a packet of more than 524288 bytes"), "{error}");
    assert!(probe_file(&path, &Limits::default()).is_ok());
}

#[test]
fn frames_out_of_nothing_are_limited() {
    // 28 frames per byte.
    let path = fixture("chirp.opus");
    let limits = |max_frames_per_byte| Limits { max_frames_per_byte, ..Limits::default() };
    let error = probe_file(&path, &limits(20)).unwrap_err();
    assert_eq!(error.kind, RejectKind::OverLimit);
    assert!(error.message.contains("frames decoded from 857 bytes"), "{error}");
    assert!(probe_file(&path, &limits(40)).is_ok());
}

/// An Ogg page (RFC 3533) of empty packets.
fn empty_page(serial: [u8; 4], granule: u64, sequence: u32) -> Vec<u8> {
    let granule = granule.to_le_bytes();
    let sequence = sequence.to_le_bytes();
    let mut page = [b"OggS\0\0", &granule[..], &serial, &sequence, &[0; 4], &[255], &[0; 255]].concat();
    let crc = page.iter().fold(0u32, |crc, byte| {
        (0..8).fold(crc ^ (u32::from(*byte) << 24), |crc, _| (crc << 1) ^ ((crc >> 31) * 0x04c1_1db7))
    });
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

#[test]
fn packets_without_audio_come_to_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ogg");
    for (name, length) in [("chirp.opus", 0.5), ("chirp.ogg", 4.0)] {
        let good = fs::read(fixture(name)).unwrap();
        let serial: [u8; 4] = good[14..18].try_into().unwrap();
        let pages = (0..400).map(|i| empty_page(serial, 1 << 40, 1000 + i));
        fs::write(&path, good.iter().copied().chain(pages.flatten()).collect::<Vec<u8>>()).unwrap();
        let end = read(&path, length - 0.1, 1.0, 16_000).map(|_| ()).unwrap_err();
        assert!([RejectKind::Corrupt, RejectKind::TooShort].contains(&end.kind), "{name}: {end}");
        let probed = probe_file(&path, &Limits::default());
        assert!(probed.is_err() || probed.is_ok_and(|info| (info.seconds - length).abs() < 0.1), "{name}");
    }
}
