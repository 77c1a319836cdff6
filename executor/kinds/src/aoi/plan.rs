//! What an attempt will do: the parameters, checked and with every text read.
//!
//! Checking needs nothing of the outside, so that it happens when the attempt is launched, and reports every misfit at
//! once. Names of connections are resolved later, from what the attempt's payload carries.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use chrono::NaiveDate;
use encoding_rs::Encoding;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use millrace_common::{
    kind::aoi::{self, AoiWith, Load, OnBroken, OnEmpty, OnUnready, Ready, Stage, TextEncoding},
    text::{parse_duration, parse_size},
};

use super::{days::Days, name};
use crate::launch::{Misfit, Misfits};

/// Entries of an archive: what fits into its directory without the extension for larger ones.
const ENTRIES_MAX: u32 = 65_000;
/// Sources of one attempt.
const SOURCES_MAX: usize = 64;

/// Notes misfits, so that all are told at once.
#[derive(Debug, Default)]
struct Notes(Vec<Misfit>);

impl Notes {
    /// Takes the value, or notes the misfit.
    fn take<T>(&mut self, result: Result<T, Misfit>) -> Option<T> {
        result.map_err(|misfit| self.0.push(misfit)).ok()
    }

    fn check(&mut self, is_right: bool, path: &str, problem: impl Into<String>) {
        if !is_right {
            self.0.push(Misfit::new(path, problem));
        }
    }
}

/// What an attempt will do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) days: Days,
    pub(crate) mirror: Mirror,
    pub(crate) unpack: Unpack,
    pub(crate) load: Option<Load>,
    pub(crate) on_empty: OnEmpty,
    pub(crate) on_broken: OnBroken,
    pub(crate) retry_quarantined: bool,
    pub(crate) keep_days: Option<u16>,
}

/// A place that archives come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    /// Pattern of the dated folders; known to render for every day.
    pattern: String,
    pub(crate) encoding: &'static Encoding,
    include: GlobSet,
    exclude: GlobSet,
}

/// Where a source is.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// On an FTP server.
    Ftp {
        /// The connection's name.
        connection: String,
        /// The folder that holds the dated folders, where the parameters name it.
        home: Option<String>,
    },
    /// In a folder of this machine.
    Folder(PathBuf),
}

/// How archives are fetched.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub(crate) command: Option<Vec<String>>,
    pub(crate) ready: Readiness,
    pub(crate) ready_wait: Duration,
    pub(crate) on_unready: OnUnready,
    pub(crate) parallel: u8,
    pub(crate) attempts: u8,
    pub(crate) retry_delay: Duration,
    pub(crate) timeout: Duration,
    pub(crate) file_size_max: u64,
    pub(crate) files_max: usize,
    pub(crate) free_space_min: u64,
}

/// When a file is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Now,
    Stable { polls: u8, interval: Duration },
    MinAge(Duration),
    Marker(String),
}

/// How archives are unpacked.
#[derive(Debug, Clone)]
pub(crate) struct Unpack {
    pub(crate) command: Option<Vec<String>>,
    pub(crate) entries_max: usize,
    pub(crate) size_max: u64,
    pub(crate) ratio_max: u64,
}

impl Plan {
    /// Checks the parameters.
    pub(crate) fn new(with: &AoiWith) -> Result<Self, Misfits> {
        let mut notes = Notes::default();
        let stages = stages(with, &mut notes);
        let days = notes.take(Days::read(with));
        let sources = sources(with, &mut notes);
        let mirror = mirror(&with.mirror, &mut notes);
        let unpack = unpack(&with.unpack, &mut notes);
        check_load(with, &stages, &mut notes);
        match (days, mirror, unpack) {
            (Some(days), Some(mirror), Some(unpack)) if notes.0.is_empty() => Ok(Self {
                sources,
                stages,
                store: with.store.as_ref().map(PathBuf::from),
                days,
                mirror,
                unpack,
                load: with.load.clone(),
                on_empty: with.on_empty,
                on_broken: with.on_broken,
                retry_quarantined: with.retry_quarantined,
                keep_days: with.keep_days,
            }),
            _ => Err(Misfits(notes.0)),
        }
    }
}

