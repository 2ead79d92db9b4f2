//! Opus (RFC 6716) as a codec of symphonia's: symphonia reads the containers, opus-pure the packets.
//!
//! Opus always runs at 48 kHz here. The header's output gain is applied, as RFC 7845 section 5.1 asks.
//! The encoder's delay ("pre-skip") is the container's business: see [`pre_skip`].

use opus_pure::{MAX_PACKET_SAMPLES, OpusDecoder, OpusMSDecoder};
use symphonia::core::audio::{
    AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef,
};
use symphonia::core::codecs::CodecInfo;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{
    AudioCodecParameters, AudioDecoder, AudioDecoderOptions, FinalizeResult,
};
use symphonia::core::codecs::registry::{RegisterableAudioDecoder, SupportedAudioCodec};
use symphonia::core::errors::{Error, Result};
use symphonia::core::packet::PacketRef;

/// Opus counts in frames of this rate, whatever went into the encoder.
const RATE: u32 = 48_000;

static CODECS: [SupportedAudioCodec; 1] = [SupportedAudioCodec {
    id: CODEC_ID_OPUS,
    info: CodecInfo { short_name: "opus", long_name: "Opus", profiles: &[] },
}];

/// One stream of one or two channels, or several in one packet, which make up to eight.
enum Inner {
    One(Box<OpusDecoder>),
    Many(Box<OpusMSDecoder>),
}

/// An Opus decoder that symphonia's registry can make.
pub(super) struct Decoder {
    params: AudioCodecParameters,
    channels: usize,
    inner: Inner,
    /// Where each channel goes.
    order: &'static [usize],
    interleaved: Vec<f32>,
    buffer: AudioBuffer<f32>,
}

/// The place of each channel among those of a WAV, for streams of three to eight: Opus keeps the order of
/// Vorbis (Vorbis I, 4.3.9), where the centre comes second and the bass last.
const ORDERS: [&[usize]; 6] = [
    &[0, 2, 1],
    &[0, 1, 2, 3],
    &[0, 2, 1, 3, 4],
    &[0, 2, 1, 4, 5, 3],
    &[0, 2, 1, 5, 6, 4, 3],
    &[0, 2, 1, 6, 7, 4, 5, 3],
];

/// What the identification header says (RFC 7845 section 5.1).
struct Head<'a> {
    channels: u8,
    pre_skip: u16,
    /// In 1/256 dB.
    gain: i16,
    family: u8,
    streams: u8,
    coupled: u8,
    mapping: &'a [u8],
}

/// The header from the codec's parameters. In MP4 the same fields are stored big end first and with a
/// version of 0.
fn head(params: &AudioCodecParameters) -> Option<Head<'_>> {
    let bytes = params.extra_data.as_deref()?.strip_prefix(b"OpusHead")?;
    let &[version, channels, skip_0, skip_1, _, _, _, _, gain_0, gain_1, family, ref rest @ ..] = bytes
    else {
        return None;
    };
    let short = if version == 0 { u16::from_be_bytes } else { u16::from_le_bytes };
    let (streams, coupled, mapping) = match (family, rest) {
        (0, _) => (1, channels.checked_sub(1)?, &[][..]),
        (_, [streams, coupled, mapping @ ..]) => (*streams, *coupled, mapping.get(..usize::from(channels))?),
        _ => return None,
    };
    Some(Head {
        channels,
        pre_skip: short([skip_0, skip_1]),
        gain: short([gain_0, gain_1]).cast_signed(),
        family,
        streams,
        coupled,
        mapping,
    })
}

/// Frames at 48 kHz before the first one to be heard, 0 where there is no header.
pub(super) fn pre_skip(params: &AudioCodecParameters) -> i64 {
    head(params).map_or(0, |h| i64::from(h.pre_skip))
}

impl Decoder {
    fn new(params: &AudioCodecParameters) -> Result<Self> {
        let head = head(params).ok_or(Error::DecodeError("opus: no valid identification header"))?;
        let channels = usize::from(head.channels);
        let failed = |_| Error::Unsupported("opus: this channel mapping");
        let rate = RATE as i32;
        let gain = i32::from(head.gain);
        let inner = if head.family == 0 {
            let mut one = OpusDecoder::new(rate, channels).map_err(failed)?;
            one.gain_q8 = gain;
            Inner::One(Box::new(one))
        } else {
            let mut many = OpusMSDecoder::new(rate, channels, head.family).map_err(failed)?;
            let layout = many.layout();
            // The standard layouts are known to the decoder, others it cannot be told of.
            if layout.mapping.as_slice() != head.mapping
                || layout.nb_streams != usize::from(head.streams)
                || layout.nb_coupled_streams != usize::from(head.coupled)
            {
                return Err(Error::Unsupported("opus: this channel mapping"));
            }
            for stream in many.streams_mut() {
                stream.gain_q8 = gain;
            }
            Inner::Many(Box::new(many))
        };
        let spec = AudioSpec::new(RATE, Channels::Discrete(u16::from(head.channels)));
        Ok(Self {
            params: params.clone(),
            channels,
            inner,
            order: channels.checked_sub(3).and_then(|n| ORDERS.get(n)).map_or(&[0, 1], |order| order),
            interleaved: vec![0.0; MAX_PACKET_SAMPLES * channels],
            buffer: AudioBuffer::new(spec, MAX_PACKET_SAMPLES),
        })
    }
}

impl AudioDecoder for Decoder {
    fn reset(&mut self) {
        // Resetting in place cannot fail for a decoder that could be made.
        let _ = match &mut self.inner {
            Inner::One(one) => one.reset_state(),
            Inner::Many(many) => many.reset_state(),
        };
    }

    fn codec_info(&self) -> &CodecInfo {
        &CODECS[0].info
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.params
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
        self.buffer.clear();
        // An empty packet would be taken for a lost one, and concealed.
        if packet.data.is_empty() {
            return Err(Error::DecodeError("opus: an empty packet"));
        }
        let decoded = match &mut self.inner {
            Inner::One(one) => one.decode(packet.data, MAX_PACKET_SAMPLES, &mut self.interleaved),
            Inner::Many(many) => many.decode(packet.data, MAX_PACKET_SAMPLES, &mut self.interleaved),
        };
        let frames = decoded.map_err(|_| Error::DecodeError("opus: a packet that is not valid"))?;
        self.buffer.render_uninit(Some(frames));
        for (c, place) in self.order.iter().enumerate().take(self.channels) {
            let samples = self.interleaved.iter().skip(c).step_by(self.channels);
            if let Some(plane) = self.buffer.plane_mut(*place) {
                plane.iter_mut().zip(samples).for_each(|(to, from)| *to = *from);
            }
        }
        Ok(self.buffer.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.buffer.as_generic_audio_buffer_ref()
    }
}

impl RegisterableAudioDecoder for Decoder {
    fn try_registry_new(
        params: &AudioCodecParameters,
        _options: &AudioDecoderOptions,
    ) -> Result<Box<dyn AudioDecoder>> {
        Ok(Box::new(Self::new(params)?))
    }

    fn supported_codecs() -> &'static [SupportedAudioCodec] {
        &CODECS
    }
}
