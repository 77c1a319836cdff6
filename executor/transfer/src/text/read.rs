//! Reads text files: one task for each file, decoded and cut into records piece by piece.
//!
//! Reading is blocking work, so every batch is made on a thread for such work.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufReader, Read},
    path::PathBuf,
    sync::Arc,
};

use encoding_rs::{CoderResult, Decoder, Encoding};
use flate2::read::MultiGzDecoder;

use super::{
    READER,
    files::{failed, matching},
    tokens::{Syntax, Tokens},
};
use crate::{
    column::{Column, Kind, Record},
    convert::Conversion,
    dirty::{DirtyRecord, Side},
    limits::FILE_CHUNK_BYTES,
    moment::Moment,
    pattern::Pattern,
    plugin::{Batch, BatchLimit, Context, PluginError, ReadTask, Reader, Source, Step},
};

/// A parsed txtfilereader.
#[derive(Debug, Clone)]
pub(crate) struct ReadSpec {
    pub(crate) paths: Vec<String>,
    /// Nothing for all fields as text.
    pub(crate) cells: Option<Arc<[Cell]>>,
    pub(crate) syntax: Syntax,
    pub(crate) gzip: bool,
    pub(crate) encoding: &'static Encoding,
    pub(crate) skip_header: bool,
    pub(crate) null_format: Option<String>,
}

/// Where the value of a column comes from.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Field { index: usize, kind: Kind, format: Option<Pattern> },
    Constant(Column),
}

#[derive(Debug)]
struct FileTask {
    spec: ReadSpec,
    path: PathBuf,
}

/// An open file with what was read ahead: less than one piece.
struct FileReader {
    spec: ReadSpec,
    conversion: Arc<Conversion>,
    path: PathBuf,
    file: Box<dyn Read + Send>,
    decoder: Decoder,
    tokens: Tokens,
    ready: VecDeque<Vec<String>>,
    piece: Vec<u8>,
    records: u64,
    /// Whether bytes were met that are no text in the file's encoding.
    malformed: bool,
    at_end: bool,
}

/// A reader that is away on another thread while a batch is made.
struct BlockingReader(Option<FileReader>);

impl Source for ReadSpec {
    fn name(&self) -> &'static str {
        READER
    }

    fn split<'a>(&'a self, _context: &'a Context) -> Step<'a, Vec<Box<dyn ReadTask>>> {
        Box::pin(async move {
            let paths = self.paths.clone();
            let files = blocking(move || matching(&paths)).await?;
            let task = |path| Box::new(FileTask { spec: self.clone(), path }) as Box<dyn ReadTask>;
            Ok(files.into_iter().map(task).collect())
        })
    }
}

/// Runs work that blocks on its own thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    tokio::task::spawn_blocking(work).await.map_err(|source| PluginError::Blocking { source })?
}

impl ReadTask for FileTask {
    fn open<'a>(self: Box<Self>, context: &'a Context) -> Step<'a, Box<dyn Reader>> {
        Box::pin(async move {
            context.notes.add(format!("Begin to read file: [{}]", self.path.display()));
            let conversion = Arc::clone(&context.conversion);
            let reader = blocking(move || FileReader::open(self.spec, self.path, conversion)).await?;
            Ok(Box::new(BlockingReader(Some(reader))) as Box<dyn Reader>)
        })
    }
}

impl Reader for BlockingReader {
    fn next_batch(&mut self, limit: BatchLimit) -> Step<'_, Option<Batch>> {
        Box::pin(async move {
            let Some(mut reader) = self.0.take() else { return Ok(None) };
            let (reader, batch) = blocking(move || {
                let batch = reader.next_batch(limit)?;
                Ok((reader, batch))
            })
            .await?;
            self.0 = Some(reader);
            Ok(Some(batch).filter(|batch| !batch.is_empty()))
        })
    }
}