impl Source {
    /// Returns the dated folder of a day, relative to the home of the source.
    pub(crate) fn folder(&self, day: NaiveDate) -> String {
        render(&self.pattern, day).unwrap_or_default()
    }

    /// Tells whether a file of that name is one to take.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.exclude.is_match(name)
    }
}

fn stages(with: &AoiWith, notes: &mut Notes) -> Vec<Stage> {
    let mut stages = with.stages.clone();
    stages.sort_unstable();
    stages.dedup();
    notes.check(!stages.is_empty(), "stages", "is empty; name mirror, unpack or load");
    notes.check(stages.len() == with.stages.len(), "stages", "names a stage twice");
    let is_kept = with.keep_days.is_none_or(|keep| keep >= with.lookback_days);
    notes.check(
        is_kept,
        "keep_days",
        "is less than `lookback_days`; earlier days would be fetched each time",
    );
    let store = with.store.as_deref().unwrap_or("/");
    notes.check(store.starts_with('/'), "store", format!("{store:?} is not an absolute path"));
    stages
}

fn sources(with: &AoiWith, notes: &mut Notes) -> Vec<Source> {
    notes.check(!with.sources.is_empty(), "sources", "is empty; name at least one source");
    notes.check(with.sources.len() <= SOURCES_MAX, "sources", format!("has more than {SOURCES_MAX} sources"));
    let mut sources: Vec<Source> = Vec::new();
    for (index, fields) in with.sources.iter().enumerate().take(SOURCES_MAX) {
        let Some(source) = notes.take(source(&format!("sources[{index}]"), fields)) else { continue };
        let is_new = sources.iter().all(|other| other.name != source.name);
        notes.check(is_new, &format!("sources[{index}].name"), format!("{:?} is there twice", source.name));
        sources.push(source);
    }
    sources
}

fn source(at: &str, fields: &aoi::Source) -> Result<Source, Misfit> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if !fields.name.chars().all(is_name) || name::check(&fields.name).is_err() {
        let problem = format!("{:?} is not a name of a-z, 0-9, '_' and '-'", fields.name);
        return Err(Misfit::new(format!("{at}.name"), problem));
    }
    check_pattern(&format!("{at}.path"), &fields.path)?;
    Ok(Source {
        name: fields.name.clone(),
        origin: origin(at, fields)?,
        pattern: fields.path.clone(),
        encoding: match fields.encoding {
            TextEncoding::Utf8 => encoding_rs::UTF_8,
            TextEncoding::Gbk => encoding_rs::GBK,
        },
        include: globs(&format!("{at}.include"), &fields.include)?,
        exclude: globs(&format!("{at}.exclude"), &fields.exclude)?,
    })
}

fn origin(at: &str, fields: &aoi::Source) -> Result<Origin, Misfit> {
    match (&fields.connection, &fields.folder) {
        (Some(connection), None) => {
            Ok(Origin::Ftp { connection: connection.clone(), home: fields.home.clone() })
        }
        (None, Some(folder)) if folder.starts_with('/') && fields.home.is_none() => {
            Ok(Origin::Folder(folder.into()))
        }
        (None, Some(_)) if fields.home.is_some() => Err(Misfit::new(
            format!("{at}.home"),
            "belongs to a connection; with `folder`, make it part of that path",
        )),
        (None, Some(folder)) => {
            Err(Misfit::new(format!("{at}.folder"), format!("{folder:?} is not an absolute path")))
        }
        _ => Err(Misfit::new(at, "needs `connection` or `folder`, not both")),
    }
}

/// Checks that a pattern gives a harmless relative folder for every day.
fn check_pattern(at: &str, pattern: &str) -> Result<(), Misfit> {
    let day = NaiveDate::from_ymd_opt(2018, 7, 25).unwrap_or_default();
    let folder = render(pattern, day)
        .ok_or_else(|| Misfit::new(at, format!("{pattern:?} is not a pattern of a date such as %Y/%m/%d")))?;
    name::components(&folder).map(drop).map_err(|problem| {
        Misfit::new(at, format!("gives {folder:?}, which is not a folder below the home: {problem}"))
    })
}

