//! The closed vocabulary of instrument tags.

/// An instrument of the synthesiser: a family of timbres, drawn anew for every clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Instrument {
    /// Bass guitar or bass synthesiser: low, one note at a time.
    Bass,
    /// Brass section: bright, swelling attack.
    Brass,
    /// Drum kit: kick, snare or rim, hats or ride.
    Drums,
    /// Electric piano: soft struck tone, often with tremolo.
    ElectricPiano,
    /// Flute or whistle: few partials, breath.
    Flute,
    /// Plucked or overdriven guitar.
    Guitar,
    /// Marimba, vibraphone, glockenspiel.
    Mallets,
    /// Drawbar organ.
    Organ,
    /// Shaker, tambourine, congas, claps.
    Percussion,
    /// Piano.
    Piano,
    /// String section.
    Strings,
    /// Saw and pulse synthesisers.
    Synth,
}

impl Instrument {
    /// All instruments, in the order of their names.
    pub const ALL: [Self; 12] = [
        Self::Bass,
        Self::Brass,
        Self::Drums,
        Self::ElectricPiano,
        Self::Flute,
        Self::Guitar,
        Self::Mallets,
        Self::Organ,
        Self::Percussion,
        Self::Piano,
        Self::Strings,
        Self::Synth,
    ];

    /// The tag: `snake_case`, stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bass => "bass",
            Self::Brass => "brass",
            Self::Drums => "drums",
            Self::ElectricPiano => "electric_piano",
            Self::Flute => "flute",
            Self::Guitar => "guitar",
            Self::Mallets => "mallets",
            Self::Organ => "organ",
            Self::Percussion => "percussion",
            Self::Piano => "piano",
            Self::Strings => "strings",
            Self::Synth => "synth",
        }
    }
}
