//! The mirror renders what the CPU renders.

use super::*;
use crate::chain::Channels;
use crate::gpu::parity::{Case, ParityRow, TOLERANCES, parity, signal_to_noise};

const LOEV: (&str, &str) =
    (r#"["pitch_shift", "time_stretch"]"#, r#"["gain", "polarity", "colored_noise", "filter"]"#);

#[test]
fn every_operator_is_within_its_tolerance() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let rows = parity(&gpu, 0.25, 2).unwrap();
    for row in &rows {
        println!("{:24} {:8.2} dB, {:?}, tolerance {}", row.what, row.value, row.measure, row.tolerance);
    }
    assert!(rows.iter().all(ParityRow::holds));
}

#[test]
fn the_table_names_every_operator_with_a_kernel() {
    let named = |name: &str| TOLERANCES.iter().any(|row| row.operator == name);
    let all = crate::operators::all().iter();
    let wrong: Vec<&str> =
        all.filter(|def| Kind::of(def).is_ok() != named(def.name)).map(|def| def.name).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Batches of one view, samples of 16 bits, and a renderer that was used before give what one batch of f32 gives.
#[test]
fn batches_and_the_form_of_samples_do_not_matter() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let case = Case::new(LOEV, Channels::Mono, 0.1, 2).unwrap();
    let narrow: Vec<i16> = case.samples().iter().map(|x| (x * 32_768.0).round() as i16).collect();
    let wide: Vec<f32> = narrow.iter().map(|x| f32::from(*x) / 32_768.0).collect();
    let (narrow, wide) = (gpu.upload(&narrow).unwrap(), gpu.upload(&wide).unwrap());
    let mut whole = GpuRenderer::new(&gpu, &case.chain).unwrap();
    let mut parts = GpuRenderer::new(&gpu, &case.chain).unwrap().with_workspace(1);
    let render = |renderer: &mut GpuRenderer, samples| {
        let views = renderer.render(&case.sources(samples), &case.segment_of, &case.draws).unwrap();
        assert!(views.rejects(&gpu).unwrap().iter().all(Option::is_none));
        gpu.download(&views.samples).unwrap()
    };
    let want = render(&mut whole, Pcm::F32(&wide));
    assert!(render(&mut whole, Pcm::I16(&narrow)) == want && render(&mut parts, Pcm::I16(&narrow)) == want);
    let none = whole.render(&case.sources(Pcm::F32(&wide)), &[], &[]).unwrap();
    assert!(none.samples.is_empty() && none.rejects(&gpu).unwrap().is_empty());
}

/// Blocks of loudness, echoes of echoes and lines that went round: what short views do not reach.
#[test]
fn long_views_agree_too() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let base = r#"["loudness", {"delay": {"time_s": [0.001, 0.3], "feedback": 0.8, "p": 1}}, {"reverb": {"p": 1}},
        {"tape_speed": {"p": 1}}]"#;
    let case = Case::new(("[]", base), Channels::Stereo, 1.1, 1).unwrap();
    let views = case.views(&gpu).unwrap();
    assert!(views.rejects(&gpu).unwrap().iter().all(Option::is_none));
    let samples = gpu.download(&views.samples).unwrap();
    for (want, got) in case.expected().unwrap().iter().zip(samples.chunks(2 * views.frames)) {
        let ratio = signal_to_noise(want.channels.iter().flatten(), got);
        assert!(ratio > 80.0, "{ratio} dB");
    }
}

#[test]
fn bad_views_do_not_stop_the_others() {
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    let mut case = Case::new(LOEV, Channels::Mono, 0.1, 3).unwrap();
    case.sources[0].channels[0].fill(1e-6);
    case.sources[1].channels[0][7] = f32::NAN;
    case.draws[9].params[0] = Some(vec![f64::NAN]);
    let views = case.views(&gpu).unwrap();
    let kinds: Vec<_> = views.rejects(&gpu).unwrap().into_iter().map(|e| e.map(|e| e.kind)).collect();
    assert_eq!(kinds[..4], [Some(RejectKind::Silent); 4]);
    assert_eq!(kinds[4..8], [Some(RejectKind::NotFinite); 4]);
    assert_eq!(kinds[8..], [None, Some(RejectKind::Corrupt), None, None]);
    let samples = gpu.download(&views.samples).unwrap();
    let frames = views.frames;
    assert!(samples[9 * frames..10 * frames].iter().all(|x| *x == 0.0));
    case.sources.truncate(3);
    let view = crate::render::Renderer::new(&case.chain).unwrap().render(&case.sources[2], &case.draws[10]);
    let ratio = signal_to_noise(view.unwrap().channels[0].iter(), &samples[10 * frames..11 * frames]);
    assert!(ratio > 60.0, "{ratio} dB");
}

#[test]
fn what_cannot_be_rendered_is_named_and_sizes_are_checked() {
    let mut chain = Case::new(LOEV, Channels::Mono, 0.1, 1).unwrap().chain;
    assert_eq!(GpuRenderer::supports(&chain), Ok(()));
    chain.base = serde_json::from_str(r#"["gain", {"one_of": ["polarity", "codec"]}]"#).unwrap();
    assert_eq!(GpuRenderer::supports(&chain), Err("`codec` has no kernel for GPUs".to_owned()));
    let Some(gpu) = Gpu::mirror_if_any() else { return };
    assert!(matches!(GpuRenderer::new(&gpu, &chain), Err(GpuError::Shape(_))));
    let case = Case::new(LOEV, Channels::Mono, 0.1, 1).unwrap();
    let samples = gpu.upload(&case.samples()).unwrap();
    let mut renderer = GpuRenderer::new(&gpu, &case.chain).unwrap();
    let sources = case.sources(Pcm::F32(&samples));
    assert!(renderer.render(&sources, &[1; 4], &case.draws).is_err());
    assert!(renderer.render(&sources, &[0; 3], &case.draws).is_err());
    assert!(renderer.render(&Sources { segments: 2, ..sources }, &[0; 4], &case.draws).is_err());
    let short = Sources { frames: 100, ..sources };
    let views = renderer.render(&short, &[0; 4], &case.draws).unwrap();
    assert!(views.failed.iter().all(|(_, e)| e.kind == RejectKind::TooShort) && views.failed.len() == 4);
}