fn render(pattern: &str, day: NaiveDate) -> Option<String> {
    let mut text = String::new();
    write!(text, "{}", day.format(pattern)).ok()?;
    Some(text)
}

fn globs(at: &str, patterns: &[String]) -> Result<GlobSet, Misfit> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).case_insensitive(true).literal_separator(true).build();
        set.add(glob.map_err(|error| {
            Misfit::new(at, format!("has {pattern:?}, which is not a glob: {}", error.kind()))
        })?);
    }
    set.build().map_err(|error| Misfit::new(at, format!("cannot be used: {error}")))
}

fn mirror(with: &aoi::Mirror, notes: &mut Notes) -> Option<Mirror> {
    notes.check((1..=16).contains(&with.parallel), "mirror.parallel", "is not between 1 and 16");
    notes.check((1..=20).contains(&with.attempts), "mirror.attempts", "is not between 1 and 20");
    check_command("mirror.command", with.command.as_deref(), notes);
    Some(Mirror {
        command: with.command.clone(),
        ready: notes.take(readiness(&with.ready))?,
        ready_wait: notes.take(duration("mirror.ready_wait", &with.ready_wait))?,
        on_unready: with.on_unready,
        parallel: with.parallel,
        attempts: with.attempts,
        retry_delay: notes.take(duration("mirror.retry_delay", &with.retry_delay))?,
        timeout: notes.take(positive_duration("mirror.timeout", &with.timeout))?,
        file_size_max: notes.take(size("mirror.file_size_max", &with.file_size_max))?,
        files_max: usize::try_from(with.files_max).unwrap_or(usize::MAX),
        free_space_min: notes.take(size("mirror.free_space_min", &with.free_space_min))?,
    })
}

fn readiness(ready: &Ready) -> Result<Readiness, Misfit> {
    let at = "mirror.ready";
    match ready {
        Ready::Now => Ok(Readiness::Now),
        Ready::MinAge(age) => duration(&format!("{at}.min_age"), age).map(Readiness::MinAge),
        Ready::Marker(pattern) if pattern.matches('*').count() == 1 => Ok(Readiness::Marker(pattern.clone())),
        Ready::Marker(pattern) => Err(Misfit::new(
            format!("{at}.marker"),
            format!("{pattern:?} needs exactly one `*`, as in \"*.ok\""),
        )),
        Ready::Stable(stable) if !(2..=20).contains(&stable.polls) => {
            Err(Misfit::new(format!("{at}.stable.polls"), "is not between 2 and 20"))
        }
        Ready::Stable(stable) => {
            let interval = positive_duration(&format!("{at}.stable.interval"), &stable.interval)?;
            Ok(Readiness::Stable { polls: stable.polls, interval })
        }
    }
}

fn unpack(with: &aoi::Unpack, notes: &mut Notes) -> Option<Unpack> {
    check_command("unpack.command", with.command.as_deref(), notes);
    notes.check(with.ratio_max > 0, "unpack.ratio_max", "must not be 0");
    let is_right = (1..=ENTRIES_MAX).contains(&with.entries_max);
    notes.check(is_right, "unpack.entries_max", format!("is not between 1 and {ENTRIES_MAX}"));
    Some(Unpack {
        command: with.command.clone(),
        entries_max: usize::try_from(with.entries_max).unwrap_or(usize::MAX),
        size_max: notes.take(size("unpack.size_max", &with.size_max))?,
        ratio_max: with.ratio_max.into(),
    })
}

fn check_load(with: &AoiWith, stages: &[Stage], notes: &mut Notes) {
    let Some(load) = &with.load else {
        let hint = "is missing; name the database as `load: { connection: ... }` or leave the stage out";
        return notes.check(!stages.contains(&Stage::Load), "load", hint);
    };
    check_command("load.command", load.command.as_deref(), notes);
    let has_target = load.connection.is_some() || load.command.is_some();
    notes.check(has_target || !stages.contains(&Stage::Load), "load", "needs `connection` or `command`");
    for (key, table) in [("pieces_table", &load.pieces_table), ("defects_table", &load.defects_table)] {
        let is_right = table.as_deref().is_none_or(is_table);
        notes.check(
            is_right,
            &format!("load.{key}"),
            "is not the name of a table, with or without its schema",
        );
    }
    let is_part = load.error_limit.percentage.is_none_or(|part| (0.0..=1.0).contains(&part));
    notes.check(is_part, "load.error_limit.percentage", "is not between 0 and 1");
}

