//! One report: `header.csv` says which roll it is about, `defectlist.csv` what the cameras found on it.
//!
//! Labels and columns are found by name, in any order and whatever else stands between them. A header that cannot be read
//! makes the report broken, because without it a defect belongs to nothing. A defect that cannot be read is dirty.

use std::{fs, io, path::Path};

use chrono::NaiveDateTime;
use csv::{ReaderBuilder, StringRecord};
use encoding_rs::Encoding;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    cell::{self, CellError},
    fetch::hex,
    store::StoreError,
};

/// Bytes of one text of a report: a million defects.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// Why a report is put aside.
#[derive(Debug, Error)]
pub(crate) enum BrokenReport {
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A file is longer than a report is.
    #[error("{0} is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong(&'static str),
    /// A file is in no known encoding.
    #[error("{0} is neither UTF-8 nor in the encoding of the source; set `encoding`")]
    Encoding(&'static str),
    /// A file is no list of cells.
    #[error("{file} is not a list of cells separated by semicolons")]
    Csv {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: csv::Error,
    },
    /// The header does not say something that it must.
    #[error("header.csv does not say {0:?}")]
    Label(&'static str),
    /// The header says something that cannot be read.
    #[error("header.csv says for {label:?}: {problem}")]
    Value {
        /// The label.
        label: &'static str,
        /// Why.
        problem: String,
    },
    /// Columns are missing.
    #[error("defectlist.csv has no column {missing}; it has {known}")]
    Columns {
        /// Those that are missing.
        missing: String,
        /// Those that are there.
        known: String,
    },
}

/// Why a report was not read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// The report is to blame.
    #[error(transparent)]
    Broken(#[from] BrokenReport),
    /// This machine is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a header says about its roll. Lengths are in millimetres.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    pub(crate) aoi_no: String,
    pub(crate) start_time: NaiveDateTime,
    pub(crate) stop_time: Option<NaiveDateTime>,
    /// When the report was made: of two about one roll the later holds.
    pub(crate) created: Option<NaiveDateTime>,
    pub(crate) inspected_width: Option<f64>,
    pub(crate) inspected_length: Option<f64>,
    pub(crate) material_width: Option<f64>,
    pub(crate) run_length: Option<f64>,
    pub(crate) recipe: Option<String>,
    pub(crate) comment: Option<String>,
}

/// One defect. Lengths are in millimetres.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Defect {
    pub(crate) id: i64,
    pub(crate) class: Option<String>,
    pub(crate) severity: Option<String>,
    /// Across the film absolute and relative, length, along the film absolute and relative, size, width.
    pub(crate) lengths: [Option<f64>; 7],
    pub(crate) time: Option<NaiveDateTime>,
}

/// A defect that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dirty {
    pub(crate) line: u64,
    pub(crate) column: &'static str,
    pub(crate) problem: CellError,
}

/// The defects of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Defects {
    pub(crate) read: Vec<Defect>,
    pub(crate) dirty: Vec<Dirty>,
}

/// How texts of reports are read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) encoding: &'static Encoding,
    pub(crate) time_formats: Vec<String>,
}

/// The two files of a report, as bytes.
#[derive(Debug)]
pub(crate) struct Report {
    header: Vec<u8>,
    defects: Vec<u8>,
}

const HEADER: &str = "header.csv";
const DEFECTS: &str = "defectlist.csv";

impl Report {
    /// Reads the files of a report folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, ReadError> {
        Ok(Self { header: read_file(folder, HEADER)?, defects: read_file(folder, DEFECTS)? })
    }

    /// Returns the SHA-256 of both files.
    pub(crate) fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update((self.header.len() as u64).to_le_bytes());
        hasher.update(&self.header);
        hasher.update(&self.defects);
        hex(&hasher.finalize())
    }

    /// Reads the header.
    pub(crate) fn header(&self, reading: &Reading) -> Result<Header, BrokenReport> {
        read_header(&self.header, reading)
    }

    /// Reads the defects.
    pub(crate) fn defects(&self, reading: &Reading, start: NaiveDateTime) -> Result<Defects, BrokenReport> {
        read_defects(&self.defects, reading, start)
    }
}

/// Reads a file of a report by its name in any case.
fn read_file(folder: &Path, name: &'static str) -> Result<Vec<u8>, ReadError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(StoreError::io("read", folder))?;
    let found = entries.iter().find(|entry| entry.file_name().eq_ignore_ascii_case(name));
    let path = found.ok_or(BrokenReport::Missing(name))?.path();
    let metadata = fs::symlink_metadata(&path).map_err(StoreError::io("read", &path))?;
    if !metadata.is_file() {
        return Err(BrokenReport::Missing(name).into());
    }
    if metadata.len() > TEXT_BYTES_MAX {
        return Err(BrokenReport::TooLong(name).into());
    }
    Ok(fs::read(&path).map_err(StoreError::io("read", &path))?)
}

