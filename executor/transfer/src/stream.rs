//! streamreader and streamwriter: rows out of a definition, rows into the log. For trying things out
//! and for measuring the other side.

use std::{fmt::Write as _, sync::Arc};

use serde_json::Value;

use crate::{
    column::{Column, Kind, Record},
    convert::Conversion,
    dirty::{DirtyRecord, Side},
    limits::{BATCH_BYTES, BATCH_RECORDS, TASKS},
    moment::Moment,
    parameter::Section,
    pattern::Pattern,
    plugin::{
        Batch, BatchLimit, Context, Outcome, PluginError, ReadTask, Reader, Sink, Source, Step, Target,
        Writer,
    },
    setting::{Setting, pattern},
};

pub(crate) const READER: &str = "streamreader";
pub(crate) const WRITER: &str = "streamwriter";

/// Characters or bytes of a random value at most.
const RANDOM_LENGTH: i64 = 65_536;

/// A parsed streamreader.
#[derive(Debug, Clone)]
struct StreamSource {
    columns: Arc<[Cell]>,
    /// Records of each task, and there are as many tasks as channels.
    records: u64,
}

/// How the value of a column comes about.
#[derive(Debug, Clone)]
enum Cell {
    Constant(Column),
    Random { kind: Kind, low: i64, high: i64 },
}

#[derive(Debug)]
struct StreamTask {
    source: StreamSource,
}

struct StreamReader {
    source: StreamSource,
    left: u64,
    chance: Chance,
    conversion: Arc<Conversion>,
}

/// Numbers for rows that only have to look different (`SplitMix64`); nothing depends on their quality.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = uuid::Uuid::now_v7().as_u128();
        Self((seed >> 64) as u64 ^ seed as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.abs_diff(low).saturating_add(1);
        low.wrapping_add_unsigned(self.next() % span)
    }

    fn letters(&mut self, length: i64) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        (0..length).map(|_| char::from(LETTERS[usize::from(self.next() as u8) % LETTERS.len()])).collect()
    }
}

/// Parses a streamreader's parameters.
pub(crate) fn source(section: &Section<'_>, setting: &Setting) -> Option<Arc<dyn Source>> {
    section.note_unknown(&["column", "sliceRecordCount"]);
    let columns = section.sections("column");
    if columns.is_empty() {
        section.problem("column", "is required: a list of objects with value and type");
    }
    let records = section.limit("sliceRecordCount");
    if records.is_none() {
        section.problem("sliceRecordCount", "is required: 1 or more");
    }
    if setting.channels > u64::try_from(TASKS).unwrap_or(u64::MAX) {
        section.problem("column", format!("is read by each channel, and more than {TASKS} are not possible"));
    }
    let cells: Option<Arc<[Cell]>> = columns.iter().map(|column| cell(column, &setting.conversion)).collect();
    Some(Arc::new(StreamSource { columns: cells?, records: records? }))
}

fn cell(section: &Section<'_>, conversion: &Conversion) -> Option<Cell> {
    section.note_unknown(&["value", "type", "dateFormat", "random"]);
    let name = section.text("type").unwrap_or_else(|| "string".to_owned());
    let Some(kind) = Kind::parse(&name) else {
        section
            .problem("type", format!("{name:?} is no type; write string, long, double, date, bool or bytes"));
        return None;
    };
    let format = pattern(section, "dateFormat");
    match section.text("random") {
        Some(range) => random(section, kind, &range, format.as_ref(), conversion),
        None => constant(section, kind, format.as_ref(), conversion),
    }
}

