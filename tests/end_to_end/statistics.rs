//! Statistics of a data set as a stage, and training that uses them.

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;

use crate::support::{Workplace, errors, table};

const PIPELINE: &str = "
name: counted
stages:
  clips: { synth: { clips: 9, seconds: 6, shards: 3 } }
  views: { views: { from: clips, seconds: 2, epochs: 2, variant: [ {pitch_shift: {}} ] } }
  mels: { features: { from: views } }
  bands: { statistics: { from: views } }
  whole: { statistics: { from: clips, seconds: 3 } }
  model:
    train: { from: views, statistics: bands, method: loev, batch: 8, steps: 2,
             encoder: { vit: { dim: 16, depth: 1, heads: 1 } }, projection: [8] }
";

#[test]
fn statistics_are_those_of_the_features_and_training_goes_by_them() {
    let here = Workplace::new();
    here.write("p.yaml", PIPELINE);
    here.done(&["run", "p.yaml", "--out", "out", "--threads", "2"]);
    let out = here.path("out");

    let mels = table(&out, "mels");
    let features = mels.column_by_name("features").unwrap().as_fixed_size_list();
    let values = features.values().as_primitive::<Float32Type>().values();
    let frames = (values.len() / 96) as f64;
    let column = |name: &str| -> Vec<f64> {
        let bands = table(&out, "bands");
        let values = bands.column_by_name(name).unwrap().as_primitive::<Float32Type>();
        values.values().iter().map(|&x| f64::from(x)).collect()
    };
    let (mean, deviation) = (column("mean_db"), column("deviation_db"));
    assert_eq!((mean.len(), deviation.len()), (96, 96));
    for band in [0, 17, 95] {
        let of_band = || values.iter().skip(band).step_by(96).map(|&x| f64::from(x));
        let want = of_band().sum::<f64>() / frames;
        let spread = (of_band().map(|x| (x - want).powi(2)).sum::<f64>() / frames).sqrt();
        assert!((mean[band] - want).abs() < 1e-3, "{band}: {} {want}", mean[band]);
        assert!((deviation[band] - spread).abs() < 1e-3, "{band}: {} {spread}", deviation[band]);
    }
    let counted = here.sql("out", "select distinct frames from bands");
    assert_eq!(counted, [format!("{frames}")]);
    assert_eq!(here.sql("out", "select distinct frames from whole"), [format!("{}", 9 * 2 * 301)]);

    // Other statistics are another model; the same ones, from any number of threads, the same.
    let model = |run: &str| std::fs::read(here.path(run).join("checkpoints/model.safetensors")).unwrap();
    here.done(&["run", "p.yaml", "--out", "again", "--threads", "1"]);
    assert!(model("out") == model("again"));
    here.done(&["run", "p.yaml", "--out", "other", "--set", "stages.model.train.statistics=whole"]);
    assert!(model("out") != model("other"));
}

#[test]
fn statistics_of_another_front_end_are_refused() {
    let here = Workplace::new();
    here.write("p.yaml", PIPELINE);
    let refused = here.loev(&["check", "p.yaml", "--set", "stages.bands.statistics.front_end={hop: 320}"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(errors(&refused).contains("another front end"), "{}", errors(&refused));
}
