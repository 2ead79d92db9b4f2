//! What the audio functions say of themselves.

use super::Op;
use crate::functions::Docs;

const RECORDING: (&str, &str) = (
    "uri",
    "The address of a recording, as in `clips.uri`: a path, `file://`, `s3://`, `gs://`, or `synth:` for a procedural \
     clip.",
);
const PART: [(&str, &str); 2] = [
    ("start", "Where to begin, in seconds; 0 if left out."),
    ("seconds", "How much to take, in seconds; all of the rest if left out."),
];
const SAMPLES: [(&str, &str); 3] = [
    (
        "audio",
        "Instead of a recording: samples, one channel after the other, as in the column `audio` of views.",
    ),
    ("rate", "The sample rate of `audio` in Hz."),
    ("channels", "The channels of `audio`; 1 if left out."),
];

/// What a function says of itself.
pub(super) fn of(op: Op) -> Docs {
    const MEASURED: &[(&str, &str)] = &[RECORDING, PART[0], PART[1], SAMPLES[0], SAMPLES[1], SAMPLES[2]];
    let (description, syntax, example, arguments): (_, _, _, &'static [(&str, &str)]) = match op {
        Op::Info => (
            "What a recording is, by its header and its end: a struct of container, codec, channels, rate (Hz), frames, \
                 seconds, bytes and error. Of a file that cannot be read all but error is NULL, and error says why. A \
                 procedural clip has no rate, frames or bytes.",
            "audio_info(uri)",
            "select uri, audio_info(uri)['rate'] as rate from clips;",
            &[RECORDING],
        ),
        Op::Error => (
            "Why a recording, or a part of it, cannot be used: decodes all of it and gives the reason. NULL if it is \
                 sound.",
            "audio_error(uri[, start, seconds])",
            "select uri, audio_error(uri) from clips where audio_error(uri) is not null;",
            &[RECORDING, PART[0], PART[1]],
        ),
        Op::Loudness => (
            "Integrated loudness in LUFS by ITU-R BS.1770-4, at the recording's own rate. NULL where nothing is above \
                 -70 LUFS, and for a recording that cannot be read: audio_error says why.",
            "loudness(uri[, start, seconds]) or loudness(audio, rate[, channels])",
            "select uri, loudness(uri) from clips order by 2 desc nulls last;",
            MEASURED,
        ),
        Op::Waveform => (
            "Statistics of the samples of all channels, a struct of peak, rms, dc (the mean), crest (peak over rms, NULL \
                 in silence), zero_crossing_rate (the share of neighbouring samples whose signs differ), silence_share (of \
                 the time, in blocks of 20 ms below -60 dBFS) and clipped_share (of the samples, at the full scale of 16 \
                 bits or beyond). NULL for a recording that cannot be read: audio_error says why.",
            "waveform_stats(uri[, start, seconds]) or waveform_stats(audio, rate[, channels])",
            "select uri from clips where waveform_stats(uri)['clipped_share'] > 0.001;",
            MEASURED,
        ),
        Op::Onsets => (
            "The onsets of notes and strokes, in seconds from the start of the recording, by spectral flux: SuperFlux \
                 (Böck and Widmer, DAFx 2013) of 80 mel bands at 16 kHz and 100 frames a second. NULL for a recording that \
                 cannot be read: audio_error says why.",
            "onsets(uri[, start, seconds]) or onsets(audio, rate[, channels])",
            "select onsets('synth:v1?seed=1&index=2&seconds=10');",
            MEASURED,
        ),
        Op::OnsetRate => (
            "Onsets a second, as onsets finds them. NULL for a recording that cannot be read: audio_error says why.",
            "onset_rate(uri[, start, seconds]) or onset_rate(audio, rate[, channels])",
            "select style, avg(onset_rate(uri, 0, 30)) from clips group by style;",
            MEASURED,
        ),
        Op::Mel => (
            "Log-mel frames in dB, 100 a second, as encoders read them: the mean of the channels at 16 kHz, a Hann window \
                 of 25 ms, bands of the HTK mel scale up to 8 kHz. A list of vectors. All results of a batch are in memory at \
                 the same time, about 40 kB for a second: take parts. NULL for a recording that cannot be read.",
            "mel(uri, start, seconds[, bands]) or mel(audio, rate[, bands, channels])",
            "select mel(uri, 10, 3) from clips limit 1;",
            &[
                RECORDING,
                PART[0],
                ("seconds", "How much to take, in seconds, at most 600."),
                ("bands", "A number: how many mel bands there are, at most 174; 96 if left out."),
                SAMPLES[0],
                SAMPLES[1],
                SAMPLES[2],
            ],
        ),
    };
    Docs { section: "Audio Functions", description, syntax, example, arguments }
}