fn constant(
    section: &Section<'_>,
    kind: Kind,
    format: Option<&Pattern>,
    conversion: &Conversion,
) -> Option<Cell> {
    if section.get("value").is_none() {
        // A null that is written out is a null; a value that is missing is a mistake.
        section.problem("value", "is required, or random instead");
        return None;
    }
    let text = section.text("value")?;
    if kind == Kind::Date
        && let Some(moment) = format.and_then(|format| format.read(&text))
    {
        return moment.date_time().map(|at| Cell::Constant(Column::Date(Some(Moment::DateTime(at)))));
    }
    let number = section.get("value").is_some_and(Value::is_number);
    let given =
        if number && kind == Kind::Date { Column::Long(Some(text)) } else { Column::String(Some(text)) };
    match conversion.cast(&given, kind) {
        Ok(Column::Date(Some(moment))) => {
            moment.date_time().map(|at| Cell::Constant(Column::Date(Some(Moment::DateTime(at)))))
        }
        Ok(column) => Some(Cell::Constant(column)),
        Err(error) => {
            section.problem("value", error.to_string());
            None
        }
    }
}

fn random(
    section: &Section<'_>,
    kind: Kind,
    range: &str,
    format: Option<&Pattern>,
    conversion: &Conversion,
) -> Option<Cell> {
    let bound = |text: &str| match kind {
        Kind::Date => {
            let moment = format.unwrap_or(&conversion.date_time).read(text)?;
            moment.unix_millis(conversion.zone)
        }
        _ => text.parse().ok(),
    };
    let ends = range.split_once(',').and_then(|(low, high)| Some((bound(low.trim())?, bound(high.trim())?)));
    let lengths = matches!(kind, Kind::String | Kind::Bytes | Kind::Bool);
    match ends {
        Some((low, high)) if low <= high && (!lengths || (low >= 0 && high <= RANDOM_LENGTH)) => {
            Some(Cell::Random { kind, low, high })
        }
        _ => {
            section.problem(
                "random",
                format!("{range:?} must be two values \"low, high\" of the column's type"),
            );
            None
        }
    }
}

impl Cell {
    fn value(&self, chance: &mut Chance, conversion: &Conversion) -> Column {
        let (kind, low, high) = match self {
            Self::Constant(column) => return column.clone(),
            Self::Random { kind, low, high } => (*kind, *low, *high),
        };
        match kind {
            Kind::Long => Column::Long(Some(chance.between(low, high).to_string())),
            Kind::Double => {
                let hundredths = chance.between(0, 99);
                let whole = chance.between(low, (high - 1).max(low));
                Column::Double(Some(format!("{whole}.{hundredths:02}")))
            }
            Kind::Date => Column::Date(Moment::from_unix_millis(chance.between(low, high), conversion.zone)),
            // The two numbers are the weights of false and true.
            Kind::Bool => Column::Bool(Some(chance.between(1, (low + high).max(1)) > low)),
            Kind::String => {
                let length = chance.between(low, high);
                Column::String(Some(chance.letters(length)))
            }
            Kind::Bytes => {
                let length = chance.between(low, high);
                Column::Bytes(Some(chance.letters(length).into_bytes()))
            }
        }
    }
}

impl Source for StreamSource {
    fn name(&self) -> &'static str {
        READER
    }

    fn split<'a>(&'a self, context: &'a Context) -> Step<'a, Vec<Box<dyn ReadTask>>> {
        Box::pin(async move {
            let task = || Box::new(StreamTask { source: self.clone() }) as Box<dyn ReadTask>;
            Ok((0..context.channels).map(|_| task()).collect())
        })
    }
}

impl ReadTask for StreamTask {
    fn open<'a>(self: Box<Self>, context: &'a Context) -> Step<'a, Box<dyn Reader>> {
        Box::pin(async move {
            let left = self.source.records;
            let conversion = Arc::clone(&context.conversion);
            let reader = StreamReader { source: self.source, left, chance: Chance::new(), conversion };
            Ok(Box::new(reader) as Box<dyn Reader>)
        })
    }
}

impl Reader for StreamReader {
    fn next_batch(&mut self, limit: BatchLimit) -> Step<'_, Option<Batch>> {
        Box::pin(async move {
            let mut batch = Batch::default();
            while self.left > 0 && !batch.is_full(limit) {
                self.left -= 1;
                let cells = self.source.columns.iter();
                batch.push(cells.map(|cell| cell.value(&mut self.chance, &self.conversion)).collect());
            }
            Ok(Some(batch).filter(|batch| !batch.is_empty()))
        })
    }
}

