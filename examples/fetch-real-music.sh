#!/usr/bin/env bash
# Fills a folder with about six hours of real, freely licensed game soundtracks from Debian packages:
# OGG Vorbis as shipped, and two of three tracks encoded anew as MP3 or FLAC, so that every decoder is used.
# Needs Debian or Ubuntu (apt-get, dpkg-deb) and ffmpeg. Licences differ by track (GPL, CC-BY-SA, ...): use
# them, do not redistribute them with your own work without a look at /usr/share/doc of each package.
#
#   examples/fetch-real-music.sh [FOLDER]      (default: examples/music)
set -euo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/music}")
packages=(wesnoth-1.16-music supertux-data colobot-common-sounds singularity-music)
shortest=30 # seconds

for tool in apt-get dpkg-deb ffmpeg ffprobe; do
  command -v "$tool" >/dev/null || { echo "$0: needs $tool" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
count=0
for package in "${packages[@]}"; do
  echo "== $package"
  (cd "$work" && apt-get download "$package" >/dev/null) || { echo "skipped: not in your package lists (apt-get update?)"; continue; }
  dpkg-deb -x "$work/$package"_*.deb "$work/$package"
  rm "$work/$package"_*.deb
  while IFS= read -r -d '' track; do
    seconds=$(ffprobe -v error -show_entries format=duration -of csv=p=0 "$track" || echo 0)
    awk -v s="$seconds" -v m="$shortest" 'BEGIN { exit !(s + 0 >= m) }' || continue
    mkdir -p "$folder/$package"
    name="$folder/$package/$(basename "${track%.*}")"
    case $((count % 3)) in
      0) cp "$track" "$name.ogg" ;;
      1) ffmpeg -v error -y -i "$track" -map 0:a -c:a libmp3lame -q:a 2 "$name.mp3" </dev/null ;;
      2) ffmpeg -v error -y -i "$track" -map 0:a -c:a flac "$name.flac" </dev/null ;;
    esac
    count=$((count + 1))
  done < <(find "$work/$package" -type f -name '*.ogg' -print0 | sort -z)
  rm -rf "${work:?}/$package"
done
echo "$count tracks in $folder"
