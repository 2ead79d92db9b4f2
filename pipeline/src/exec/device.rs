//! Views rendered on the device that trains on them.
//!
//! ```text
//! lanes: read ─ resample ─► pinned memory ═ channel ═► staged ─ render ─ log-mel ─► features, never on the host
//!                                                      copied while the step before is worked on
//! ```
//!
//! What crosses to the device is the audio that a segment's views are made from, once for all of them. Pinned memory
//! goes back to the lanes when it has been copied.

use std::collections::VecDeque;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use crossbeam::channel::{Receiver, Sender, unbounded};
use loev_models::train::TrainBatch;
use loev_models::{Device, device};
use loev_ops::chain::Chain;
use loev_ops::draw_table::draws_from_batch;
use loev_ops::features::FrontEnd;
use loev_ops::gpu::{Buffer, Coming, Gpu, GpuLogMel, GpuRenderer, GpuViews, Pcm, Pinned, Sources, Ticket};
use loev_ops::operator::{Extent, OperatorSpec};
use loev_ops::views::Draw;

use super::render::Output;
use crate::error::RunError;

/// Why views of a chain are not rendered on a device.
pub fn obstacle(chain: &Chain) -> Option<String> {
    let reads = |spec: &&OperatorSpec| spec.def().partner() == Some(Extent::View);
    match (GpuRenderer::supports(chain), chain.operators().into_iter().find(reads)) {
        (Err(why), _) => Some(why),
        // One thread feeds the device; it would read a file for every view.
        (Ok(()), Some(spec)) => Some(format!("`{}` reads another recording for every view", spec.name())),
        (Ok(()), None) => None,
    }
}

/// Pinned memory on its way between the lanes and the device.
#[derive(Clone)]
pub struct Pins {
    gpu: Gpu,
    idle: Receiver<Pinned<f32>>,
    back: Sender<Pinned<f32>>,
}

impl std::fmt::Debug for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pins({} idle)", self.idle.len())
    }
}

impl Pins {
    /// None yet; they are made as they are asked for.
    pub fn new(gpu: Gpu) -> Self {
        let (back, idle) = unbounded();
        Self { gpu, idle, back }
    }

    /// Memory for `len` values, that of an earlier batch where it is large enough.
    fn take(&self, len: usize) -> Result<Pinned<f32>, RunError> {
        match self.idle.try_recv() {
            Ok(pinned) if pinned.len() >= len => Ok(pinned),
            _ => Ok(self.gpu.pinned(len)?),
        }
    }
}

/// A batch of training before its views are rendered.
#[derive(Debug)]
pub struct SourceBatch {
    sources: Pinned<f32>,
    segments: usize,
    segment_of: Vec<u32>,
    draws: Vec<Draw>,
    /// All but the features.
    batch: TrainBatch,
}

impl SourceBatch {
    /// From rows with the column of [`Output::Source`]; `batch` is what they say beside that.
    ///
    /// # Errors
    /// When the rows are no such rows, or no memory can be had.
    pub fn new(chain: &Chain, rows: &RecordBatch, batch: TrainBatch, pins: &Pins) -> Result<Self, RunError> {
        let column = rows
            .column_by_name(Output::Source.column())
            .and_then(|column| column.as_list_opt::<i64>())
            .ok_or_else(|| RunError::Engine("rows to render on the device lack their sources".to_owned()))?;
        let values = column.values().as_primitive::<Float32Type>().values();
        let first = column.value_offsets().first().copied().unwrap_or_default() as usize;
        let last = column.value_offsets().last().copied().unwrap_or_default() as usize;
        let mut segments = 0u32;
        let segment_of: Vec<u32> = (0..rows.num_rows())
            .map(|row| {
                segments += u32::from(column.is_valid(row));
                segments.saturating_sub(1)
            })
            .collect();
        let mut sources = pins.take(last - first)?;
        sources[..last - first].copy_from_slice(&values[first..last]);
        let draws = draws_from_batch(chain, rows)?;
        Ok(Self { sources, segments: segments as usize, segment_of, draws, batch })
    }
}

