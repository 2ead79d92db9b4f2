use std::fs;

use proptest::prelude::*;

use super::*;
use crate::rng::Key;
use crate::source::{Pieces, probe};
use crate::wav::write_wav;

const NAME: &str = "audio/pcm/shard-00000.pcm";

/// Noise of two channels, rounded to 16 bits, and a folder that holds it as samples behind 400 bytes of others, and as
/// a WAV.
fn stored(seconds: usize, rate: u32) -> (tempfile::TempDir, Source, Source, Audio) {
    let noise = |channel: u64| -> Vec<f32> {
        let mut rng = Key::root(channel).rng();
        (0..seconds * rate as usize).map(|_| rng.uniform(-0.99, 0.99) as f32).collect()
    };
    let (bytes, clipped) = encode_pcm(&Audio { rate, channels: vec![noise(1), noise(2)] });
    assert_eq!(clipped, 0);
    let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0;
    let channel = |i: usize| bytes.chunks_exact(2).skip(i).step_by(2).map(sample).collect::<Vec<f32>>();
    let audio = Audio { rate, channels: vec![channel(0), channel(1)] };
    let dir = tempfile::tempdir().unwrap();
    // A name that no other test has: roots are of the process.
    let name = format!("{}/{NAME}", dir.path().file_name().unwrap().to_string_lossy());
    let path = dir.path().join(&name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, [vec![7; 400], bytes].concat()).unwrap();
    let wav = dir.path().join("same.wav");
    write_wav(&wav, rate, &[&audio.channels[0], &audio.channels[1]]).unwrap();
    add_pcm_root(Source::File(dir.path().to_owned()));
    let pcm = Pcm::new(&name, 400, audio.frames() as u64, rate, 2).unwrap();
    (dir, Source::Pcm(pcm), Source::File(wav), audio)
}

#[test]
fn any_range_is_that_of_a_wav_with_these_samples() {
    let (_dir, pcm, wav, audio) = stored(3, 8000);
    for (start, seconds) in [(0.0, 3.0), (0.0, 0.5), (1.234, 1.0), (2.5, 0.5), (2.9999, 0.0001), (1.0, 0.0)] {
        for rate in [8000, 11_025, 4000] {
            for read in [Source::read, Source::read_mono] {
                let got = read(&pcm, start, seconds, rate).unwrap();
                assert_eq!(got, read(&wav, start, seconds, rate).unwrap(), "{start} {seconds} {rate}");
            }
        }
    }
    assert_eq!(pcm.read(0.0, 3.0, 8000).unwrap(), audio);
    assert_eq!(pcm.seconds().unwrap(), 3.0);
    let info = probe(&pcm, &Limits::default()).unwrap();
    assert_eq!((info.rate, info.channels, info.frames, info.bytes), (8000, 2, 24_000, 96_000));
    assert_eq!(info.digest, blake3::hash(&encode_pcm(&audio).0).to_hex().to_string());
    assert_eq!(pcm.read(2.5, 0.6, 8000).unwrap_err().kind, RejectKind::TooShort);
    assert_eq!(pcm.read(-1.0, 0.6, 8000).unwrap_err().kind, RejectKind::TooShort);
    assert_eq!(pcm.read(0.0, 0.6, 0).unwrap_err().kind, RejectKind::OverLimit);
}

#[test]
fn samples_round_to_the_nearest_step_and_what_is_beyond_is_counted() {
    let steps =
        [-32_768.0, -32_767.0, -1.0, 0.0, 1.0, 32_767.0, 0.6, -0.4, 32_767.6, -32_768.4, 40_000.0, -9e9];
    let samples = steps.map(|step| step / 32_768.0).to_vec();
    let (bytes, clipped) = encode_pcm(&Audio::mono(8000, samples));
    let got: Vec<i16> = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let full = [32_767, -32_768, 32_767, -32_768];
    assert_eq!(got, [&[-32_768, -32_767, -1, 0, 1, 32_767, 1, 0][..], &full].concat());
    assert_eq!(clipped, 3, "-32768.4 rounds to the last step");
    assert_eq!(encode_pcm(&Audio { rate: 8000, channels: Vec::new() }), (Vec::new(), 0));
}

