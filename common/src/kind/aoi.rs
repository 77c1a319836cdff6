//! Parameters of the `aoi` kind: inspection archives from FTP servers or folders into a database.
//!
//! Three stages, each usable alone and each replaceable by the plant's own command: `mirror` fetches the archives of
//! dated folders, `unpack` opens them, `load` writes rolls and defects. Durations and sizes are texts with a unit and are
//! read by the kind, which reports every misfit by the path of its parameter.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Fetches inspection archives, unpacks them and loads their rolls and defects into a database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AoiWith {
    /// Where archives come from. A text alone is the name of an FTP connection and of the source.
    pub sources: Vec<Source>,
    /// Stages to run, in this order; all where absent.
    #[serde(default = "all_stages")]
    pub stages: Vec<Stage>,
    /// Folder that keeps `archives`, `reports` and `quarantine`; in the executor's state folder where absent.
    pub store: Option<String>,
    /// How many days archives and reports stay in the store after their own; for ever where absent.
    pub keep_days: Option<u16>,
    /// The span of time whose days are ingested, usually `{ start: "{{ data_interval_start }}", end: "{{ data_interval_end }}" }`.
    pub interval: Option<Interval>,
    /// Days to ingest instead of `interval`, as `2018-07-25`, `2018/07/25` or `20180725`.
    pub days: Option<Vec<String>>,
    /// How many days before the first day are looked at again for files that came late; 0 where absent.
    #[serde(default)]
    pub lookback_days: u16,
    /// Time zone in which the instants of `interval` are read as days, such as `Asia/Shanghai`; as written where absent.
    pub timezone: Option<String>,
    /// What an interval without any file does to the task; `fail` where absent.
    #[serde(default)]
    pub on_empty: OnEmpty,
    /// What broken archives and reports do to the task beside being moved to the quarantine; `quarantine` where absent.
    #[serde(default)]
    pub on_broken: OnBroken,
    /// Takes archives of these days out of the quarantine first, for another try after a fault was mended.
    #[serde(default)]
    pub retry_quarantined: bool,
    /// How archives are fetched.
    #[serde(default)]
    pub mirror: Mirror,
    /// How archives are unpacked.
    #[serde(default)]
    pub unpack: Unpack,
    /// Where rolls and defects are written; needed for the stage `load`.
    pub load: Option<Load>,
}

fn all_stages() -> Vec<Stage> {
    vec![Stage::Mirror, Stage::Unpack, Stage::Load]
}

/// One stage of the ingestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Fetches archives into the store.
    Mirror,
    /// Unpacks archives of the store.
    Unpack,
    /// Loads unpacked reports into the database.
    Load,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mirror => "mirror",
            Self::Unpack => "unpack",
            Self::Load => "load",
        })
    }
}

/// A place that archives come from.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "SourceText")]
pub struct Source {
    /// Name; the folder of this source in the store.
    pub name: String,
    /// The FTP connection; that of the same name where neither this nor `folder` is given.
    pub connection: Option<String>,
    /// A folder of this machine, instead of a connection.
    pub folder: Option<String>,
    /// Folder on the FTP server that holds the dated folders; the connection's own where absent.
    pub home: Option<String>,
    /// Pattern of the dated folders.
    pub path: String,
    /// How the server writes names, and the archives their texts where they are not UTF-8.
    pub encoding: TextEncoding,
    /// Globs of the files to take.
    pub include: Vec<String>,
    /// Globs of the files to leave.
    pub exclude: Vec<String>,
}

/// The two ways to write a source; exists for the schema and for reading.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the shape of a document; read by the schema generator only")]
enum SourceText {
    /// The name of an FTP connection, also the name of the source.
    Name(String),
    /// A source in full.
    Full(SourceFields),
}

/// A place that archives come from, in full.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourceFields {
    /// Name; the folder of this source in the store.
    name: String,
    /// The FTP connection; that of the same name where neither this nor `folder` is given.
    connection: Option<String>,
    /// A folder of this machine, instead of a connection.
    folder: Option<String>,
    /// Folder on the FTP server that holds the dated folders; the connection's own where absent.
    home: Option<String>,
    /// Pattern of the dated folders, `%Y/%m/%d` where absent.
    #[serde(default = "dated_path")]
    path: String,
    /// How the server writes names, and the archives their texts where they are not UTF-8; `utf8` where absent.
    #[serde(default)]
    encoding: TextEncoding,
    /// Globs of the files to take, `["*.zip", "*_zip"]` where absent; case does not matter.
    #[serde(default = "archives")]
    include: Vec<String>,
    /// Globs of the files to leave; case does not matter.
    #[serde(default)]
    exclude: Vec<String>,
}

