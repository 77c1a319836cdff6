//! Writes text files: one file for each task, with a name that no other file has.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use encoding_rs::Encoding;
use flate2::{Compression, write::GzEncoder};

use super::{
    WRITER,
    files::{failed, with_prefix},
    read::blocking,
};
use crate::{
    column::{Column, Record},
    convert::Conversion,
    dirty::{DirtyRecord, Side},
    limits::{BATCH_BYTES, BATCH_RECORDS, FILE_CHUNK_BYTES},
    pattern::Pattern,
    plugin::{BatchLimit, Context, Outcome, PluginError, Sink, Step, Target, Writer},
};

/// What happens to files that start with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// They are deleted.
    Truncate,
    /// They stay.
    Append,
    /// They are an error.
    NonConflict,
}

impl WriteMode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "truncate" => Self::Truncate,
            "append" => Self::Append,
            "nonconflict" => Self::NonConflict,
            _ => return None,
        })
    }
}

/// A parsed txtfilewriter.
#[derive(Debug, Clone)]
pub(crate) struct WriteSpec {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    pub(crate) suffix: String,
    pub(crate) mode: WriteMode,
    pub(crate) delimiter: char,
    /// Whether fields are quoted where they need it.
    pub(crate) csv: bool,
    pub(crate) gzip: bool,
    pub(crate) encoding: &'static Encoding,
    pub(crate) null_format: String,
    pub(crate) date_format: Option<Pattern>,
    pub(crate) header: Vec<String>,
}

struct Folder(WriteSpec);

/// An open file.
struct FileWriter {
    spec: WriteSpec,
    conversion: Arc<Conversion>,
    path: PathBuf,
    file: Compressed,
}

enum Compressed {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

/// A writer that is away on another thread while it writes. It does not come back from an error,
/// which ends the transfer.
struct BlockingWriter(Option<FileWriter>);

impl Sink for WriteSpec {
    fn name(&self) -> &'static str {
        WRITER
    }

    fn batch_limit(&self) -> BatchLimit {
        BatchLimit { records: usize::try_from(BATCH_RECORDS).unwrap_or(usize::MAX), bytes: BATCH_BYTES }
    }

    fn prepare<'a>(&'a self, context: &'a Context, _tasks: usize) -> Step<'a, Box<dyn Target>> {
        Box::pin(async move {
            let spec = self.clone();
            let deleted = blocking(move || prepare(&spec)).await?;
            for path in deleted {
                context.notes.add(format!("deleted file [{}]", path.display()));
            }
            Ok(Box::new(Folder(self.clone())) as Box<dyn Target>)
        })
    }
}

/// Makes the folder, and makes room in it; returns the files that were deleted.
fn prepare(spec: &WriteSpec) -> Result<Vec<PathBuf>, PluginError> {
    fs::create_dir_all(&spec.folder).map_err(|source| failed(&spec.folder, "created", source))?;
    let present = with_prefix(&spec.folder, &spec.name)?;
    match spec.mode {
        WriteMode::NonConflict if !present.is_empty() => {
            Err(PluginError::Conflict { path: spec.folder.clone(), prefix: spec.name.clone() })
        }
        WriteMode::Append | WriteMode::NonConflict => Ok(Vec::new()),
        WriteMode::Truncate => {
            for path in &present {
                fs::remove_file(path).map_err(|source| failed(path, "deleted", source))?;
            }
            Ok(present)
        }
    }
}

impl Target for Folder {
    fn open<'a>(&'a mut self, context: &'a Context, _task: usize) -> Step<'a, Box<dyn Writer>> {
        Box::pin(async move {
            let spec = self.0.clone();
            let conversion = Arc::clone(&context.conversion);
            let writer = blocking(move || FileWriter::create(spec, conversion)).await?;
            context.notes.add(format!("write to file : [{}]", writer.path.display()));
            Ok(Box::new(BlockingWriter(Some(writer))) as Box<dyn Writer>)
        })
    }

