#!/usr/bin/env bash
# Writes the seeds of `decode`: synthesised sound, one file per container and codec. Needs ffmpeg.
set -euo pipefail
cd "$(dirname "$0")/decode"

# make NAME RATE CHANNELS SECONDS OPTIONS...
make() {
    local name=$1 rate=$2 channels=$3 seconds=$4
    shift 4
    ffmpeg -nostdin -v error -y -f lavfi -i "sine=f=330:r=$rate:d=$seconds" \
        -f lavfi -i "anoisesrc=c=pink:a=0.1:r=$rate:d=$seconds:s=7" \
        -filter_complex "amix=2:duration=first,aresample=$rate" -ac "$channels" -ar "$rate" \
        -fflags +bitexact -flags:a +bitexact "$@" "$name"
}

make pcm-u8.wav 8000 1 0.3 -c:a pcm_u8
make pcm-16.wav 16000 1 0.3
make pcm-24.wav 8000 2 0.3 -c:a pcm_s24le
make pcm-f32.wav 8000 2 0.3 -c:a pcm_f32le
make alaw.wav 8000 1 0.3 -c:a pcm_alaw
make adpcm-ms.wav 16000 1 0.3 -c:a adpcm_ms
make adpcm-ima.wav 16000 2 0.3 -c:a adpcm_ima_wav
make pcm-16.aiff 8000 1 0.3
make pcm-float.aiff 8000 2 0.2 -c:a pcm_f32be
make mono.flac 16000 1 0.5 -metadata title=Noise
make stereo-24.flac 8000 2 0.5 -c:a flac -sample_fmt s32
make in-ogg.oga 8000 2 0.5 -c:a flac -f ogg
make cbr.mp3 22050 2 0.6 -b:a 32k -write_xing 0 -id3v2_version 0
make vbr.mp3 22050 1 0.6 -q:a 7 -metadata title=Noise -id3v2_version 3 -write_id3v1 1
make mpeg1.mp3 44100 2 0.4 -b:a 64k
make layer2.mp2 24000 1 0.5 -b:a 32k
make vorbis.ogg 16000 1 0.6 -c:a libvorbis -q:a 0
make vorbis-stereo.ogg 22050 2 0.4 -c:a libvorbis -q:a 0
make opus.opus 48000 1 0.6 -c:a libopus -b:a 16k
make opus-voice.opus 48000 1 0.6 -c:a libopus -b:a 8k -application voip
make opus-surround.opus 48000 6 0.4 -c:a libopus -b:a 96k -mapping_family 1
make aac.m4a 22050 1 0.6 -c:a aac -b:a 32k
make aac-fast.m4a 22050 2 0.6 -c:a aac -b:a 32k -movflags +faststart
make aac-fragments.m4a 22050 1 0.6 -c:a aac -b:a 32k -movflags frag_keyframe+empty_moov
make opus.mp4 48000 1 0.4 -c:a libopus -b:a 16k
make flac.mp4 8000 1 0.3 -c:a flac -strict -2
make alac.m4a 8000 2 0.4 -c:a alac
make raw.aac 22050 1 0.6 -c:a aac -b:a 32k -f adts
make vorbis.mka 16000 1 0.5 -c:a libvorbis -q:a 0
make opus.webm 48000 1 0.5 -c:a libopus -b:a 16k
make flac.mka 8000 1 0.4 -c:a flac
make aac.mka 22050 1 0.4 -c:a aac -b:a 32k
make pcm.caf 8000 1 0.2 -c:a pcm_s16be
cat vorbis.ogg vorbis.ogg > same-serials.ogg
cat mono.flac opus.opus > glued.flac
ffmpeg -nostdin -v error -y -i vorbis.ogg -c copy -serial_offset 7 -fflags +bitexact next.ogg
cat vorbis.ogg next.ogg > chain.ogg
rm next.ogg