fn dated_path() -> String {
    "%Y/%m/%d".to_owned()
}

fn archives() -> Vec<String> {
    vec!["*.zip".to_owned(), "*_zip".to_owned()]
}

impl From<SourceFields> for Source {
    fn from(fields: SourceFields) -> Self {
        let SourceFields { name, connection, folder, home, path, encoding, include, exclude } = fields;
        let connection = connection.or_else(|| folder.is_none().then(|| name.clone()));
        Self { name, connection, folder, home, path, encoding, include, exclude }
    }
}

impl From<String> for Source {
    fn from(name: String) -> Self {
        Self {
            connection: Some(name.clone()),
            name,
            folder: None,
            home: None,
            path: dated_path(),
            encoding: TextEncoding::default(),
            include: archives(),
            exclude: Vec::new(),
        }
    }
}

/// By hand, because an untagged enum would answer every mistake with "no variant matched".
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> de::Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an FTP connection, or a source with `name` and `connection` or `folder`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
        Ok(text.to_owned().into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        SourceFields::deserialize(de::value::MapAccessDeserializer::new(map)).map(Into::into)
    }
}

/// How bytes are read as text where they do not say so themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextEncoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// GBK, as Chinese Windows writes it.
    Gbk,
}

/// A span of time; the days that it touches are ingested.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Its first instant, RFC 3339, or a day.
    pub start: String,
    /// The first instant after it, RFC 3339, or a day.
    pub end: String,
}

/// What an interval without any file does to the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEmpty {
    /// The task fails.
    #[default]
    Fail,
    /// The task becomes `skipped`.
    Skip,
    /// The task succeeds.
    Ok,
}

/// What broken archives and reports do to the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBroken {
    /// They are moved to the quarantine, and the task fails once all others are ingested.
    Fail,
    /// They are moved to the quarantine and counted.
    #[default]
    Quarantine,
}

/// How archives are fetched.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// Program and arguments that take the place of this stage.
    pub command: Option<Vec<String>>,
    /// When a file is complete.
    pub ready: Ready,
    /// How long to wait for files that are not complete, `10m` where absent.
    pub ready_wait: String,
    /// What files that are still not complete do to the task; `fail` where absent.
    pub on_unready: OnUnready,
    /// Connections to one server at a time, 1 to 16; 4 where absent.
    pub parallel: u8,
    /// How often an operation is tried without any progress, 1 to 20; 5 where absent.
    pub attempts: u8,
    /// Pause before the second try; doubles up to a minute; `1s` where absent.
    pub retry_delay: String,
    /// Silence after which a connection counts as broken, `30s` where absent.
    pub timeout: String,
    /// Largest file that is fetched, `2GiB` where absent; larger ones are refused and counted.
    pub file_size_max: String,
    /// Most files taken from one dated folder, 10000 where absent; more fail the task.
    pub files_max: u32,
    /// Free space that must remain on the store's file system, `1GiB` where absent.
    pub free_space_min: String,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            command: None,
            ready: Ready::default(),
            ready_wait: "10m".to_owned(),
            on_unready: OnUnready::default(),
            parallel: 4,
            attempts: 5,
            retry_delay: "1s".to_owned(),
            timeout: "30s".to_owned(),
            file_size_max: "2GiB".to_owned(),
            files_max: 10_000,
            free_space_min: "1GiB".to_owned(),
        }
    }
}

/// When a file is complete.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// At once.
    Now,
    /// When its size and time have not changed over some looks.
    Stable(Stable),
    /// When its size is not zero and its time is at least this long ago, such as `5m`.
    MinAge(String),
    /// When a file beside it says so: a glob such as `*.ok`, whose `*` stands for the archive's name without ending; case
    /// does not matter.
    Marker(String),
}

impl Default for Ready {
    fn default() -> Self {
        Self::Stable(Stable::default())
    }
}

/// Looks at a file until it no longer changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stable {
    /// Looks that must agree, 2 to 20; 2 where absent.
    pub polls: u8,
    /// Time between two looks, `30s` where absent.
    pub interval: String,
}