/// What is on its way to the device.
#[derive(Debug)]
pub struct Staged {
    ticket: Ticket,
    slot: usize,
    source: SourceBatch,
}

/// The device's end: copies, renders, and takes features.
pub struct DeviceRenderer {
    gpu: Gpu,
    device: Device,
    renderer: GpuRenderer,
    log_mel: GpuLogMel,
    /// Values of one segment, over so many channels.
    width: usize,
    channels: usize,
    mels: usize,
    slots: [Buffer<f32>; 2],
    next: usize,
    back: Sender<Pinned<f32>>,
    /// What became of the views of the last batches, on its way here; and memory for that.
    states: VecDeque<Coming<u32>>,
    idle: Vec<Pinned<u32>>,
}

impl DeviceRenderer {
    /// Renders views of `chain` for `front_end`.
    ///
    /// # Errors
    /// When the device cannot render the chain, see [`obstacle`], or has no memory.
    pub fn new(chain: &Chain, front_end: &FrontEnd, device: &Device, pins: &Pins) -> Result<Self, RunError> {
        let gpu = pins.gpu.clone();
        Ok(Self {
            renderer: GpuRenderer::new(&gpu, chain)?,
            log_mel: GpuLogMel::new(&gpu, front_end)?,
            width: Output::Source.width(chain),
            channels: chain.channels.count(),
            mels: front_end.mels,
            slots: [gpu.memory(0)?, gpu.memory(0)?],
            next: 0,
            back: pins.back.clone(),
            states: VecDeque::new(),
            idle: Vec::new(),
            device: device.clone(),
            gpu,
        })
    }

    /// Begins to copy a batch to the device, beside the work asked for later.
    ///
    /// # Errors
    /// When the device fails.
    pub fn stage(&mut self, source: SourceBatch) -> Result<Staged, RunError> {
        let (slot, len) = (self.next, source.segments * self.width);
        self.next = 1 - slot;
        if self.slots[slot].len() < len {
            self.slots[slot] = self.gpu.memory(len)?;
        }
        let ticket = self.gpu.stage(&source.sources, len, &mut self.slots[slot])?;
        Ok(Staged { ticket, slot, source })
    }

    /// Renders the views of a staged batch and takes their features.
    ///
    /// # Errors
    /// When the device fails.
    pub fn render(&mut self, staged: Staged) -> Result<TrainBatch, RunError> {
        let Staged { ticket, slot, source: SourceBatch { sources, segments, segment_of, draws, mut batch } } =
            staged;
        self.gpu.after(&ticket)?;
        let pcm = Sources {
            samples: Pcm::F32(&self.slots[slot]),
            segments,
            channels: self.channels,
            frames: self.width / self.channels,
        };
        let views = self.renderer.render(&pcm, &segment_of, &draws)?;
        self.watch(&views)?;
        let features = self.log_mel.compute(&views)?;
        let frames = features.len() / (batch.views * self.mels).max(1);
        let shape = (batch.views, frames, self.mels);
        batch.features = device::tensor(&self.gpu, features, shape.into(), &self.device)?.into();
        // By now the copy is long done: it went beside the step before.
        self.gpu.finish(&ticket)?;
        self.back.send(sources).ok();
        Ok(batch)
    }

