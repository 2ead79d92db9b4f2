//! The sound of clips, short and small, as pages play it.

use loev_ops::AudioError;
use loev_ops::opus;
use loev_ops::source::Source;

use crate::error::RunError;
use crate::exec::pool::Pool;
use crate::run::interrupt::Interrupt;
use crate::spec::stage::{Report, Sound};

/// Bits a second: music of one channel is pleasant to hear.
const BITS: u32 = 24_000;
/// Bytes of a file beside its sound.
const HEADER: f64 = 600.0;
/// Clips under way for each thread.
const AHEAD: usize = 4;

/// A clip that may be heard.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Where its audio is.
    pub uri: String,
    /// How long it is, if that is known.
    pub seconds: Option<f64>,
}

/// What came of the clips, by their numbers.
#[derive(Debug, Default)]
pub struct Sounds {
    /// Files: Ogg Opus.
    pub files: Vec<(usize, Vec<u8>)>,
    /// Clips that cannot be read, and why.
    pub failed: Vec<(usize, String)>,
    /// Clips for which there was no room.
    pub left_out: usize,
}

/// Reads the middle of each clip that there is room for.
///
/// # Errors
/// When the user asked to stop.
pub async fn sounds(
    clips: &[Clip],
    options: &Report,
    pool: &Pool,
    interrupt: &Interrupt,
) -> Result<Sounds, RunError> {
    let mut sounds = Sounds::default();
    let room = match options.audio {
        Sound::None => 0.0,
        Sound::Inline => options.audio_mb * 1e6,
        Sound::Beside => f64::INFINITY,
    };
    // In base64 three bytes take four.
    let each = (options.audio_seconds * f64::from(BITS) / 8.0 + HEADER) * 4.0 / 3.0;
    let count = clips.len().min((room / each) as usize);
    let chosen: Vec<usize> = (0..count).map(|i| i * clips.len() / count).collect();
    let mut used = 0.0;
    for window in chosen.chunks(AHEAD * pool.threads()) {
        interrupt.check()?;
        let answers: Vec<_> = window
            .iter()
            .map(|number| {
                let (clip, seconds) = (clips[*number].clone(), options.audio_seconds);
                (*number, pool.submit(move || excerpt(&clip, seconds)))
            })
            .collect();
        for (number, answer) in answers {
            match answer.await.map_err(|_| RunError::Interrupted)? {
                Ok(Ok(file)) => {
                    let bytes = file.len() as f64 * 4.0 / 3.0;
                    // What was foretold is a mean.
                    if used + bytes <= room {
                        used += bytes;
                        sounds.files.push((number, file));
                    }
                }
                Ok(Err(error)) => sounds.failed.push((number, error.to_string())),
                Err(panic) => sounds.failed.push((number, format!("reading it panicked: {panic}"))),
            }
        }
    }
    sounds.left_out = clips.len() - sounds.files.len() - sounds.failed.len();
    Ok(sounds)
}

/// The middle of a clip.
fn excerpt(clip: &Clip, seconds: f64) -> Result<Vec<u8>, AudioError> {
    let source = Source::parse(&clip.uri)?;
    let whole = match clip.seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0) {
        Some(whole) => whole,
        None => source.seconds()?,
    };
    let length = seconds.min(whole);
    let audio = source.read_mono((whole - length) / 2.0, length, opus::RATE)?;
    opus::encode(&audio.to_mono(), BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_stay_within_their_room() {
        let pool = Pool::new(2).unwrap();
        let synth = |index: u32| format!("synth:v1?seed=1&index={index}&seconds=3");
        let mut clips: Vec<Clip> = (0..10).map(|i| Clip { uri: synth(i), seconds: Some(3.0) }).collect();
        clips[3].uri = "/no/such/file.wav".to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let heard = |options: &Report| {
            runtime.block_on(sounds(&clips, options, &pool, &Interrupt::default())).unwrap()
        };

        let all = heard(&Report { audio_seconds: 1.0, ..Report::default() });
        assert_eq!((all.files.len(), all.failed.len(), all.left_out), (9, 1, 0));
        assert!(all.failed[0].1.contains("file.wav"), "{:?}", all.failed);
        assert!(all.files.iter().all(|(_, file)| file.starts_with(b"OggS")));
        let bytes = |sounds: &Sounds| sounds.files.iter().map(|(_, file)| file.len() * 4 / 3).sum::<usize>();
        let mb = 0.5 * bytes(&all) as f64 / 1e6;
        let some = heard(&Report { audio_seconds: 1.0, audio_mb: mb, ..Report::default() });
        assert!(
            (2..6).contains(&some.files.len()) && bytes(&some) as f64 <= mb * 1e6,
            "{}",
            some.files.len()
        );
        assert_eq!(some.files.len() + some.failed.len() + some.left_out, 10);
        let none = heard(&Report { audio: Sound::None, ..Report::default() });
        assert_eq!((none.files.len(), none.failed.len(), none.left_out), (0, 0, 10));
    }
}
