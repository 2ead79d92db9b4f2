//! Audio out of object stores, for the decoders of `loev-ops`.

use std::sync::Arc;

use loev_ops::source::{Remote, RemoteInfo, set_remote};
use loev_ops::{AudioError, RejectKind};

use super::{Location, entry_of, read_object};
use crate::error::{SqlError, StoreFault};

/// Makes `s3://` and `gs://` addresses of audio readable in this process.
pub fn enable_remote_audio() {
    set_remote(Arc::new(RemoteAudio));
}

struct RemoteAudio;

impl Remote for RemoteAudio {
    fn info(&self, url: &str) -> Result<RemoteInfo, AudioError> {
        let entry = Location::parse(url).and_then(|file| entry_of(&file)).map_err(|error| refused(&error))?;
        Ok(RemoteInfo { bytes: entry.bytes, stamp: entry.stamp })
    }

    fn read_at(&self, url: &str, info: &RemoteInfo, at: u64, buffer: &mut [u8]) -> Result<(), AudioError> {
        // Only a strong entity tag may be compared, and a time of change is none.
        let tag = Some(info.stamp.clone()).filter(|stamp| stamp.starts_with('"'));
        let bytes = Location::parse(url)
            .and_then(|file| read_object(&file, at..at + buffer.len() as u64, tag))
            .map_err(|error| refused(&error))?;
        if bytes.len() != buffer.len() {
            let message = format!("{url}: {} bytes instead of {} at {at}", bytes.len(), buffer.len());
            return Err(AudioError::new(RejectKind::Io, message));
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}

fn refused(error: &SqlError) -> AudioError {
    let kind = match error {
        SqlError::Store { fault: StoreFault::Missing, .. } => RejectKind::Missing,
        SqlError::Store { fault: StoreFault::Address, .. } => RejectKind::BadUri,
        _ => RejectKind::Io,
    };
    AudioError::new(kind, error.to_string())
}
