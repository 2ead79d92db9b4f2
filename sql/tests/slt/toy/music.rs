//! Clips, their views, and the embeddings of both.

use super::*;

/// The columns of clips, for these clips.
pub(super) fn clips(of: &[usize]) -> Columns {
    let mut instruments = ListBuilder::new(StringBuilder::new());
    for clip in of {
        instruments.values().append_value("bass");
        if clip % 2 == 0 {
            instruments.values().append_value("drums");
        }
        instruments.append(true);
    }
    let beats = of.iter().map(|_| Some([0.5, 1.0].map(Some)));
    vec![
        ("clip_id", texts(of.iter().map(|clip| name(*clip)))),
        ("shard", ints(of.iter().map(|clip| (*clip % 2) as i32))),
        ("uri", texts(of.iter().map(|clip| format!("{}.wav", name(*clip))))),
        ("seconds", numbers(of.iter().map(|clip| if *clip == 11 { 2.0 } else { 10.0 }))),
        ("key", texts(of.iter().map(|clip| KEYS[clip % 3]))),
        ("mode", texts(of.iter().map(|clip| if clip % 3 == 2 { "minor" } else { "major" }))),
        ("bpm", numbers(of.iter().map(|clip| bpm(*clip)))),
        ("metre", texts(of.iter().map(|_| "4/4"))),
        ("style", texts(of.iter().map(|clip| if clip % 2 == 0 { "rock" } else { "jazz" }))),
        ("instruments", Arc::new(instruments.finish())),
        ("beats", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(beats))),
        (
            "split",
            texts(of.iter().map(|clip| {
                if *clip < 6 {
                    "train"
                } else if *clip < 8 {
                    "valid"
                } else {
                    "test"
                }
            })),
        ),
    ]
}

struct View {
    clip: usize,
    number: usize,
    semitones: f64,
    rate: f64,
}

fn drawn() -> Vec<View> {
    let of = |clip: usize| {
        let shifts = [-2.0, (clip % 4) as f64];
        let rates = [1.0, 1.1 + (clip % 3) as f64 / 10.0];
        (0..4).map(move |number| View {
            clip,
            number,
            semitones: shifts[number % 2],
            rate: rates[number / 2],
        })
    };
    (0..CLIPS).flat_map(of).collect()
}

/// The columns of views, for all of them.
pub(super) fn views() -> Columns {
    let views = drawn();
    let of: Vec<usize> = views.iter().map(|view| view.clip).collect();
    let on = || -> ArrayRef { Arc::new(BooleanArray::from(vec![true; views.len()])) };
    let odd = |view: &View| view.number % 2 == 1;
    // Groups: all of a clip; those of one shift; those of one rate.
    let groups = views.iter().map(|view| {
        let group = |part: usize| Some((view.clip * 10 + part) as i64);
        Some([group(0), group(1 + view.number % 2), group(3 + view.number / 2)])
    });
    let mut columns =
        vec![("view_id", texts(views.iter().map(|view| format!("{}:0:0:{}", name(view.clip), view.number))))];
    columns.extend(clips(&of));
    columns.extend([
        ("segment", ints(views.iter().map(|_| 0))),
        ("epoch", ints(views.iter().map(|_| 0))),
        ("view", ints(views.iter().map(|view| view.number as i32))),
        ("centre_s", numbers(views.iter().map(|_| 2.0))),
        (
            "draw_key",
            Arc::new(UInt64Array::from_iter_values((0..views.len()).map(|row| row as u64))) as ArrayRef,
        ),
        ("groups", Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(groups, 3))),
        (
            "pitch_shift",
            draw(vec![("applied", on()), ("semitones", numbers(views.iter().map(|view| view.semitones)))]),
        ),
        (
            "time_stretch",
            draw(vec![("applied", on()), ("rate", numbers(views.iter().map(|view| view.rate)))]),
        ),
        (
            "gain",
            draw(vec![
                ("applied", on()),
                ("db", numbers(views.iter().map(|view| -3.0 * view.number as f64))),
            ]),
        ),
        (
            "filter",
            draw(vec![
                ("applied", Arc::new(BooleanArray::from_iter(views.iter().map(|view| Some(odd(view)))))),
                ("kind", texts(views.iter().map(|_| "low_pass"))),
            ]),
        ),
    ]);
    columns
}

fn embedding(space: &str, clip: usize) -> [f64; 4] {
    let clip = if space == "invariant" && clip == 10 { 4 } else { clip };
    let mut place = [0.0; 4];
    let angle = clip as f64 / 20.0;
    match space {
        "pitch_shift" => (place[clip % 3], place[3]) = (1.0, clip as f64 / 100.0),
        "time_stretch" => (place[0], place[1]) = (angle.cos(), angle.sin()),
        _ => (place[clip % 2], place[2]) = (1.0, clip as f64 / 100.0),
    }
    place
}