#[test]
fn a_file_that_is_not_as_its_address_says_is_refused() {
    let (dir, pcm, ..) = stored(1, 8000);
    let Source::Pcm(samples) = &pcm else { panic!("not samples") };
    let path = dir.path().join(&samples.path);
    let kind = |source: &Source| source.read(0.0, 0.1, 8000).unwrap_err().kind;
    let whole = fs::read(&path).unwrap();
    for length in [0, 400, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(kind(&pcm), RejectKind::Truncated, "{length} bytes");
        assert_eq!(probe(&pcm, &Limits::default()).unwrap_err().kind, RejectKind::Truncated);
    }
    let last = Source::Pcm(Pcm { offset: (i64::MAX as u64 - 1_000_000) & !3, ..samples.clone() });
    assert_eq!(kind(&last), RejectKind::Truncated);
    fs::remove_file(&path).unwrap();
    assert_eq!(kind(&pcm), RejectKind::Missing);
    fs::create_dir(&path).unwrap();
    assert_eq!(kind(&pcm), RejectKind::Io);
}

#[test]
fn addresses_that_make_no_sense_are_refused() {
    let good = "pcm:audio/a.pcm?offset=4&frames=10&rate=8000&channels=2";
    assert_eq!(Source::parse(good).unwrap().uri(), good);
    let bad = [
        ("audio/a.pcm", "/etc/passwd"),
        ("audio/a.pcm", "../a.pcm"),
        ("audio/a.pcm", "audio/../../a.pcm"),
        ("audio/a.pcm", "./a.pcm"),
        ("audio/a.pcm", ""),
        ("?", "/"),
        ("offset=4", "offset=-4"),
        ("offset=4", "offset=2"),
        ("offset=4", "offset=9223372036854775804"),
        ("offset=4", "offset=18446744073709551612"),
        ("offset=4&", ""),
        ("frames=10", "frames=0"),
        ("frames=10", "frames=18446744073709551615"),
        ("frames=10", "frames=1e3"),
        ("rate=8000", "rate=0"),
        ("rate=8000", "rate=4294967296"),
        ("rate=8000", "rate=1000"),
        ("channels=2", "channels=0"),
        ("channels=2", "channels=33"),
        ("channels=2", "channels=2&channels=2"),
        ("channels=2", "channels=2&gain=3"),
        ("channels=2", "channels"),
    ];
    for (from, to) in bad {
        let uri = good.replace(from, to);
        assert_eq!(Source::parse(&uri).unwrap_err().kind, RejectKind::BadUri, "{uri}");
    }
}

#[test]
fn pieces_join_to_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    let samples: Vec<f32> = (0..44_100 * 47 + 333).map(|i| (i as f32 * 0.031).sin() * 0.4).collect();
    write_wav(&path, 44_100, &[&samples]).unwrap();
    let source = Source::File(path);
    let pieces = Pieces::new(&source, 0.0, None, Some(16_000)).unwrap();
    let mut joined = Vec::new();
    for (start_s, seconds) in pieces {
        joined.extend(source.read(start_s, seconds, 16_000).unwrap().to_mono());
    }
    assert_eq!(joined.len(), (samples.len() as f64 * 16_000.0 / 44_100.0) as usize);
    let whole = source.read(0.0, joined.len() as f64 / 16_000.0, 16_000).unwrap().to_mono();
    let worst = joined.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
}

proptest! {
    #[test]
    fn addresses_are_read_back(
        path in "[a-z0-9_./&=-]{1,30}",
        (offset, frames) in (0..1_u64 << 62, 1..1_u64 << 40),
        rate in 1..500_000_u32,
        channels in 0..40_u16,
    ) {
        // What cannot be is refused; what can be is read back.
        if let Ok(samples) = Pcm::new(&path, offset - offset % 64, frames, rate, channels) {
            prop_assert_eq!(Pcm::parse(&samples.uri()), Ok(samples));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[pcm:a/?&=0-9ofsetramhnl.-]{0,60}", number in any::<u64>()) {
        let _ = Pcm::parse(&format!("pcm:{text}"));
        let uri = format!("pcm:a?offset={number}&frames={number}&rate=8000&channels=1{text}");
        if let Ok(samples) = Pcm::parse(&uri) {
            prop_assert!(Source::Pcm(samples).read(0.0, 0.1, 8000).is_err());
        }
    }
}
