//! Messages on the socket: a length, a length of JSON, the JSON, and bytes that are no text.
//!
//! JSON, so that each side can read what a neighbouring version of the other says; the bytes behind it carry what a program
//! is given, as the system takes it.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes of a message: standard input of 8 MiB, arguments and environment of a few more.
const FRAME_BYTES_MAX: usize = 32 << 20;
/// Bytes of each length.
const LENGTH_BYTES: usize = 4;

/// Why the other side is not understood; the connection must end.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("a message of {0} bytes is longer than any")]
    TooLong(usize),
    #[error("a message whose text is longer than itself")]
    Torn,
    #[error("a message is not what this version knows")]
    Unknown(#[from] serde_json::Error),
}

/// Appends a message.
pub(crate) fn append<T: Serialize>(buffer: &mut Vec<u8>, message: &T, tail: &[u8]) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 2 * LENGTH_BYTES]);
    let written = serde_json::to_writer(&mut *buffer, message);
    if let Err(error) = written {
        buffer.truncate(start);
        return Err(error.into());
    }
    let text = buffer.len() - start - 2 * LENGTH_BYTES;
    buffer.extend_from_slice(tail);
    let all = buffer.len() - start - LENGTH_BYTES;
    if all > FRAME_BYTES_MAX {
        buffer.truncate(start);
        return Err(FrameError::TooLong(all));
    }
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&length(all));
    buffer[start + LENGTH_BYTES..start + 2 * LENGTH_BYTES].copy_from_slice(&length(text));
    Ok(())
}

fn length(bytes: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Bytes that arrived and are not taken in yet.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    bytes: Vec<u8>,
    taken: usize,
}

impl Arrived {
    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes out the next whole message and what stands behind its text.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, &[u8])>, FrameError> {
        let start = self.taken;
        let Some(all) = self.length_at(start) else { return Ok(None) };
        if all > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(all));
        }
        let end = start + LENGTH_BYTES + all;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let text = self.length_at(start + LENGTH_BYTES).ok_or(FrameError::Torn)?;
        let body = self.bytes.get(start + 2 * LENGTH_BYTES..end).ok_or(FrameError::Torn)?;
        let (text, tail) = body.split_at_checked(text).ok_or(FrameError::Torn)?;
        let message = serde_json::from_slice(text)?;
        self.taken = end;
        Ok(Some((message, tail)))
    }

    fn length_at(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at + LENGTH_BYTES)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_whatever_the_pieces() {
        let mut sent = Vec::new();
        append(&mut sent, &"first", b"\0tail").unwrap();
        append(&mut sent, &"second", b"").unwrap();
        let mut arrived = Arrived::default();
        let mut got = Vec::new();
        for byte in &sent {
            arrived.push(&[*byte]);
            while let Some((message, tail)) = arrived.next::<String>().unwrap() {
                got.push((message, tail.to_vec()));
            }
        }
        assert_eq!(got, [("first".to_owned(), b"\0tail".to_vec()), ("second".to_owned(), Vec::new())]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut arrived = Arrived::default();
        arrived.push(&[255; 8]);
        assert!(matches!(arrived.next::<String>(), Err(FrameError::TooLong(_))));
        let mut arrived = Arrived::default();
        arrived.push(&[4, 0, 0, 0, 9, 0, 0, 0]);
        assert!(matches!(arrived.next::<String>(), Err(FrameError::Torn)));
        let mut sent = Vec::new();
        append(&mut sent, &7, b"").unwrap();
        let mut arrived = Arrived::default();
        arrived.push(&sent);
        assert!(matches!(arrived.next::<String>(), Err(FrameError::Unknown(_))));
    }
}
