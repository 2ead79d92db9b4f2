//! Our side of the comparison with other libraries (see README.md): renders and times what it is told to.
//!
//! `cargo bench -p loev-ops --bench peers -- JOBS` reads one JSON object a line from the file `JOBS`, or from
//! standard input for `-`, and answers each with one line: `{}`, `{"seconds": [...]}` or `{"error": "..."}`.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use hound::WavReader;
use loev_ops::audio::Audio;
use loev_ops::chain::Chain;
use loev_ops::operator::{Kernel, Scratch, Warp};
use loev_ops::operators::find;
use loev_ops::render::Renderer;
use loev_ops::rng::Key;
use loev_ops::source::Source;
use loev_ops::views::{Draw, Pool, PoolClip, Pools};
use loev_ops::vocoder::Vocoder;
use loev_ops::wav::write_wav;
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome = Result<Value, Box<dyn std::error::Error>>;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Job {
    /// Says whether there is an operator of this name.
    Knows { operator: String },
    /// Changes pitch and tempo of a whole file: `round(frames / rate)` frames.
    Warp { input: PathBuf, output: PathBuf, semitones: f64, rate: f64 },
    /// Writes one view from the middle of a file.
    Render { output: PathBuf, view: View },
    /// The median seconds that a view from the middle of a file takes, for each of several draws. A chain of one
    /// operator on samples alone is timed as peers are: a copy of the audio, and the operator.
    Time { view: View, draws: u32, iterations: u32 },
}

/// What views are made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct View {
    input: PathBuf,
    chain: Chain,
    /// The second recording of each stage that the chain names.
    #[serde(default)]
    partners: BTreeMap<String, PathBuf>,
}

fn main() -> io::Result<()> {
    // Cargo adds `--bench`. Without a job, as when all benches run, there is nothing to do.
    let Some(jobs) = std::env::args().skip(1).find(|a| a != "--bench") else {
        println!("peers: no jobs given, see ops/benches/peers/README.md");
        return Ok(());
    };
    let lines: Box<dyn BufRead> =
        if jobs == "-" { Box::new(io::stdin().lock()) } else { Box::new(BufReader::new(File::open(jobs)?)) };
    let mut answers = io::stdout().lock();
    for line in lines.lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(run);
        writeln!(answers, "{}", answer.unwrap_or_else(|e| json!({ "error": e.to_string() })))?;
        answers.flush()?;
    }
    Ok(())
}

fn run(job: Job) -> Outcome {
    match job {
        Job::Knows { operator } => Ok(json!(find(&operator).is_some())),
        Job::Warp { input, output, semitones, rate } => {
            let audio = read(&input)?;
            let frames = (audio.frames() as f64 / rate).round() as usize;
            let mut out = vec![vec![0.0; frames]; audio.channels.len()];
            let warp = Warp { semitones, rate };
            Vocoder::new(audio.rate).process(&audio.channels, audio.frames() as f64 / 2.0, warp, &mut out);
            write(&output, &Audio { rate: audio.rate, channels: out })
        }
        Job::Render { output, view } => {
            let (source, pools) = (source(&view)?, pools(&view)?);
            let draw = draw(&view.chain, 0, &pools)?;
            write(&output, &Renderer::new(&view.chain)?.render(&source, &draw)?)
        }
        Job::Time { view, draws, iterations } => {
            let (source, pools) = (source(&view)?, pools(&view)?);
            let mut renderer = Renderer::new(&view.chain)?;
            let mut rendered = Audio { rate: source.rate, channels: Vec::new() };
            let mut seconds = Vec::new();
            let alone = match view.chain.operators().as_slice() {
                [only] if view.chain.variant.is_empty() => Some(only.def().kernel),
                _ => None,
            };
            let mut scratch = Scratch::default();
            for segment in 0..draws {
                let draw = draw(&view.chain, segment, &pools)?;
                renderer.render_into(&source, &draw, &mut rendered)?;
                let mut times = Vec::new();
                for _ in 0..iterations.max(1) {
                    let start = Instant::now();
                    if let (Some(Kernel::Samples(run)), Some(params)) = (alone, &draw.params[0]) {
                        rendered.channels.clone_from(&black_box(&source).channels);
                        run(black_box(&mut rendered), params, &mut Key::root(2).rng(), &mut scratch);
                        times.push(start.elapsed().as_secs_f64());
                        continue;
                    }
                    renderer.render_into(black_box(&source), &draw, black_box(&mut rendered))?;
                    times.push(start.elapsed().as_secs_f64());
                }
                times.sort_by(f64::total_cmp);
                seconds.push(times[times.len() / 2]);
            }
            Ok(json!({ "seconds": seconds }))
        }
    }
}

/// A draw of the chain; segments differ in their parameters.
fn draw(chain: &Chain, segment: u32, pools: &Pools) -> Result<Draw, Box<dyn std::error::Error>> {
    let draws = chain.draw_segment(Key::root(1), "peers", chain.read_seconds(), segment, 0, pools)?;
    draws.into_iter().next().ok_or_else(|| "the chain draws no view".into())
}

/// What a view of the chain reads, from the middle of the file.
fn source(view: &View) -> Result<Audio, Box<dyn std::error::Error>> {
    let (audio, chain) = (read(&view.input)?, &view.chain);
    let need = chain.read_frames();
    let start = audio.frames().checked_sub(need).ok_or_else(|| format!("a view reads {need} frames"))? / 2;
    let channels: Vec<_> = audio.channels.iter().map(|c| c[start..start + need].to_vec()).collect();
    if channels.len() != chain.channels.count() {
        return Err(format!("{} channels for {:?} views", channels.len(), chain.channels).into());
    }
    Ok(Audio { rate: audio.rate, channels })
}

/// One clip a stage.
fn pools(view: &View) -> Result<Pools, Box<dyn std::error::Error>> {
    let pool = |(stage, path): (&String, &PathBuf)| {
        let uri = path.display().to_string();
        let seconds = Source::parse(&uri)?.seconds()?;
        let clip = PoolClip { clip_id: uri.clone(), uri, seconds };
        Ok((stage.clone(), Pool::new(vec![clip])))
    };
    view.partners.iter().map(pool).collect()
}

fn read(path: &Path) -> Result<Audio, hound::Error> {
    let mut reader = WavReader::open(path)?;
    let spec = reader.spec();
    let samples = reader.samples::<f32>().collect::<Result<Vec<_>, _>>()?;
    let count = usize::from(spec.channels);
    let channel = |c: usize| samples.iter().skip(c).step_by(count).copied().collect();
    Ok(Audio { rate: spec.sample_rate, channels: (0..count).map(channel).collect() })
}

fn write(path: &Path, audio: &Audio) -> Outcome {
    let channels: Vec<&[f32]> = audio.channels.iter().map(Vec::as_slice).collect();
    write_wav(path, audio.rate, &channels)?;
    Ok(json!({}))
}