/// A parsed streamwriter.
#[derive(Debug, Clone)]
struct StreamSink {
    print: bool,
    delimiter: String,
}

#[derive(Clone)]
struct StreamTarget {
    sink: StreamSink,
    conversion: Arc<Conversion>,
}

/// Parses a streamwriter's parameters.
pub(crate) fn sink(section: &Section<'_>) -> Option<Arc<dyn Sink>> {
    let known =
        ["print", "fieldDelimiter", "encoding", "path", "fileName", "recordNumBeforeSleep", "sleepTime"];
    section.note_unknown(&known);
    for key in ["path", "fileName", "recordNumBeforeSleep", "sleepTime"] {
        if section.get(key).is_some() {
            section.findings().foreign(format!("{} is not supported", section.path(key)));
        }
    }
    Some(Arc::new(StreamSink {
        print: section.flag("print").unwrap_or(true),
        delimiter: section.text("fieldDelimiter").unwrap_or_else(|| "\t".to_owned()),
    }))
}

impl Sink for StreamSink {
    fn name(&self) -> &'static str {
        WRITER
    }

    fn batch_limit(&self) -> BatchLimit {
        BatchLimit { records: usize::try_from(BATCH_RECORDS).unwrap_or(usize::MAX), bytes: BATCH_BYTES }
    }

    fn prepare<'a>(&'a self, context: &'a Context, _tasks: usize) -> Step<'a, Box<dyn Target>> {
        Box::pin(async move {
            let conversion = Arc::clone(&context.conversion);
            Ok(Box::new(StreamTarget { sink: self.clone(), conversion }) as Box<dyn Target>)
        })
    }
}

impl Target for StreamTarget {
    fn open<'a>(&'a mut self, _context: &'a Context, _task: usize) -> Step<'a, Box<dyn Writer>> {
        Box::pin(async move { Ok(Box::new(self.clone()) as Box<dyn Writer>) })
    }

    fn post<'a>(&'a mut self, _context: &'a Context) -> Step<'a, ()> {
        Box::pin(async { Ok::<_, PluginError>(()) })
    }
}

impl Writer for StreamTarget {
    fn write(&mut self, records: Vec<Record>) -> Step<'_, Outcome> {
        Box::pin(async move {
            let mut outcome = Outcome::default();
            for record in records {
                match self.line(&record) {
                    Ok(line) if self.sink.print => outcome.printed.push_str(&line),
                    Ok(_) => {}
                    Err(message) => {
                        outcome.dirty.push(DirtyRecord { side: Side::Writer, record, message });
                    }
                }
            }
            Ok(outcome)
        })
    }

    fn finish(self: Box<Self>) -> Step<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl StreamTarget {
    /// A null shows as `null`.
    fn line(&self, record: &[Column]) -> Result<String, String> {
        let mut line = String::new();
        for (index, column) in record.iter().enumerate() {
            let text = self.conversion.text(column).map_err(|error| error.to_string())?;
            let delimiter = if index > 0 { self.sink.delimiter.as_str() } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(line, "{delimiter}{}", text.as_deref().unwrap_or("null"));
        }
        line.push('\n');
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_stay_in_their_range() {
        let mut chance = Chance(7);
        let conversion = Conversion::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let cell = Cell::Random { kind: Kind::Long, low: -2, high: 2 };
            let Column::Long(Some(number)) = cell.value(&mut chance, &conversion) else {
                panic!("no number")
            };
            seen.insert(number);
            let cell = Cell::Random { kind: Kind::String, low: 3, high: 5 };
            let Column::String(Some(text)) = cell.value(&mut chance, &conversion) else { panic!("no text") };
            assert!((3..=5).contains(&text.len()));
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert!((i64::MIN..=i64::MAX).contains(&chance.between(i64::MIN, i64::MAX)));
    }
}