    /// Looks at what became of the views of an earlier batch, and asks the same of these: to wait for it now would keep
    /// the device waiting too.
    fn watch(&mut self, views: &GpuViews) -> Result<(), RunError> {
        if let Some((view, error)) = views.failed.first() {
            return Err(RunError::Engine(format!("view {view} of a batch: {error}")));
        }
        if self.states.len() > 1
            && let Some(coming) = self.states.pop_front()
        {
            let states = coming.wait(&self.gpu)?;
            if let Some(view) = states.iter().position(|state| *state != 0) {
                let message =
                    format!("view {view} of an earlier batch was rendered as samples that are not finite");
                return Err(RunError::Engine(message));
            }
            self.idle.push(states);
        }
        let to = match self.idle.pop() {
            Some(pinned) if pinned.len() == views.views => pinned,
            _ => self.gpu.pinned(views.views)?,
        };
        self.states.push_back(self.gpu.fetch(&views.states, to)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{Float32Array, LargeListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field, Schema};
    use loev_ops::draw_table::{draw_fields, draws_to_arrays};
    use loev_ops::features::LogMel;
    use loev_ops::render::Renderer;
    use loev_ops::rng::Key;
    use loev_ops::source::Source;
    use loev_ops::views::Pools;

    use super::*;
    use crate::spec::stage::Views;

    fn chain(options: &str) -> Chain {
        serde_json::from_str::<Views>(options).unwrap().chain()
    }

    /// Batches of two segments through pinned memory and both buffers: features as the CPU's.
    #[test]
    fn features_from_the_device_are_those_of_the_cpu() {
        let Some(gpu) = Gpu::mirror_if_any() else { return };
        let chain = chain(
            r#"{"from": "clips", "seconds": 0.5, "variant": ["pitch_shift"], "base": ["gain", "filter"]}"#,
        );
        assert_eq!(obstacle(&chain), None);
        let front_end = FrontEnd { mels: 40, ..FrontEnd::default() };
        let (mut log_mel, mut cpu) = (LogMel::new(&front_end), Renderer::new(&chain).unwrap());
        let pins = Pins::new(gpu);
        let mut device = DeviceRenderer::new(&chain, &front_end, &Device::Cpu, &pins).unwrap();
        for index in 0..3 {
            let (mut draws, mut values, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
            for segment in 0..2 {
                let clip = format!("{index}");
                let own = chain.draw_segment(Key::root(1), &clip, 8.0, segment, 0, &Pools::new()).unwrap();
                let source = Source::parse(&format!("synth:v1?seed=17&index={index}&seconds=8")).unwrap();
                let source = cpu.read_sound(&source, &own[0]).unwrap();
                for draw in &own {
                    let view = cpu.render(&source, draw).unwrap();
                    let mut out = vec![0.0; front_end.frames(chain.frames()) * front_end.mels];
                    log_mel.compute(&view.channels[0], &mut out);
                    wanted.extend(out);
                }
                values.push(source.channels.concat());
                draws.extend(own);
            }
            let per_segment = draws.len() / 2;
            let lengths = (0..draws.len()).map(|i| if i % per_segment == 0 { values[0].len() } else { 0 });
            let item = Arc::new(Field::new_list_field(DataType::Float32, false));
            let sources = LargeListArray::new(
                item.clone(),
                OffsetBuffer::from_lengths(lengths),
                Arc::new(Float32Array::from(values.concat())),
                Some((0..draws.len()).map(|i| i % per_segment == 0).collect::<Vec<_>>().into()),
            );
            let mut fields = draw_fields(&chain);
            fields.push(Field::new(Output::Source.column(), DataType::LargeList(item), true));
            let mut columns = draws_to_arrays(&chain, &draws).unwrap();
            columns.push(Arc::new(sources));
            let schema = Schema::new_with_metadata(fields, HashMap::new());
            let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
            let batch = TrainBatch { views: draws.len(), ..TrainBatch::default() };
            let batch = SourceBatch::new(&chain, &rows, batch, &pins).unwrap();
            let staged = device.stage(batch).unwrap();
            let made = device.render(staged).unwrap();
            let features = made.features.host().unwrap();
            assert_eq!(features.len(), wanted.len());
            let worst = features.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.05, "{worst} dB");
        }
        assert!(pins.idle.len() == 1, "pinned memory is used again");
    }

    #[test]
    fn what_the_device_cannot_render_is_named() {
        let codec = chain(r#"{"from": "clips", "seconds": 1, "base": ["codec"]}"#);
        assert!(obstacle(&codec).is_some_and(|why| why.contains("`codec`")));
        let mixed = chain(r#"{"from": "clips", "seconds": 1, "base": [{"background": {"from": "noise"}}]}"#);
        assert!(obstacle(&mixed).is_some_and(|why| why.contains("`background`")));
    }
}