/// Mean embeddings, and two segments that lie 0.1 to either side in the first place.
pub(super) fn embeddings() -> Columns {
    let rows: Vec<(&str, usize, Option<i32>)> = SPACES
        .into_iter()
        .flat_map(|space| {
            (0..CLIPS).flat_map(move |clip| [Some(0), Some(1), None].map(|segment| (space, clip, segment)))
        })
        .collect();
    let start = |segment: Option<i32>| segment.map(|segment| f64::from(segment) * 4.0);
    let vector = |(space, clip, segment): &(&str, usize, Option<i32>)| {
        let mut vector = embedding(space, *clip);
        vector[0] += segment.map_or(0.0, |segment| 0.1 - 0.2 * f64::from(segment));
        vector
    };
    vec![
        ("clip_id", texts(rows.iter().map(|(_, clip, _)| name(*clip)))),
        ("segment", Arc::new(Int32Array::from_iter(rows.iter().map(|(.., segment)| *segment)))),
        ("start_s", Arc::new(Float64Array::from_iter(rows.iter().map(|(.., segment)| start(*segment))))),
        ("subspace", texts(rows.iter().map(|(space, ..)| *space))),
        ("embedding", vectors(rows.iter().map(vector))),
    ]
}

/// Mel statistics that are the same for every clip.
pub(super) fn baseline() -> Columns {
    vec![
        ("clip_id", texts((0..CLIPS).map(name))),
        ("segment", Arc::new(Int32Array::from_iter((0..CLIPS).map(|_| None)))),
        ("start_s", Arc::new(Float64Array::from_iter((0..CLIPS).map(|_| None)))),
        ("subspace", texts((0..CLIPS).map(|_| "mel_baseline"))),
        ("embedding", vectors((0..CLIPS).map(|_| [1.0, 2.0]))),
    ]
}

pub(super) fn moved() -> Columns {
    let views = drawn();
    let rows: Vec<(&str, &View)> =
        views.iter().flat_map(|view| SPACES.into_iter().map(move |space| (space, view))).collect();
    let vector = |(space, view): &(&str, &View)| {
        let distance = match *space {
            "pitch_shift" => 0.1 * (view.semitones + 2.0),
            "time_stretch" => 0.05 * view.rate.ln() / 1.1f64.ln(),
            _ => 0.0,
        };
        let angle = (1.0 - distance).acos();
        [angle.cos(), angle.sin(), 0.0, 0.0]
    };
    let on = || -> ArrayRef { Arc::new(BooleanArray::from(vec![true; rows.len()])) };
    vec![
        ("view_id", texts(rows.iter().map(|(_, view)| format!("{}:0:0:{}", name(view.clip), view.number)))),
        ("clip_id", texts(rows.iter().map(|(_, view)| name(view.clip)))),
        ("segment", ints(rows.iter().map(|_| 0))),
        ("epoch", ints(rows.iter().map(|_| 0))),
        ("view", ints(rows.iter().map(|(_, view)| view.number as i32))),
        ("centre_s", numbers(rows.iter().map(|_| 2.0))),
        (
            "pitch_shift",
            draw(vec![
                ("applied", on()),
                ("semitones", numbers(rows.iter().map(|(_, view)| view.semitones))),
            ]),
        ),
        (
            "time_stretch",
            draw(vec![("applied", on()), ("rate", numbers(rows.iter().map(|(_, view)| view.rate)))]),
        ),
        ("subspace", texts(rows.iter().map(|(space, _)| *space))),
        ("embedding", vectors(rows.iter().map(vector))),
    ]
}

/// The neighbours of each test clip among the test clips, by the cosine of their embeddings.
pub(super) fn neighbours() -> Columns {
    let mut rows = Vec::new();
    for space in ["pitch_shift", "time_stretch"] {
        for query in TEST {
            let cosine = |other: usize| {
                let (a, b) = (embedding(space, query), embedding(space, other));
                let dot = |x: &[f64; 4], y: &[f64; 4]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
            };
            let mut others: Vec<usize> = TEST.filter(|other| *other != query).collect();
            others.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)));
            rows.extend(
                others.into_iter().zip(1..).map(|(other, rank)| (space, query, rank, other, cosine(other))),
            );
        }
    }
    vec![
        ("subspace", texts(rows.iter().map(|row| row.0))),
        ("query", texts(rows.iter().map(|row| name(row.1)))),
        ("clip_id", texts(rows.iter().map(|row| name(row.1)))),
        ("rank", ints(rows.iter().map(|row| row.2))),
        ("neighbour", texts(rows.iter().map(|row| name(row.3)))),
        ("similarity", Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.4 as f32)))),
    ]
}
