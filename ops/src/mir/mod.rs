//! Keys, chords and tempi: names, indices, and the scores of music information retrieval for them.
//!
//! Pure functions on plain values. Key scores follow the MIREX audio key detection task, whose
//! "perfect fifth" credit is read in two ways in practice, see [`FifthRule`]. Tempo scores follow
//! Gouyon et al. 2006 (Accuracy 1 and 2), with a tolerance relative to the accepted value. Chord labels follow
//! Harte, Sandler, Abdallah and Gómez, "Symbolic representation of musical chords", ISMIR 2005, and are read in
//! the style of lead sheets (`F#m7`, `Bb/D`) too.

mod chord;
mod key;
mod tempo;

pub use chord::{harte_chord, transpose_chord};
pub use key::{FifthRule, KEYS, KeyNameError, Mode, MusicalKey, PITCH_CLASSES, mirex_weighted};
pub use tempo::{tempo_acc1, tempo_acc2, tempo_oe1, tempo_oe2};