/// Tells whether a text is `table` or `schema.table`; such names need no escaping in any quotation.
fn is_table(text: &str) -> bool {
    let is_identifier = |part: &str| {
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        part.len() <= 63
            && part.starts_with(is_first)
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('.').count() <= 2 && text.split('.').all(is_identifier)
}

fn check_command(at: &str, command: Option<&[String]>, notes: &mut Notes) {
    let is_right = command.is_none_or(|argv| argv.first().is_some_and(|program| !program.is_empty()));
    notes.check(is_right, at, "is empty; name a program and its arguments");
}

fn duration(at: &str, text: &str) -> Result<Duration, Misfit> {
    parse_duration(text).map_err(|error| Misfit::new(at, format!("is not a duration: {error}")))
}

fn positive_duration(at: &str, text: &str) -> Result<Duration, Misfit> {
    let duration = duration(at, text)?;
    if duration.is_zero() { Err(Misfit::new(at, "must be longer than nothing")) } else { Ok(duration) }
}

fn size(at: &str, text: &str) -> Result<u64, Misfit> {
    parse_size(text).map_err(|error| Misfit::new(at, format!("is not a size: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(mut with: Value) -> Result<Plan, Misfits> {
        with["days"] = json!(["2018-07-25"]);
        Plan::new(&serde_json::from_value(with).unwrap())
    }

    #[test]
    fn all_misfits_are_told_at_once() {
        let with = json!({
            "sources": [
                { "name": "A/b" },
                { "name": "pva", "path": "../%Y" },
                { "name": "psa", "path": "%H" },
                { "name": "old", "folder": "relative" },
                "twice", "twice",
            ],
            "stages": ["load", "load"],
            "mirror": { "parallel": 0, "timeout": "30" },
            "load": { "pieces_table": "x; DROP TABLE y" },
        });
        let text = plan(with).unwrap_err().to_string();
        for at in [
            "sources[0].name",
            "sources[1].path",
            "sources[2].path",
            "sources[3].folder",
            "sources[5].name",
            "`stages`",
            "mirror.parallel",
            "mirror.timeout",
            "`load` needs",
            "load.pieces_table",
        ] {
            assert!(text.contains(at), "{at} is missing in {text}");
        }
    }

    #[test]
    fn a_pattern_names_the_folder_of_a_day() {
        let plan =
            plan(json!({ "sources": [{ "name": "pva", "path": "aoi/%Y%m%d" }], "stages": ["mirror"] }))
                .unwrap();
        assert_eq!(plan.sources[0].folder(plan.days.main[0]), "aoi/20180725");
    }

    #[test]
    fn globs_decide_without_case_what_is_taken() {
        let sources = json!([{ "name": "pva", "exclude": ["test*"] }]);
        let plan = plan(json!({ "sources": sources, "stages": ["mirror"] })).unwrap();
        let takes = |name| plan.sources[0].takes(name);
        assert!(takes("a.zip") && takes("A.ZIP") && takes("a_zip"));
        assert!(!takes("a.ok") && !takes("Test 1.zip"));
    }

    #[test]
    fn loading_needs_to_know_where_to() {
        assert!(plan(json!({ "sources": ["pva"] })).unwrap_err().to_string().contains("connection"));
        assert!(plan(json!({ "sources": ["pva"], "stages": ["mirror", "unpack"] })).is_ok());
        assert!(plan(json!({ "sources": ["pva"], "load": { "command": ["./load.sh"] } })).is_ok());
        assert!(
            is_table("mes.pieces")
                && is_table("t1")
                && !is_table("1t")
                && !is_table("a.b.c")
                && !is_table("")
        );
    }
}
