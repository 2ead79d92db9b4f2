//! Does a subspace follow a factor? Two questions to pairs of views of one segment.
//!
//! * **What was done?** The difference of a parameter between two views is predicted from their two embeddings. A linear
//!   prediction that changes its sign when the views are swapped, as the difference does, is one from the difference of
//!   the embeddings; so that is the input.
//! * **What will it do?** The embedding of one view is predicted from that of the other and the difference of
//!   the parameters, `z_b = z_a + f(z_a, d, d z_a)` with `f` linear: a shift may act differently on different music. The
//!   figure is the share of the squared distance between the two embeddings that goes away, so predicting no change
//!   gets 0. Part of that share needs no parameter: it is enough to know that the other view is nearer to the mean. The
//!   same regression without the parameter says how much, and a second figure is measured against it.
//!
//! Pairs go in both directions. Regressions are fitted on pairs of train clips, their penalty is chosen on valid clips, and
//! figures are of test clips.

use garde::Validate;
use loev_ops::ridge::{Regression, Ridge, square_distance};
use loev_ops::rng::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByClip, EvaluateError};
use crate::probe::Split;

/// The R2 of the predicted difference of a parameter.
pub const DIFFERENCE: &str = "difference_r2";
/// The share of the change of an embedding that is predicted.
pub const BEYOND_IDENTITY: &str = "beyond_identity";
/// The same beside a prediction that does not know the parameters.
pub const BEYOND_UNINFORMED: &str = "beyond_uninformed";
/// The name under which all parameters stand together.
pub const ALL: &str = "all";

/// How equivariance is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct EquivarianceConfig {
    /// Pairs of views taken of each segment at most, each in both directions, 1 to 1000. Four views have 6, eight have 28.
    #[garde(range(min = 1, max = 1000))]
    pub pairs: usize,
    /// Ridge penalties to choose from on validation clips, each above 0 and at most 1e6: added to the correlation
    /// matrix of the inputs.
    #[garde(length(min = 1), inner(custom(penalty_holds)))]
    pub penalties: Vec<f64>,
    /// Resamples of the test clips behind each 95% confidence interval, 100 to 100000.
    #[garde(range(min = 100, max = 100_000))]
    pub bootstrap: usize,
}

impl Default for EquivarianceConfig {
    fn default() -> Self {
        Self { pairs: 6, penalties: vec![0.0001, 0.001, 0.01, 0.1, 1.0, 10.0], bootstrap: 1000 }
    }
}

/// garde's `range` lets NaN pass.
fn penalty_holds(value: &f64, _: &()) -> garde::Result {
    match *value > 0.0 && *value <= 1e6 {
        true => Ok(()),
        false => Err(garde::Error::new(format!("a penalty is above 0 and at most 1e6, not {value}"))),
    }
}

/// A parameter of a factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The factor.
    pub factor: String,
    /// The parameter.
    pub name: String,
    /// The value in each view, on the scale on which differences count: semitones as they are, rates as logarithms.
    pub values: Vec<f64>,
}

/// Embeddings of views in one subspace. Views of a segment stand together.
#[derive(Clone, Copy, Debug)]
pub struct ViewData<'a> {
    /// Row-major (views, dim).
    pub embeddings: &'a [f32],
    /// Values of an embedding.
    pub dim: usize,
    /// Of each view, its segment: an index into `segments`.
    pub segment: &'a [usize],
    /// Of each segment its name, which keys the choice of pairs, and its clip: an index into `split`.
    pub segments: &'a [(String, usize)],
    /// Of each clip, its part.
    pub split: &'a [Split],
    /// What was drawn.
    pub parameters: &'a [Parameter],
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct EquivarianceFigure {
    /// The factor, or [`ALL`].
    pub factor: String,
    /// The parameter, or [`ALL`].
    pub parameter: String,
    /// [`DIFFERENCE`], [`BEYOND_IDENTITY`] or [`BEYOND_UNINFORMED`].
    pub measure: &'static str,
    /// On pairs of test clips. At most 1; 0 for a prediction that knows nothing.
    pub value: f64,
    /// Lower end of the 95% bootstrap interval over test clips.
    pub lo: f64,
    /// Upper end of that interval.
    pub hi: f64,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// Pairs of train, valid and test clips, both directions counted.
    pub pairs: [usize; 3],
}

