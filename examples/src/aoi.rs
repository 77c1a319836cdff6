//! Inspection reports of film rolls, in the format of the plant's cameras.
//!
//! Two films, PVA and PSA, each with its own folder of dated folders `yyyy/mm/dd`. An archive holds one report folder with
//! `header.csv` (label and value pairs, no header row) and `defectlist.csv` (with a header row), both separated by
//! semicolons. The oddities of the real files are there too: decimal commas, byte order marks, GBK texts, `-` for nothing,
//! columns in another order, archives that are named `..._zip`.

mod text;

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use chrono::{Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::random::Random;

/// Classes that a defect may have.
const CLASSES: &[&str] = &["Bubble", "Scratch", "Gel", "Fibre", "Black spot", "气泡"];
/// Severities that a defect may have.
const SEVERITIES: &[&str] = &["1", "2", "3"];
/// Recipes of the cameras.
const RECIPES: &[&str] = &["PVA_1490_std", "PSA_1330_fine", "标准配方", "trial 7"];

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The first day.
    pub first_day: NaiveDate,
    /// How many days.
    pub days: u32,
    /// Rolls of each film on each day.
    pub rolls: u32,
    /// What determines everything else.
    pub seed: u64,
}

/// A film, which is also a source of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Film {
    /// Polyvinyl alcohol.
    Pva,
    /// Pressure-sensitive adhesive.
    Psa,
}

impl Film {
    /// Both films.
    pub const ALL: [Self; 2] = [Self::Pva, Self::Psa];

    /// Returns its name in lower case, as sources are called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pva => "pva",
            Self::Psa => "psa",
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Pva => "1KSPVA",
            Self::Psa => "1KSPSA",
        }
    }
}

/// One inspected roll: the row that must arrive, and what decides how its files look.
#[derive(Debug, Clone, PartialEq)]
pub struct Roll {
    /// Its film.
    pub film: Film,
    /// The day in whose folder its archive lies.
    pub day: NaiveDate,
    /// Name of the archive on the server.
    pub archive: String,
    /// Number of the roll.
    pub aoi_no: String,
    /// When the inspection began.
    pub start_time: NaiveDateTime,
    /// When it ended.
    pub stop_time: NaiveDateTime,
    /// Millimetres.
    pub inspected_width: Option<f64>,
    /// Millimetres.
    pub inspected_length: Option<f64>,
    /// Millimetres.
    pub material_width: Option<f64>,
    /// Millimetres.
    pub run_length: Option<f64>,
    /// Recipe of the cameras.
    pub recipe: Option<String>,
    /// What the operator wrote.
    pub comment: Option<String>,
    /// What the cameras found, in the order of the file.
    pub defects: Vec<Defect>,
    style: Style,
}

/// One defect: the row that must arrive.
#[derive(Debug, Clone, PartialEq)]
pub struct Defect {
    /// Number within the roll.
    pub id: i64,
    /// Class.
    pub class: Option<String>,
    /// Severity.
    pub severity: Option<String>,
    /// Position across the film, absolute, in millimetres.
    pub cd_abs: Option<f64>,
    /// Position across the film, in millimetres.
    pub cd: Option<f64>,
    /// Millimetres.
    pub length: Option<f64>,
    /// Position along the film, absolute, in millimetres.
    pub md_abs: Option<f64>,
    /// Position along the film, in millimetres.
    pub md: Option<f64>,
    /// Square root of the area, in millimetres.
    pub size: Option<f64>,
    /// Millimetres.
    pub width: Option<f64>,
    /// When it passed the cameras.
    pub time: Option<NaiveDateTime>,
}

/// How the files of a roll are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    decimal_comma: bool,
    byte_order_mark: bool,
    gbk: bool,
    shuffled: bool,
    german_time: bool,
}

/// Returns all rolls of a request, ordered by film, day and start.
#[must_use]
pub fn rolls(request: &Request) -> Vec<Roll> {
    let mut rolls = Vec::new();
    for film in Film::ALL {
        for offset in 0..request.days {
            let Some(day) = request.first_day.checked_add_days(Days::new(offset.into())) else { continue };
            rolls.extend((0..request.rolls).filter_map(|number| roll(request.seed, film, day, number)));
        }
    }
    rolls
}

fn roll(seed: u64, film: Film, day: NaiveDate, number: u32) -> Option<Roll> {
    let days = day.signed_duration_since(NaiveDate::default()).num_days();
    let stream = u64::try_from(days).ok()? * 1_000_000 + u64::from(number) * 2 + film as u64;
    let mut random = Random::new(seed, stream);
    let minutes = i64::from(number) * 11 + i64::try_from(random.below(10)).ok()?;
    let start_time = day.and_time(NaiveTime::MIN) + TimeDelta::minutes(minutes) + TimeDelta::seconds(17);
    let stop_time = start_time + TimeDelta::minutes(i64::try_from(random.between(30, 90)).ok()?);
    let aoi_no = format!("{}{}{:02}", film.code(), day.format("%y%m%d"), number + 1);
    let ending = if random.one_in(4) { "_zip" } else { ".zip" };
    let style = Style {
        decimal_comma: random.one_in(2),
        byte_order_mark: random.one_in(3),
        gbk: random.one_in(3),
        shuffled: random.one_in(2),
        german_time: random.one_in(3),
    };
    let style = Style { gbk: style.gbk && !style.byte_order_mark, ..style };
    let count = random.between(5, 60);
    Some(Roll {
        film,
        day,
        archive: format!("ModularStandardReport-{aoi_no}-{:02} (2){ending}", number + 1),
        aoi_no,
        start_time,
        stop_time,
        inspected_width: Some(hundredths(&mut random, 130_000, 150_000)),
        inspected_length: Some(hundredths(&mut random, 100_000, 90_000_000)),
        material_width: (!random.one_in(5)).then(|| hundredths(&mut random, 130_000, 150_000)),
        run_length: Some(hundredths(&mut random, 100_000, 90_000_000)),
        recipe: Some((*random.pick(RECIPES)).to_owned()),
        comment: random
            .one_in(2)
            .then(|| format!("batch \"{}\"; shift {}", random.below(90), random.between(1, 3))),
        defects: (1..=count).map(|id| defect(&mut random, id, start_time)).collect(),
        style,
    })
}

