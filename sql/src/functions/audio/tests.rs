//! Recordings in files; the rest is in `tests/slt/audio.slt`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use loev_ops::wav::write_wav;

use crate::testing::{block_on, cells, session, values};
use crate::{new_session, query};

/// A folder with `a.wav` (stereo, 8 kHz, 3 s), a copy that is cut off, and a text.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tone = |amplitude: f32| -> Vec<f32> {
        (0..24_000).map(|i| amplitude * (i as f32 * std::f32::consts::TAU / 8.0).sin()).collect()
    };
    write_wav(&dir.path().join("a.wav"), 8_000, &[&tone(0.5), &tone(0.25)]).unwrap();
    let whole = std::fs::read(dir.path().join("a.wav")).unwrap();
    std::fs::write(dir.path().join("cut.wav"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no audio").unwrap();
    dir
}

#[test]
fn a_file_is_described_and_measured() {
    let dir = folder();
    let path = dir.path().join("a.wav").display().to_string();
    let rows = block_on(query(&session(), &format!("select audio_info('{path}') as info"))).unwrap();
    let info = rows[0].column(0).as_struct();
    let text = |name: &str| info.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    assert_eq!((text("container"), text("codec")), ("wave".to_owned(), "pcm_f32le".to_owned()));
    let number = |name: &str| info.column_by_name(name).unwrap().as_primitive::<Int32Type>().value(0);
    assert_eq!((number("channels"), number("rate")), (2, 8_000));
    assert_eq!(info.column_by_name("frames").unwrap().as_primitive::<Int64Type>().value(0), 24_000);
    assert_eq!(info.column_by_name("seconds").unwrap().as_primitive::<Float64Type>().value(0), 3.0);
    assert!(info.column_by_name("error").unwrap().is_null(0));

    let peak = |part: &str| values(&format!("select waveform_stats('{path}'{part})['peak']"))[0];
    assert_eq!(peak(""), Some(0.5));
    assert_eq!(peak(", 1, 0.5"), Some(0.5));
    assert_eq!(peak(", 2.9, 0.5"), None, "beyond its end");
    // Sines of 0.5 and 0.25: mean squares of 1/8 and 1/32.
    let rms = values(&format!("select waveform_stats('{path}')['rms']"))[0].unwrap();
    assert!((rms - (5.0f64 / 64.0).sqrt()).abs() < 1e-6, "{rms}");
    let part = values(&format!("select loudness('{path}', 1)"))[0].unwrap();
    let whole = values(&format!("select loudness('{path}')"))[0].unwrap();
    assert!((part - whole).abs() < 0.1 && (-15.0..-5.0).contains(&whole), "{part} {whole}");
}

#[test]
fn one_bad_file_ends_no_query() {
    let dir = folder();
    let place = dir.path().display();
    let context = new_session(2, None).unwrap();
    let sql = format!(
        "select name, loudness(uri) is null as silent, audio_error(uri) as error from \
         (select name, '{place}/' || name as uri from (values ('a.wav'), ('cut.wav'), ('notes.txt'), ('none.wav')) as t(name)) \
         order by name"
    );
    let rows = block_on(query(&context, &sql)).unwrap();
    let silent: Vec<bool> = rows.iter().flat_map(|b| b.column(1).as_boolean().iter().flatten()).collect();
    assert_eq!(silent, [false, true, true, true]);
    let errors: Vec<_> = rows
        .iter()
        .flat_map(|batch| batch.column(2).as_string::<i32>().iter().map(|e| e.map(str::to_owned)))
        .collect();
    assert_eq!(errors[0], None);
    for (error, want) in errors[1..].iter().zip(["ends before", "none.wav", "notes.txt"]) {
        assert!(error.as_ref().unwrap().contains(want), "{error:?}");
    }
}

#[test]
fn mel_frames_are_those_of_the_front_end() {
    let dir = folder();
    let path = dir.path().join("a.wav").display().to_string();
    let rows = block_on(query(&session(), &format!("select mel('{path}', 0.5, 1, 40)"))).unwrap();
    let list = rows[0].column(0).as_list::<i32>().value(0);
    let frames = list.as_fixed_size_list();
    assert_eq!((frames.len(), frames.value_length()), (101, 40));
    let source = loev_ops::source::Source::File(path.into());
    let audio = source.read_mono(0.5, 1.0, 16_000).unwrap();
    let front_end = loev_ops::features::FrontEnd { mels: 40, ..Default::default() };
    let mut want = vec![0.0; 101 * 40];
    loev_ops::features::LogMel::new(&front_end).compute(&audio.channels[0], &mut want);
    assert_eq!(frames.values().as_primitive::<Float32Type>().values().as_ref(), want);
}

#[test]
fn functions_know_themselves() {
    let sql =
        "select distinct function_type from information_schema.routines where routine_name = 'loudness'";
    assert_eq!(cells(sql), ["SCALAR"]);
    for function in super::all() {
        let docs = function.documentation().unwrap();
        assert!(docs.description.contains("NULL"), "{}", function.name());
        assert!(docs.arguments.as_ref().is_some_and(|arguments| !arguments.is_empty()));
    }
}