/// Two views of one segment.
struct Pair {
    from: usize,
    to: usize,
    clip: usize,
}

/// Measures one subspace. Figures that are undefined, such as those of a parameter that never differs, are absent.
///
/// # Errors
/// [`EvaluateError`]: slices that disagree, embeddings that are not finite, a split without pairs, no parameter that
/// differs, penalties that are too small.
pub fn equivariance(
    data: &ViewData<'_>,
    config: &EquivarianceConfig,
    key: Key,
) -> Result<Vec<EquivarianceFigure>, EvaluateError> {
    check(data)?;
    let pairs = pairs(data, config, key.with_str("pairs"));
    let rows = |split| -> Result<Vec<usize>, EvaluateError> {
        let rows = (0..pairs.len()).filter(|row| data.split[pairs[*row].clip] == split);
        let rows: Vec<usize> = rows.collect();
        if rows.is_empty() { Err(EvaluateError::EmptySplit { split }) } else { Ok(rows) }
    };
    let work = Work {
        data,
        config,
        key: key.with_str("bootstrap"),
        rows: [rows(Split::Train)?, rows(Split::Valid)?, rows(Split::Test)?],
        pairs,
    };
    let differs =
        |parameter: &Parameter| work.pairs.iter().any(|pair| work.difference(parameter, pair) != 0.0);
    let parameters: Vec<&Parameter> = data.parameters.iter().filter(|p| differs(p)).collect();
    if parameters.is_empty() {
        return Err(EvaluateError::NoParameters);
    }
    let uninformed = work.change(&[])?;
    let mut figures = Vec::new();
    for parameter in &parameters {
        figures.extend(work.what_was_done(parameter)?);
        figures.extend(work.what_it_does(&parameter.factor, &parameter.name, &[parameter], &uninformed)?);
    }
    if parameters.len() > 1 {
        figures.extend(work.what_it_does(ALL, ALL, &parameters, &uninformed)?);
    }
    Ok(figures)
}

fn check(data: &ViewData<'_>) -> Result<(), EvaluateError> {
    let views = data.segment.len();
    let shape = |what, found, expected| match found == expected {
        true => Ok(()),
        false => Err(EvaluateError::Shape { what, found, expected }),
    };
    shape("embeddings", data.embeddings.len(), views * data.dim)?;
    for parameter in data.parameters {
        shape("parameter values", parameter.values.len(), views)?;
    }
    if data.segment.iter().any(|segment| *segment >= data.segments.len()) {
        return Err(EvaluateError::Shape { what: "segments", found: data.segments.len(), expected: views });
    }
    if data.segments.iter().any(|(_, clip)| *clip >= data.split.len()) {
        let (found, expected) = (data.split.len(), data.segments.len());
        return Err(EvaluateError::Shape { what: "clips", found, expected });
    }
    match data.embeddings.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(EvaluateError::NotFinite { row: at / data.dim.max(1) }),
        None => Ok(()),
    }
}

/// The pairs of all segments, in order.
fn pairs(data: &ViewData<'_>, config: &EquivarianceConfig, key: Key) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut from = 0;
    while from < data.segment.len() {
        let segment = data.segment[from];
        let to = (from..data.segment.len()).find(|row| data.segment[*row] != segment);
        let to = to.unwrap_or(data.segment.len());
        let (name, clip) = &data.segments[segment];
        let mut chosen: Vec<(usize, usize)> =
            (from..to).flat_map(|a| (a + 1..to).map(move |b| (a, b))).collect();
        if chosen.len() > config.pairs {
            key.with_str(name).rng().shuffle(&mut chosen);
            chosen.truncate(config.pairs);
            chosen.sort_unstable();
        }
        for (a, b) in chosen {
            pairs.extend([(a, b), (b, a)].map(|(from, to)| Pair { from, to, clip: *clip }));
        }
        from = to;
    }
    pairs
}