    fn post<'a>(&'a mut self, _context: &'a Context) -> Step<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Writer for BlockingWriter {
    fn write(&mut self, records: Vec<Record>) -> Step<'_, Outcome> {
        Box::pin(async move {
            let Some(mut writer) = self.0.take() else { return Ok(Outcome::default()) };
            let (writer, outcome) = blocking(move || {
                let outcome = writer.write_all(records)?;
                Ok((writer, outcome))
            })
            .await?;
            self.0 = Some(writer);
            Ok(outcome)
        })
    }

    fn finish(mut self: Box<Self>) -> Step<'static, ()> {
        Box::pin(async move {
            match self.0.take() {
                Some(writer) => blocking(move || writer.close()).await,
                None => Ok(()),
            }
        })
    }
}

impl FileWriter {
    fn create(spec: WriteSpec, conversion: Arc<Conversion>) -> Result<Self, PluginError> {
        let id = uuid::Uuid::now_v7().to_string().replace('-', "_");
        let path = spec.folder.join(format!("{}__{id}{}", spec.name, spec.suffix));
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = created.map_err(|source| failed(&path, "created", source))?;
        let file = BufWriter::with_capacity(FILE_CHUNK_BYTES, file);
        let file = if spec.gzip {
            Compressed::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Compressed::Plain(file)
        };
        let mut writer = Self { spec, conversion, path, file };
        if !writer.spec.header.is_empty() {
            let header = writer.spec.header.clone();
            let line = writer.line(header.iter().map(String::as_str));
            let bytes = writer.spec.encoding.encode(&line).0.into_owned();
            writer.put(&bytes)?;
        }
        Ok(writer)
    }

    fn write_all(&mut self, records: Vec<Record>) -> Result<Outcome, PluginError> {
        let mut outcome = Outcome::default();
        for record in records {
            match self.encoded(&record) {
                Ok(bytes) => self.put(&bytes)?,
                Err(message) => outcome.dirty.push(DirtyRecord { side: Side::Writer, record, message }),
            }
        }
        Ok(outcome)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PluginError> {
        self.file.write_all(bytes).map_err(|source| failed(&self.path, "written", source))
    }

    fn encoded(&self, record: &[Column]) -> Result<Vec<u8>, String> {
        let fields = record.iter().map(|column| self.field(column)).collect::<Result<Vec<_>, _>>()?;
        let line = self.line(fields.iter().map(String::as_str));
        let (bytes, _, unmappable) = self.spec.encoding.encode(&line);
        if unmappable {
            return Err(format!("a character does not exist in {}", self.spec.encoding.name()));
        }
        Ok(bytes.into_owned())
    }

    fn field(&self, column: &Column) -> Result<String, String> {
        if let (Column::Date(Some(moment)), Some(format)) = (column, &self.spec.date_format)
            && let Some(at) = moment.date_time()
        {
            return Ok(format.format(at));
        }
        match self.conversion.text(column) {
            Ok(Some(text)) => Ok(text.into_owned()),
            Ok(None) => Ok(self.spec.null_format.clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn line<'a>(&self, fields: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for (index, field) in fields.enumerate() {
            if index > 0 {
                line.push(self.spec.delimiter);
            }
            if self.spec.csv && needs_quotes(field, self.spec.delimiter) {
                line.push('"');
                line.push_str(&field.replace('"', "\"\""));
                line.push('"');
            } else {
                line.push_str(field);
            }
        }
        line.push('\n');
        line
    }

    /// What is closed is on the disk.
    fn close(self) -> Result<(), PluginError> {
        let path = self.path;
        close(self.file).map_err(|source| failed(&path, "closed", source))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| failed(folder, "synchronised", source))
    }
}

fn close(file: Compressed) -> io::Result<()> {
    let buffered = match file {
        Compressed::Plain(file) => file,
        Compressed::Gzip(file) => file.finish()?,
    };
    buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(file) => file.flush(),
        }
    }
}

/// Blanks at the ends are quoted too, because a reader may cut them.
fn needs_quotes(field: &str, delimiter: char) -> bool {
    field.is_empty()
        || field.starts_with([' ', '\t', '#'])
        || field.ends_with([' ', '\t'])
        || field.contains([delimiter, '"', '\n', '\r'])
}
