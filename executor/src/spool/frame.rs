//! The form of a journal: eight bytes that name it, then frames of a length, a check sum and a record as JSON.
//!
//! JSON costs a microsecond more than a dense form and can be read by a person at night.

use crate::ledger::Record;

/// The first bytes of every journal; the last one is the version of its form.
pub(super) const MAGIC: &[u8; 8] = b"MRSPOOL1";
/// Bytes before the record of a frame: its length and its check sum.
const HEAD_BYTES: usize = 8;
/// Bytes of a record: values of 64 KiB whose every character is escaped.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What a journal tells.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) records: Vec<Record>,
    /// Bytes up to the first that is not part of a whole frame.
    pub(super) good_bytes: u64,
    /// Whether something readable follows what is not: no torn write, but damage.
    pub(super) is_damaged: bool,
}

/// Appends the frame of a record.
///
/// # Errors
/// Where the record cannot be written as JSON or is too long.
pub(super) fn append(buffer: &mut Vec<u8>, record: &Record) -> Result<(), serde_json::Error> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    serde_json::to_writer(&mut *buffer, record)?;
    let body = &buffer[start + HEAD_BYTES..];
    if body.len() > RECORD_BYTES_MAX {
        let problem = format!("a record of {} bytes", body.len());
        buffer.truncate(start);
        return Err(serde::ser::Error::custom(problem));
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32fast::hash(body).to_le_bytes();
    buffer[start..start + 4].copy_from_slice(&length);
    buffer[start + 4..start + HEAD_BYTES].copy_from_slice(&sum);
    Ok(())
}

/// Reads a whole journal.
pub(super) fn read_all(bytes: &[u8]) -> Content {
    let mut records = Vec::new();
    if !bytes.starts_with(MAGIC) {
        // A journal is put in place whole, so a head that is not there never was.
        return Content { records, good_bytes: 0, is_damaged: true };
    }
    let mut at = MAGIC.len();
    while let Some((record, end)) = read_at(bytes, at) {
        records.push(record);
        at = end;
    }
    let is_damaged = (at + 1..bytes.len()).any(|later| read_at(bytes, later).is_some());
    Content { records, good_bytes: at as u64, is_damaged }
}

fn read_at(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    let (length, sum) = head.split_at(4);
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    // No record is empty; and the check sum of nothing is zero, so zeros would read as frames.
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let start = at + HEAD_BYTES;
    let body = bytes.get(start..start + length)?;
    if crc32fast::hash(body) != sum {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, start + length))
}