struct Work<'a> {
    data: &'a ViewData<'a>,
    config: &'a EquivarianceConfig,
    key: Key,
    pairs: Vec<Pair>,
    /// Pairs of train, valid and test clips.
    rows: [Vec<usize>; 3],
}

/// The squared errors of predicting a change, of each test pair, and the change itself.
struct Change {
    errors: Vec<f64>,
    sizes: Vec<f64>,
    penalty: f64,
}

impl Work<'_> {
    fn difference(&self, parameter: &Parameter, pair: &Pair) -> f64 {
        parameter.values[pair.to] - parameter.values[pair.from]
    }

    fn view(&self, row: usize) -> &[f32] {
        &self.data.embeddings[row * self.data.dim..(row + 1) * self.data.dim]
    }

    fn fit(&self, regression: &Regression<'_>) -> Result<Ridge, EvaluateError> {
        let [train, valid, _] = &self.rows;
        Ok(Ridge::fit(regression, train, valid, &self.config.penalties)?)
    }

    fn figure(
        &self,
        (factor, parameter): (&str, &str),
        measure: &'static str,
        penalty: f64,
        found: Option<(f64, crate::metrics::Interval)>,
    ) -> Option<EquivarianceFigure> {
        found.map(|(value, interval)| EquivarianceFigure {
            factor: factor.to_owned(),
            parameter: parameter.to_owned(),
            measure,
            value,
            lo: interval.lo,
            hi: interval.hi,
            penalty,
            pairs: [0, 1, 2].map(|part| self.rows[part].len()),
        })
    }

    fn what_was_done(&self, parameter: &Parameter) -> Result<Option<EquivarianceFigure>, EvaluateError> {
        let row = |row: usize, inputs: &mut [f64], targets: &mut [f64]| {
            let pair = &self.pairs[row];
            let views = self.view(pair.from).iter().zip(self.view(pair.to));
            inputs.iter_mut().zip(views).for_each(|(x, (a, b))| *x = f64::from(*b) - f64::from(*a));
            targets[0] = self.difference(parameter, pair);
        };
        let regression = Regression { inputs: self.data.dim, targets: 1, row: &row };
        let ridge = self.fit(&regression)?;
        let mut sums = ByClip::<4>::new();
        ridge.each(&regression, &self.rows[2], |row, truth, prediction| {
            let (truth, error) = (truth[0], truth[0] - prediction[0]);
            sums.add(self.pairs[row].clip, [1.0, truth, truth * truth, error * error]);
        });
        let found = sums.figure(self.config.bootstrap, self.key, |[n, sum, squares, errors]| {
            let spread = squares - sum * sum / n;
            (spread > 0.0).then(|| 1.0 - errors / spread)
        });
        Ok(self.figure((&parameter.factor, &parameter.name), DIFFERENCE, ridge.penalty, found))
    }

    /// Predicts the change of an embedding from the embedding and these parameters.
    fn change(&self, parameters: &[&Parameter]) -> Result<Change, EvaluateError> {
        let dim = self.data.dim;
        let row = |row: usize, inputs: &mut [f64], targets: &mut [f64]| {
            let pair = &self.pairs[row];
            let (from, to) = (self.view(pair.from), self.view(pair.to));
            let (own, rest) = inputs.split_at_mut(dim);
            own.iter_mut().zip(from).for_each(|(x, z)| *x = f64::from(*z));
            for (inputs, parameter) in rest.chunks_exact_mut(dim + 1).zip(parameters) {
                let difference = self.difference(parameter, pair);
                inputs[dim] = difference;
                inputs.iter_mut().zip(from).for_each(|(x, z)| *x = difference * f64::from(*z));
            }
            targets
                .iter_mut()
                .zip(from.iter().zip(to))
                .for_each(|(y, (a, b))| *y = f64::from(*b) - f64::from(*a));
        };
        let inputs = dim + parameters.len() * (dim + 1);
        let regression = Regression { inputs, targets: dim, row: &row };
        let ridge = self.fit(&regression)?;
        let mut change = Change { errors: Vec::new(), sizes: Vec::new(), penalty: ridge.penalty };
        ridge.each(&regression, &self.rows[2], |_, truth, prediction| {
            change.errors.push(square_distance(truth, prediction));
            change.sizes.push(truth.iter().map(|value| value * value).sum());
        });
        Ok(change)
    }

    fn what_it_does(
        &self,
        factor: &str,
        parameter: &str,
        parameters: &[&Parameter],
        uninformed: &Change,
    ) -> Result<Vec<EquivarianceFigure>, EvaluateError> {
        let informed = self.change(parameters)?;
        let share = |measure, of: &[f64]| {
            let mut sums = ByClip::<2>::new();
            for ((row, error), size) in self.rows[2].iter().zip(&informed.errors).zip(of) {
                sums.add(self.pairs[*row].clip, [*error, *size]);
            }
            let found = sums.figure(self.config.bootstrap, self.key, |[errors, sizes]| {
                (sizes > 0.0).then(|| 1.0 - errors / sizes)
            });
            self.figure((factor, parameter), measure, informed.penalty, found)
        };
        let beyond_identity = share(BEYOND_IDENTITY, &informed.sizes);
        let beyond_uninformed = share(BEYOND_UNINFORMED, &uninformed.errors);
        Ok(beyond_identity.into_iter().chain(beyond_uninformed).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIPS: usize = 60;

    struct Planted {
        embeddings: Vec<f32>,
        segment: Vec<usize>,
        segments: Vec<(String, usize)>,
        split: Vec<Split>,
        parameters: Vec<Parameter>,
    }

    impl Planted {
        fn data(&self) -> ViewData<'_> {
            let Self { embeddings, segment, segments, split, parameters } = self;
            let dim = embeddings.len() / segment.len();
            ViewData { embeddings, dim, segment, segments, split, parameters }
        }
    }

    /// Clips of four views; `embed` makes an embedding of a clip's own value, the two drawn values, and noise.
    fn planted(embed: impl Fn(f64, f64, f64, &mut dyn FnMut() -> f64) -> Vec<f64>) -> Planted {
        let mut rng = Key::root(11).rng();
        let mut planted = Planted {
            embeddings: Vec::new(),
            segment: Vec::new(),
            segments: Vec::new(),
            split: Vec::new(),
            parameters: Vec::new(),
        };
        let mut values = [Vec::new(), Vec::new()];
        for clip in 0..CLIPS {
            let own = rng.normal();
            planted.segments.push((format!("clip-{clip}:0:0"), clip));
            planted.split.push(match clip {
                0..30 => Split::Train,
                30..40 => Split::Valid,
                _ => Split::Test,
            });
            for _ in 0..4 {
                let (pitch, rate) = (rng.uniform(-4.0, 4.0), rng.uniform(-0.3, 0.3));
                let embedding = embed(own, pitch, rate, &mut || rng.normal());
                planted.embeddings.extend(embedding.iter().map(|value| *value as f32));
                planted.segment.push(clip);
                values[0].push(pitch);
                values[1].push(rate);
            }
        }
        let [pitch, rate] = values;
        let parameter = |factor: &str, name: &str, values| Parameter {
            factor: factor.to_owned(),
            name: name.to_owned(),
            values,
        };
        planted.parameters =
            vec![parameter("pitch_shift", "semitones", pitch), parameter("time_stretch", "rate", rate)];
        planted
    }

    fn figure(figures: &[EquivarianceFigure], factor: &str, measure: &str) -> EquivarianceFigure {
        figures.iter().find(|f| f.factor == factor && f.measure == measure).unwrap().clone()
    }

    #[test]
    fn what_was_planted_is_found_and_nothing_else() {
        let planted = planted(|own, pitch, _, noise| {
            vec![own, own + pitch, 0.5 * own - 2.0 * pitch + 0.1 * noise(), noise()]
        });
        let figures = equivariance(&planted.data(), &EquivarianceConfig::default(), Key::root(1)).unwrap();
        let done = figure(&figures, "pitch_shift", DIFFERENCE);
        assert!(done.value > 0.999 && done.lo > 0.999 && done.hi <= 1.0, "{done:?}");
        assert_eq!(done.pairs, [360, 120, 240]);
        let other = figure(&figures, "time_stretch", DIFFERENCE);
        assert!(other.lo < 0.0 && other.value < 0.05, "the rate is not in the embedding: {other:?}");

        // Of the change, all but the noise (variance 2 of about 55) follows the semitones.
        let does = figure(&figures, "pitch_shift", BEYOND_IDENTITY);
        assert!((0.93..0.995).contains(&does.value), "{does:?}");
        assert!(figure(&figures, "pitch_shift", BEYOND_UNINFORMED).lo > 0.85);
        let other = figure(&figures, "time_stretch", BEYOND_UNINFORMED);
        assert!(other.value < 0.05 && other.lo < 0.05, "{other:?}");
        assert!(figure(&figures, ALL, BEYOND_IDENTITY).value > 0.9);
        assert_eq!(figures.len(), 3 + 3 + 2);
    }

    #[test]
    fn noise_has_no_difference_but_returns_to_the_mean() {
        let planted = planted(|_, _, _, noise| (0..6).map(|_| noise()).collect());
        let figures = equivariance(&planted.data(), &EquivarianceConfig::default(), Key::root(1)).unwrap();
        for factor in ["pitch_shift", "time_stretch"] {
            let done = figure(&figures, factor, DIFFERENCE);
            assert!(done.lo < 0.0 && done.hi.abs() < 0.1, "{done:?}");
            // The best guess of independent noise is its mean: half the squared distance. No parameter is needed for it.
            let does = figure(&figures, factor, BEYOND_IDENTITY);
            assert!((0.4..0.55).contains(&does.value), "{does:?}");
            let informed = figure(&figures, factor, BEYOND_UNINFORMED);
            assert!(informed.value.abs() < 0.05 && informed.lo < 0.02, "{informed:?}");
        }
    }

    #[test]
    fn an_embedding_that_does_not_move_has_no_change_to_predict() {
        let planted = planted(|own, _, _, _| vec![own, 1.0]);
        let figures = equivariance(&planted.data(), &EquivarianceConfig::default(), Key::root(1)).unwrap();
        assert!(figures.iter().all(|figure| figure.measure == DIFFERENCE), "{figures:?}");
        assert!(figures.iter().all(|figure| figure.value.abs() < 0.05));
    }

    #[test]
    fn fewer_pairs_are_chosen_by_name_and_faults_are_told() {
        let mut planted = planted(|own, pitch, _, _| vec![own, pitch]);
        let config = EquivarianceConfig { pairs: 2, ..EquivarianceConfig::default() };
        let run = |planted: &Planted| equivariance(&planted.data(), &config, Key::root(1));
        assert_eq!(run(&planted).unwrap()[0].pairs, [120, 40, 80]);
        assert_eq!(run(&planted), run(&planted));
        planted.split.iter_mut().for_each(|split| *split = Split::Train);
        assert_eq!(run(&planted), Err(EvaluateError::EmptySplit { split: Split::Valid }));
        planted.embeddings[5] = f32::NAN;
        assert_eq!(run(&planted), Err(EvaluateError::NotFinite { row: 2 }));
        planted.parameters.clear();
        planted.embeddings[5] = 0.0;
        planted.split[3] = Split::Valid;
        planted.split[4] = Split::Test;
        assert_eq!(run(&planted), Err(EvaluateError::NoParameters));
    }
}