fn records(file: &'static str, bytes: &[u8], reading: &Reading) -> Result<Vec<StringRecord>, BrokenReport> {
    let text = cell::decode(bytes, reading.encoding).ok_or(BrokenReport::Encoding(file))?;
    let mut reader =
        ReaderBuilder::new().delimiter(b';').has_headers(false).flexible(true).from_reader(text.as_bytes());
    let records: Result<Vec<StringRecord>, csv::Error> = reader.records().collect();
    records.map_err(|source| BrokenReport::Csv { file, source })
}

fn read_header(bytes: &[u8], reading: &Reading) -> Result<Header, BrokenReport> {
    let pairs = Pairs { records: records(HEADER, bytes, reading)?, reading };
    let aoi_no = pairs.text("Roll")?.ok_or(BrokenReport::Label("Roll"))?;
    let start_time = pairs.time("Roll Start")?.ok_or(BrokenReport::Label("Roll Start"))?;
    Ok(Header {
        aoi_no,
        start_time,
        stop_time: pairs.time("Roll Stop")?,
        created: pairs.time("Report Creation Date")?,
        inspected_width: pairs.length("Inspected Width")?,
        inspected_length: pairs.length("Inspected Length")?,
        material_width: pairs.length("Material Width")?,
        run_length: pairs.length("Run Length")?,
        recipe: pairs.text("Recipe")?,
        comment: pairs.text("Comment")?,
    })
}

/// Labels and values: three pairs on each line.
struct Pairs<'a> {
    records: Vec<StringRecord>,
    reading: &'a Reading,
}

impl Pairs<'_> {
    fn value(&self, label: &str) -> Option<&str> {
        self.records.iter().find_map(|record| {
            let index = (0..record.len()).step_by(2).find(|index| is_label(&record[*index], label))?;
            record.get(index + 1)
        })
    }

    fn read<T>(
        &self,
        label: &'static str,
        read: impl FnOnce(&str) -> Result<Option<T>, CellError>,
    ) -> Result<Option<T>, BrokenReport> {
        let value = self.value(label).map_or(Ok(None), read);
        value.map_err(|problem| BrokenReport::Value { label, problem: problem.to_string() })
    }

    fn text(&self, label: &'static str) -> Result<Option<String>, BrokenReport> {
        self.read(label, cell::text)
    }

    fn length(&self, label: &'static str) -> Result<Option<f64>, BrokenReport> {
        self.read(label, cell::length)
    }

    fn time(&self, label: &'static str) -> Result<Option<NaiveDateTime>, BrokenReport> {
        self.read(label, |value| cell::time(value, &self.reading.time_formats, None))
    }
}

fn is_label(cell: &str, label: &str) -> bool {
    let cell = cell.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    cell.strip_suffix([':', '：']).unwrap_or(cell).trim_end().eq_ignore_ascii_case(label)
}

/// The columns of a defect, without their units.
const COLUMNS: [&str; 11] = [
    "Defect ID",
    "Defect Class",
    "Severity",
    "cdAbsBoxCenter",
    "cdBoxCenter",
    "length",
    "mdAbsBoxCenter",
    "mdBoxCenter",
    "size",
    "width",
    "Time",
];
/// Where the lengths begin among [`COLUMNS`].
const FIRST_LENGTH: usize = 3;

fn read_defects(bytes: &[u8], reading: &Reading, start: NaiveDateTime) -> Result<Defects, BrokenReport> {
    let records = records(DEFECTS, bytes, reading)?;
    let Some((names, rows)) = records.split_first() else {
        return Err(missing_columns(&StringRecord::new(), &COLUMNS));
    };
    let places = places(names)?;
    let mut defects = Defects::default();
    for row in rows {
        if row.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        match read_defect(row, &places, reading, start) {
            Ok(defect) => defects.read.push(defect),
            Err((column, problem)) => {
                let line = row.position().map_or(0, csv::Position::line);
                defects.dirty.push(Dirty { line, column, problem });
            }
        }
    }
    Ok(defects)
}

/// Returns where each of [`COLUMNS`] stands.
fn places(names: &StringRecord) -> Result<[usize; 11], BrokenReport> {
    let mut places = [0; 11];
    let mut missing = Vec::new();
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        match names.iter().position(|name| is_column(name, column)) {
            Some(found) => *place = found,
            None => missing.push(column),
        }
    }
    if missing.is_empty() { Ok(places) } else { Err(missing_columns(names, &missing)) }
}

/// Compares names without their unit, which stands in brackets, and without case.
fn is_column(name: &str, column: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default();
    name.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').eq_ignore_ascii_case(column)
}

fn missing_columns(names: &StringRecord, missing: &[&str]) -> BrokenReport {
    let known: String = names.iter().collect::<Vec<_>>().join(", ").chars().take(500).collect();
    BrokenReport::Columns { missing: missing.join(", "), known }
}

