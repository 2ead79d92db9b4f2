//! `mutate-corpus FROM TO COUNT`: writes `COUNT` broken files to the folder `TO`, made from the files in
//! `FROM`, for running a whole pipeline over. The same files give the same files.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "end_to_end/mutate.rs"]
mod mutate;

use mutate::{Damage, mutate};

/// Endings that a file may have by mistake.
const ENDINGS: [&str; 8] = ["wav", "mp3", "flac", "ogg", "opus", "m4a", "aiff", "aac"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, count] = arguments.as_slice() else {
        return Err("usage: mutate-corpus FROM TO COUNT".into());
    };
    let mut good: Vec<PathBuf> =
        fs::read_dir(from)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    good.retain(|path| path.is_file());
    good.sort();
    if good.is_empty() {
        return Err(format!("{from}: no files").into());
    }
    fs::create_dir_all(to)?;
    for number in 0..count.parse::<usize>()? {
        let source = &good[number % good.len()];
        // A file meets another kind of damage each time that it comes again.
        let kind = (number + number / good.len()) % (Damage::ALL.len() + 1);
        let bytes = fs::read(source)?;
        let own = source.extension().and_then(|e| e.to_str()).unwrap_or("bin");
        let (name, ending, bytes) = match Damage::ALL.get(kind) {
            Some(damage) => {
                let other = fs::read(&good[(7 * number + 3) % good.len()])?;
                (format!("{damage:?}").to_lowercase(), own, mutate(&bytes, &other, *damage, number as u64))
            }
            None => ("ending".to_owned(), ENDINGS[number / 9 % ENDINGS.len()], bytes),
        };
        fs::write(Path::new(to).join(format!("{number:05}-{name}.{ending}")), bytes)?;
    }
    Ok(())
}
