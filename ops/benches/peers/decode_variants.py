#!/usr/bin/env python3
"""Encodes audio files of one's own into the formats that decoders stumble over.

    decode_variants.py OUT FILE_OR_FOLDER...

Takes 40 to 90 s of each input in turn and writes the next kind of the list below, until every kind has
been made from a few inputs. Needs ffmpeg with libmp3lame, libvorbis and libopus.
"""

import random
import subprocess
import sys
from pathlib import Path

# name, extension, how many, arguments of ffmpeg
KINDS = [
    ("mp3-cbr128", "mp3", 6, "-ac 2 -ar 44100 -c:a libmp3lame -b:a 128k"),
    ("mp3-cbr320", "mp3", 3, "-ac 2 -ar 48000 -c:a libmp3lame -b:a 320k"),
    ("mp3-vbr-v0", "mp3", 5, "-ac 2 -ar 44100 -c:a libmp3lame -q:a 0"),
    ("mp3-vbr-v5", "mp3", 5, "-ac 2 -ar 44100 -c:a libmp3lame -q:a 5"),
    ("mp3-vbr-v9-mono", "mp3", 3, "-ac 1 -ar 22050 -c:a libmp3lame -q:a 9"),
    ("mp3-8k", "mp3", 2, "-ac 1 -ar 8000 -c:a libmp3lame -b:a 16k"),
    ("mp3-no-tag-vbr", "mp3", 4, "-ac 2 -ar 44100 -c:a libmp3lame -q:a 4 -write_xing 0"),
    ("mp3-big-id3", "mp3", 4, "-ac 2 -ar 44100 -c:a libmp3lame -q:a 2"),
    ("mp2", "mp2", 2, "-ac 2 -ar 48000 -c:a mp2 -b:a 192k"),
    ("flac-24-96k", "flac", 4, "-ac 2 -ar 96000 -sample_fmt s32 -bits_per_raw_sample 24 -c:a flac"),
    ("flac-24-192k", "flac", 2, "-ac 2 -ar 192000 -sample_fmt s32 -bits_per_raw_sample 24 -c:a flac"),
    ("flac-16-8k", "flac", 3, "-ac 1 -ar 8000 -sample_fmt s16 -c:a flac"),
    ("flac-8ch", "flac", 3, "-af pan=7.1|c0=c0|c1=c1|c2=0.5*c0|c3=0.1*c1|c4=0.2*c0|c5=0.3*c1|c6=-1*c0|c7=-1*c1 -sample_fmt s16 -c:a flac"),
    ("wav-16", "wav", 4, "-c:a pcm_s16le"),
    ("wav-24", "wav", 4, "-c:a pcm_s24le"),
    ("wav-float", "wav", 4, "-c:a pcm_f32le"),
    ("wav-8ch-192k", "wav", 2, "-t 10 -ar 192000 -af pan=7.1|c0=c0|c1=c1|c2=0.5*c0|c3=0.1*c1|c4=0.2*c0|c5=0.3*c1|c6=-1*c0|c7=-1*c1 -c:a pcm_s24le"),
    ("aiff-16", "aiff", 3, "-c:a pcm_s16be"),
    ("aiff-24", "aiff", 3, "-c:a pcm_s24be"),
    ("alac-16", "m4a", 4, "-sample_fmt s16p -c:a alac"),
    ("alac-24", "m4a", 3, "-ar 96000 -sample_fmt s32p -c:a alac"),
    ("aac-128", "m4a", 6, "-ac 2 -ar 44100 -c:a aac -b:a 128k -aac_pns 0"),
    ("aac-noise", "m4a", 3, "-ac 2 -ar 44100 -c:a aac -b:a 64k"),
    ("aac-mono", "m4a", 3, "-ac 1 -ar 22050 -c:a aac -b:a 48k -aac_pns 0"),
    ("aac-raw", "aac", 2, "-ac 2 -ar 44100 -c:a aac -b:a 128k -aac_pns 0"),
    ("vorbis-8k", "ogg", 3, "-ac 1 -ar 8000 -c:a libvorbis -q:a 2"),
    ("vorbis-96k", "ogg", 3, "-ac 2 -ar 96000 -c:a libvorbis -q:a 6"),
    ("vorbis-6ch", "ogg", 3, "-af pan=5.1|c0=c0|c1=c1|c2=0.5*c0|c3=0.1*c1|c4=0.2*c0|c5=0.3*c1 -ar 48000 -c:a libvorbis -q:a 3"),
    ("vorbis-chained", "ogg", 4, "-ac 2 -ar 44100 -c:a libvorbis -q:a 4"),
    ("vorbis-mkv", "mka", 2, "-ac 2 -ar 44100 -c:a libvorbis -q:a 4"),
    ("opus-64", "opus", 5, "-ac 2 -c:a libopus -b:a 64k"),
    ("opus-24-mono", "opus", 4, "-ac 1 -c:a libopus -b:a 24k"),
    ("opus-12-voip", "opus", 3, "-ac 1 -c:a libopus -b:a 12k -application voip -frame_duration 60"),
    ("opus-6ch", "opus", 3, "-af pan=5.1|c0=c0|c1=c1|c2=0.5*c0|c3=0.1*c1|c4=0.2*c0|c5=0.3*c1 -c:a libopus -mapping_family 1 -b:a 256k"),
    ("opus-chained", "opus", 3, "-ac 2 -c:a libopus -b:a 96k"),
    ("opus-webm", "webm", 2, "-ac 2 -c:a libopus -b:a 96k"),
    ("flac-in-ogg", "ogg", 2, "-sample_fmt s16 -c:a flac -f ogg"),
]


def ffmpeg(source: Path, start: float, seconds: float, arguments: str, out: Path) -> None:
    # By way of a WAV, so that no time stamp of the source gets into the result.
    wav = out.with_suffix(".tmp.wav")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-ss", f"{start:.3f}", "-t", f"{seconds:.3f}"]
    command += ["-i", str(source), "-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32le", str(wav)]
    subprocess.run(command, check=True)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", str(wav), *arguments.split(), str(out)]
    subprocess.run(command, check=True)
    wav.unlink()


def id3_of_megabytes() -> bytes:
    """An ID3v2.3 tag with a 3 MB picture full of what looks like MPEG frame headers."""
    picture = b"\x00image/jpeg\x00\x03\x00" + b"\xff\xfb\x90\x64" * 786_432
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\x00\x00" + picture
    size = len(frame)
    syncsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + syncsafe + frame


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    inputs = []
    for name in map(Path, sys.argv[2:]):
        inputs += sorted(p for p in name.rglob("*") if p.suffix in (".flac", ".ogg", ".mp3", ".opus", ".wav")) \
            if name.is_dir() else [name]
    rng = random.Random(1)
    rng.shuffle(inputs)
    at = 0
    for kind, extension, count, arguments in KINDS:
        for i in range(count):
            source = inputs[at % len(inputs)]
            at += 1
            target = out / f"{kind}-{i}.{extension}"
            seconds = rng.uniform(40, 90)
            if target.exists():
                continue
            if kind.endswith("chained"):
                parts = []
                for part in range(2 + i % 2):
                    piece = out / f"part-{part}.{extension}"
                    ffmpeg(source, 20 * part, seconds / 3 + part, arguments, piece)
                    parts.append(piece)
                target.write_bytes(b"".join(p.read_bytes() for p in parts))
                for piece in parts:
                    piece.unlink()
                continue
            ffmpeg(source, 5, seconds, arguments, target)
            if kind == "mp3-big-id3":
                target.write_bytes(id3_of_megabytes() + target.read_bytes())


if __name__ == "__main__":
    main()