fn read_defect(
    row: &StringRecord,
    places: &[usize; 11],
    reading: &Reading,
    start: NaiveDateTime,
) -> Result<Defect, (&'static str, CellError)> {
    if let Some(column) = (0..COLUMNS.len()).find(|column| places[*column] >= row.len()) {
        return Err((COLUMNS[column], CellError::Cut));
    }
    let cell = |column: usize| &row[places[column]];
    let at = |column: usize| move |problem| (COLUMNS[column], problem);
    let id = cell::whole(cell(0)).and_then(|id| id.ok_or(CellError::Absent)).map_err(at(0))?;
    let class = cell::text(cell(1)).map_err(at(1))?;
    let severity = cell::text(cell(2)).map_err(at(2))?;
    let mut lengths = [None; 7];
    for (length, column) in lengths.iter_mut().zip(FIRST_LENGTH..) {
        *length = cell::length(cell(column)).map_err(at(column))?;
    }
    let time = cell::time(cell(10), &reading.time_formats, Some(start)).map_err(at(10))?;
    Ok(Defect { id, class, severity, lengths, time })
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn reading() -> Reading {
        Reading { encoding: encoding_rs::GBK, time_formats: Vec::new() }
    }

    fn start() -> NaiveDateTime {
        NaiveDate::from_ymd_opt(2018, 7, 18).unwrap().and_hms_opt(10, 0, 0).unwrap()
    }

    const COLUMN_LINE: &str = "Defect ID;Defect Class;Severity;cdAbsBoxCenter [mm];cdBoxCenter [mm];length [mm];\
        mdAbsBoxCenter [mm];mdBoxCenter [mm];size [mm];width [mm];Time";

    #[test]
    fn a_header_is_read_by_its_labels() {
        let text = "\u{feff}Roll:;1KSPSA18071841;Roll Start:;2018-07-18 10:00:00;Roll Stop:;2018-07-18 11:00:00\r\n\
            Job:;7;Report Creation Date:;18.07.2018 11:01:00;Inspected Width:;1234,5 mm\r\n\
            Inspected Length:;-;Run Length:;900 m;Recipe:;\"a;b\"\r\n";
        let header = read_header(text.as_bytes(), &reading()).unwrap();
        assert_eq!((header.aoi_no.as_str(), header.start_time), ("1KSPSA18071841", start()));
        assert_eq!((header.inspected_width, header.inspected_length), (Some(1234.5), None));
        assert_eq!((header.run_length, header.material_width), (Some(900_000.0), None));
        assert_eq!((header.recipe.as_deref(), header.comment), (Some("a;b"), None));
    }

    #[test]
    fn a_header_without_its_roll_is_broken() {
        let broken = |text: &str| read_header(text.as_bytes(), &reading()).unwrap_err().to_string();
        assert!(broken("Roll Start:;2018-07-18 10:00:00").contains("\"Roll\""));
        assert!(broken("Roll:;-;Roll Start:;2018-07-18 10:00:00").contains("\"Roll\""));
        assert!(broken("Roll:;1;Roll Start:;yesterday").contains("yesterday"));
        assert!(broken("Roll:;1;Roll Start:;2018-07-18 10:00:00;Run Length:;far").contains("Run Length"));
    }

    #[test]
    fn defects_are_read_by_their_columns() {
        let text = format!("{COLUMN_LINE};Image\n7;气泡;2;1,5;2;-;4;5;6;7;2018-07-18 10:00:01;x.jpg\n\n");
        let defects = read_defects(&encoding_rs::GBK.encode(&text).0, &reading(), start()).unwrap();
        assert_eq!(defects.dirty, []);
        let defect = &defects.read[0];
        assert_eq!(
            (defect.id, defect.class.as_deref(), defect.severity.as_deref()),
            (7, Some("气泡"), Some("2"))
        );
        assert_eq!(defect.lengths, [Some(1.5), Some(2.0), None, Some(4.0), Some(5.0), Some(6.0), Some(7.0)]);
        let reversed: Vec<&str> = COLUMN_LINE.split(';').rev().collect();
        let text = format!("{}\n10:00:01;7;6;5;4;-;2;1.5;2;气泡;7", reversed.join(";"));
        assert_eq!(read_defects(text.as_bytes(), &reading(), start()).unwrap(), defects);
    }

    #[test]
    fn a_defect_that_cannot_be_read_is_dirty_and_the_others_are_read() {
        let text = format!(
            "{COLUMN_LINE}\n-;a;1;1;1;1;1;1;1;1;-\n2;a;1;wide;1;1;1;1;1;1;-\n3;a;1;1;1;1;1;1;1;1;-\n4;a\n"
        );
        let defects = read_defects(text.as_bytes(), &reading(), start()).unwrap();
        assert_eq!(defects.read.iter().map(|defect| defect.id).collect::<Vec<_>>(), [3]);
        let dirty: Vec<_> = defects.dirty.iter().map(|dirty| (dirty.line, dirty.column)).collect();
        assert_eq!(dirty, [(2, "Defect ID"), (3, "cdAbsBoxCenter"), (5, "Severity")]);
    }

    #[test]
    fn missing_columns_are_named() {
        let error = read_defects(b"Defect ID;Severity\n1;2\n", &reading(), start()).unwrap_err().to_string();
        assert!(
            error.contains("Defect Class, cdAbsBoxCenter") && error.contains("it has Defect ID, Severity"),
            "{error}"
        );
        assert!(read_defects(b"", &reading(), start()).is_err());
    }
}