impl Default for Stable {
    fn default() -> Self {
        Self { polls: 2, interval: "30s".to_owned() }
    }
}

/// What files that are still not complete do to the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnready {
    /// The task fails once all others are ingested; its next attempt takes them.
    #[default]
    Fail,
    /// They are counted and left for a later run that looks back.
    Leave,
}

/// How archives are unpacked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Unpack {
    /// Program and arguments that take the place of this stage.
    pub command: Option<Vec<String>>,
    /// Most entries of an archive, 10000 where absent.
    pub entries_max: u32,
    /// Most bytes that an archive may unpack to, `4GiB` where absent.
    pub size_max: String,
    /// How many times larger than itself an archive may become, 200 where absent; small archives are exempt.
    pub ratio_max: u32,
}

impl Default for Unpack {
    fn default() -> Self {
        Self { command: None, entries_max: 10_000, size_max: "4GiB".to_owned(), ratio_max: 200 }
    }
}

/// Where rolls and defects are written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Program and arguments that take the place of this stage.
    pub command: Option<Vec<String>>,
    /// The database: a connection to MySQL, MariaDB, PostgreSQL or SQLite.
    pub connection: Option<String>,
    /// Makes the two tables where they are missing.
    pub create_tables: bool,
    /// Table of rolls, `pieces_process3` where absent.
    pub pieces_table: Option<String>,
    /// Table of defects, `defects_process3` where absent.
    pub defects_table: Option<String>,
    /// How many defects may be unreadable.
    pub error_limit: ErrorLimit,
    /// Further formats of times, in the notation of strftime, tried before the known ones.
    pub time_formats: Vec<String>,
    /// Writes rolls again even where nothing has changed since they were written.
    pub reload: bool,
}

/// How many defects may be unreadable before the task fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorLimit {
    /// How many; 0 where neither this nor `percentage` is given.
    pub record: Option<u64>,
    /// Which part of all defects, 0 to 1.
    pub percentage: Option<f64>,
}

impl AoiWith {
    /// Returns the names of the connections that the parameters refer to, each once.
    #[must_use]
    pub fn connections(&self) -> Vec<&str> {
        let sources = self.sources.iter().filter_map(|source| source.connection.as_deref());
        let target = self.load.as_ref().and_then(|load| load.connection.as_deref());
        let mut names: Vec<&str> = sources.chain(target).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<AoiWith, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn a_source_may_be_a_name_alone() {
        let with = read(json!({
            "sources": ["pva", { "name": "psa", "connection": "psa_ftp", "encoding": "gbk" }, { "name": "old", "folder": "/mnt" }],
            "load": { "connection": "aoi" },
        }))
        .expect("reads");
        assert_eq!(with.connections(), ["aoi", "psa_ftp", "pva"]);
        assert_eq!(with.sources[0].path, "%Y/%m/%d");
        assert_eq!(with.sources[2].connection, None);
        assert_eq!(with.stages, [Stage::Mirror, Stage::Unpack, Stage::Load]);
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = read(json!({ "sources": [{ "name": "pva", "hoem": "/" }] })).expect_err("refused");
        assert!(error.to_string().contains("hoem"), "{error}");
        let error = read(json!({ "sources": [], "mirror": { "retries": 3 } })).expect_err("refused");
        assert!(error.to_string().contains("retries"), "{error}");
    }

    #[test]
    fn readiness_is_a_word_or_a_rule() {
        let ready = |value| {
            read(json!({ "sources": ["a"], "mirror": { "ready": value } })).map(|with| with.mirror.ready)
        };
        assert_eq!(ready(json!("now")).expect("reads"), Ready::Now);
        assert_eq!(ready(json!({ "min_age": "5m" })).expect("reads"), Ready::MinAge("5m".to_owned()));
        assert_eq!(
            ready(json!({ "stable": { "interval": "1s" } })).expect("reads"),
            Ready::Stable(Stable { polls: 2, interval: "1s".to_owned() })
        );
        assert!(ready(json!("later")).is_err());
    }

    #[test]
    fn the_schema_tells_both_ways_to_write_a_source() {
        let schema = serde_json::to_string(&schemars::schema_for!(AoiWith)).expect("serialises");
        assert!(
            schema.contains("lookback_days") && schema.contains("SourceFields") && schema.contains("anyOf"),
            "{schema}"
        );
    }
}