fn defect(random: &mut Random, id: u64, start_time: NaiveDateTime) -> Defect {
    let absent = random.one_in(12);
    let seconds = i64::try_from(random.below(1_800)).unwrap_or_default();
    Defect {
        id: i64::try_from(id).unwrap_or_default(),
        class: (!random.one_in(20)).then(|| (*random.pick(CLASSES)).to_owned()),
        severity: Some((*random.pick(SEVERITIES)).to_owned()),
        cd_abs: Some(hundredths(random, 0, 150_000)),
        cd: Some(hundredths(random, 0, 150_000)),
        length: (!absent).then(|| hundredths(random, 1, 5_000)),
        md_abs: Some(hundredths(random, 0, 90_000_000)),
        md: Some(hundredths(random, 0, 90_000_000)),
        size: (!absent).then(|| hundredths(random, 1, 5_000)),
        width: (!absent).then(|| hundredths(random, 1, 5_000)),
        time: Some(start_time + TimeDelta::seconds(seconds)),
    }
}

/// Returns a number with two decimals; its text reads back to the very same number.
#[expect(clippy::cast_precision_loss, reason = "the numbers here are far below 2^53")]
const fn hundredths(random: &mut Random, low: u64, high: u64) -> f64 {
    random.between(low, high) as f64 / 100.0
}

/// Returns the archive of a roll, byte for byte the same each time.
///
/// # Errors
/// Where a text cannot be compressed, which memory alone can cause.
pub fn archive(roll: &Roll) -> Result<Vec<u8>> {
    let folder = roll.archive.trim_end_matches(".zip").trim_end_matches("_zip");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default_for_write());
    for (name, bytes) in [
        ("header.csv", text::header(roll)),
        ("defectlist.csv", text::defects(roll)),
        ("report.txt", b"AOI report\r\n".to_vec()),
    ] {
        writer.start_file(format!("{folder}/{name}"), options).context("cannot start an archive entry")?;
        writer.write_all(&bytes).context("cannot write an archive entry")?;
    }
    Ok(writer.finish().context("cannot finish the archive")?.into_inner())
}

/// Returns where an archive lies below the home of its film: `yyyy/mm/dd/name`.
#[must_use]
pub fn dated_path(roll: &Roll) -> PathBuf {
    Path::new(&roll.day.format("%Y/%m/%d").to_string()).join(&roll.archive)
}

/// Writes all archives of a request below `out`, each film into the folder that `home` names, and returns the rolls.
///
/// # Errors
/// Where a folder or file cannot be written.
pub fn write(request: &Request, out: &Path, home: fn(Film) -> String) -> Result<Vec<Roll>> {
    let rolls = rolls(request);
    for roll in &rolls {
        let path = out.join(home(roll.film)).join(dated_path(roll));
        let folder = path.parent().context("an archive has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, archive(roll)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(rolls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request =
        Request { first_day: NaiveDate::from_ymd_opt(2018, 7, 25).unwrap(), days: 2, rolls: 8, seed: 42 };

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let archives = |request: &Request| -> Vec<_> {
            rolls(request).iter().map(|roll| archive(roll).unwrap()).collect()
        };
        assert_eq!(archives(&REQUEST), archives(&REQUEST));
        assert_ne!(archives(&REQUEST), archives(&Request { seed: 43, ..REQUEST }));
    }

    #[test]
    fn rolls_have_distinct_numbers_and_every_oddity_occurs() {
        let rolls = rolls(&REQUEST);
        let mut numbers: Vec<_> = rolls.iter().map(|roll| &roll.aoi_no).collect();
        numbers.sort();
        numbers.dedup();
        assert_eq!((numbers.len(), rolls.len()), (32, 32));
        assert!(rolls.iter().any(|roll| roll.style.decimal_comma && roll.style.shuffled));
        assert!(
            rolls.iter().any(|roll| roll.style.gbk) && rolls.iter().any(|roll| roll.style.byte_order_mark)
        );
        assert!(rolls.iter().any(|roll| roll.archive.ends_with("_zip")));
        assert!(rolls.iter().any(|roll| roll.defects.iter().any(|defect| defect.length.is_none())));
    }

    #[test]
    fn files_lie_in_dated_folders() {
        let folder = tempfile::tempdir().unwrap();
        let rolls = write(&REQUEST, folder.path(), |film| format!("cloudin_{}", film.name())).unwrap();
        let first = folder.path().join("cloudin_pva/2018/07/25").join(&rolls[0].archive);
        assert_eq!(fs::read(first).unwrap(), archive(&rolls[0]).unwrap());
    }
}