impl FileReader {
    fn open(spec: ReadSpec, path: PathBuf, conversion: Arc<Conversion>) -> Result<Self, PluginError> {
        let file = File::open(&path).map_err(|source| failed(&path, "opened", source))?;
        let file: Box<dyn Read + Send> = if spec.gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(FILE_CHUNK_BYTES, file)))
        } else {
            Box::new(file)
        };
        let mut reader = Self {
            decoder: spec.encoding.new_decoder(),
            tokens: Tokens::new(spec.syntax),
            conversion,
            path,
            file,
            ready: VecDeque::new(),
            piece: vec![0; FILE_CHUNK_BYTES],
            records: 0,
            malformed: false,
            at_end: false,
            spec,
        };
        if reader.spec.skip_header {
            reader.next_fields()?;
        }
        Ok(reader)
    }

    fn next_batch(&mut self, limit: BatchLimit) -> Result<Batch, PluginError> {
        let mut batch = Batch::default();
        while !batch.is_full(limit) {
            let Some(fields) = self.next_fields()? else { break };
            match self.record(&fields) {
                Ok(record) => batch.push(record),
                Err(message) => {
                    let record = fields.into_iter().map(|field| Column::String(Some(field))).collect();
                    batch.dirty.push(DirtyRecord { side: Side::Reader, record, message });
                }
            }
        }
        Ok(batch)
    }

    fn next_fields(&mut self) -> Result<Option<Vec<String>>, PluginError> {
        while self.ready.is_empty() && !self.at_end {
            self.read_piece()?;
        }
        let fields = self.ready.pop_front();
        self.records += u64::from(fields.is_some());
        Ok(fields)
    }

    fn read_piece(&mut self) -> Result<(), PluginError> {
        let length = read_some(self.file.as_mut(), &mut self.piece)
            .map_err(|source| failed(&self.path, "read", source))?;
        self.at_end = length == 0;
        let mut rest = &self.piece[..length];
        let mut text = String::with_capacity(FILE_CHUNK_BYTES);
        loop {
            let (result, read, malformed) = self.decoder.decode_to_string(rest, &mut text, self.at_end);
            self.malformed |= malformed;
            rest = &rest[read..];
            let pushed = self.tokens.push(&text, &mut self.ready);
            let record = self.records + u64::try_from(self.ready.len()).unwrap_or(0) + 1;
            pushed.map_err(|_| PluginError::FieldTooLong { path: self.path.clone(), record })?;
            text.clear();
            if result == CoderResult::InputEmpty {
                break;
            }
        }
        if self.at_end {
            self.tokens.end(&mut self.ready);
        }
        Ok(())
    }

    fn record(&self, fields: &[String]) -> Result<Record, String> {
        if self.malformed && fields.iter().any(|field| field.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(format!("bytes are no text in {}", self.spec.encoding.name()));
        }
        match &self.spec.cells {
            None => Ok(fields.iter().map(|field| self.text(field)).collect()),
            Some(cells) => cells.iter().map(|cell| self.value(cell, fields)).collect(),
        }
    }

    fn text(&self, field: &str) -> Column {
        Column::String(Some(field.to_owned()).filter(|field| self.spec.null_format.as_ref() != Some(field)))
    }

    fn value(&self, cell: &Cell, fields: &[String]) -> Result<Column, String> {
        let (index, kind, format) = match cell {
            Cell::Constant(column) => return Ok(column.clone()),
            Cell::Field { index, kind, format } => (*index, *kind, format),
        };
        let field = fields.get(index).ok_or_else(|| {
            format!("column {index} does not exist, the record has {} columns", fields.len())
        })?;
        let text = self.text(field);
        let cast = match (kind, format) {
            (Kind::Date, Some(format)) if !text.is_null() => {
                let moment = format.read(field);
                moment
                    .map(|moment| Column::Date(Some(moment)))
                    .ok_or_else(|| format!("column {index}: {field:?} does not fit the date format"))
            }
            _ => self.conversion.cast(&text, kind).map_err(|error| format!("column {index}: {error}")),
        };
        // A date of a text file is a point in time, whatever its format leaves out.
        cast.map(|column| match column {
            Column::Date(Some(moment)) => Column::Date(moment.date_time().map(Moment::DateTime)),
            column => column,
        })
    }
}

/// Reads at least a byte, unless at the end.
fn read_some(file: &mut dyn Read, piece: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
