//! Reads the output of an *external* `DataX` (or its fork Addax), line by line.
//!
//! Everything is recognised by its shape, nothing is required: what did not appear is absent in the
//! [`Summary`]. The Chinese labels are also recognised by their place where the log was written in
//! an encoding that cannot hold them (a Java process under `LANG=C` prints question marks).
//! The exit code of the process says whether the transfer succeeded; this module only tells why not.

use serde::Serialize;

use crate::{bytes::parse_size, statistics::Statistics};

/// How far an external transfer is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Records read so far.
    pub read_records: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Bytes per second since the last line.
    pub bytes_per_second: u64,
    /// Records per second since the last line.
    pub records_per_second: u64,
    /// Records refused so far.
    pub failed_records: u64,
    /// Bytes of the refused records.
    pub failed_bytes: u64,
    /// Records that a transformer took out.
    pub filtered_records: u64,
    /// Share of the tasks that have ended, 0 to 100.
    pub percentage: f64,
}

/// Why an external transfer failed, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Such as `Framework-14`.
    pub code: String,
    /// What the code stands for.
    pub description: String,
    /// What happened.
    pub detail: String,
}

/// What a line meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A line of progress.
    Progress(Progress),
    /// The start of a dirty record; the record follows on the next line.
    DirtyRecord,
    /// A failure; later ones may be more to the point.
    Failure(Failure),
    /// A line of the closing block.
    Closing,
}

/// What the whole output said.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Final counts: from the closing block where there was one, else from the last progress.
    pub statistics: Option<Statistics>,
    /// Says whether the closing block was there, which only a successful transfer prints.
    pub is_complete: bool,
    /// Dirty records that the log shows; at most ten for each task, so often fewer than failed.
    pub shown_dirty_records: u64,
    /// The most telling failure.
    pub failure: Option<Failure>,
}

/// The lines of the closing block, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Start,
    End,
    Seconds,
    TotalBytes,
    ByteSpeed,
    RecordSpeed,
    Read,
    Failed,
    Filtered,
    Other,
}

/// The order of the Chinese labels, for logs in which they are unreadable.
const CHINESE_ORDER: [Label; 7] = [
    Label::Start,
    Label::End,
    Label::Seconds,
    Label::ByteSpeed,
    Label::RecordSpeed,
    Label::Read,
    Label::Failed,
];

/// The state of reading one output.
#[derive(Debug, Default)]
pub struct Scan {
    progress: Option<Progress>,
    closing: Option<Statistics>,
    unreadable_labels: usize,
    shown_dirty_records: u64,
    failure: Option<Failure>,
    diagnosed: bool,
    follows_diagnosis: bool,
}

impl Scan {
    /// Returns the state before the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one line, with or without its line end, and returns what it meant.
    pub fn line(&mut self, line: &str) -> Option<Event> {
        let line = line.trim_end();
        if let Some(progress) = parse_progress(line) {
            self.progress = Some(progress.clone());
            return Some(Event::Progress(progress));
        }
        if line.contains("PluginCollector - ") && line.ends_with(':') {
            self.shown_dirty_records += 1;
            return Some(Event::DirtyRecord);
        }
        if line.contains("DataX智能分析") || line.contains("DataX????") {
            self.follows_diagnosis = true;
            return None;
        }
        if let Some(failure) = parse_failure(line) {
            self.note_failure(&failure);
            return Some(Event::Failure(failure));
        }
        self.closing_line(line).then_some(Event::Closing)
    }

    /// Returns what is known now; may be called at any time.
    pub fn summary(&self) -> Summary {
        Summary {
            statistics: self.statistics(),
            is_complete: self.closing.is_some(),
            shown_dirty_records: self.shown_dirty_records,
            failure: self.failure.clone(),
        }
    }

    /// The failure after `DataX`'s own diagnosis counts; without one, the first.
    fn note_failure(&mut self, failure: &Failure) {
        if self.follows_diagnosis && !self.diagnosed {
            self.diagnosed = true;
            self.failure = Some(failure.clone());
        } else if self.failure.is_none() {
            self.failure = Some(failure.clone());
        }
    }

    fn closing_line(&mut self, line: &str) -> bool {
        let Some((label, value)) = line.split_once(" : ").or_else(|| line.split_once(": ")) else {
            return false;
        };
        let value = value.trim();
        let label = match known_label(label) {
            Some(label) => label,
            None if is_unreadable(label) => {
                self.unreadable_labels += 1;
                CHINESE_ORDER.get(self.unreadable_labels - 1).copied().unwrap_or(Label::Other)
            }
            None => return false,
        };
        apply(self.closing.get_or_insert_default(), label, value);
        true
    }

    fn statistics(&self) -> Option<Statistics> {
        let progress = self.progress.as_ref();
        let mut statistics = match (&self.closing, progress) {
            (None, None) => return None,
            (Some(closing), _) => closing.clone(),
            (None, Some(progress)) => Statistics {
                read_records: progress.read_records,
                failed_records: progress.failed_records,
                ..Statistics::default()
            },
        };
        if let Some(progress) = progress {
            statistics.read_bytes = statistics.read_bytes.max(progress.read_bytes);
            statistics.failed_bytes = progress.failed_bytes;
            statistics.filtered_records = statistics.filtered_records.max(progress.filtered_records);
        }
        let lost = statistics.failed_records + statistics.filtered_records;
        statistics.written_records = statistics.read_records.saturating_sub(lost);
        Some(statistics)
    }
}

fn known_label(label: &str) -> Option<Label> {
    let words = label.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(match words.as_str() {
        "任务启动时刻" | "Job start at" => Label::Start,
        "任务结束时刻" | "Job end at" => Label::End,
        "任务总计耗时" | "Job took secs" => Label::Seconds,
        "Total bytes" => Label::TotalBytes,
        "任务平均流量" | "Average bps" => Label::ByteSpeed,
        "记录写入速度" | "Average rps" => Label::RecordSpeed,
        "读出记录总数" | "Number of rec" => Label::Read,
        "读写失败总数" | "Failed record" => Label::Failed,
        "Transformer过滤记录总数" => Label::Filtered,
        "Transformer成功记录总数" | "Transformer失败记录总数" => Label::Other,
        _ => return None,
    })
}

/// A label of six characters of which nothing is left, padded to 26 columns.
fn is_unreadable(label: &str) -> bool {
    let text = label.trim_end();
    label.len() > text.len() + 8
        && text.chars().count() >= 6
        && text.chars().all(|letter| letter == '?' || letter == char::REPLACEMENT_CHARACTER)
}

fn apply(statistics: &mut Statistics, label: Label, value: &str) {
    let number = || leading_number(value).unwrap_or(0);
    match label {
        Label::Start => value.clone_into(&mut statistics.started_at),
        Label::End => value.clone_into(&mut statistics.ended_at),
        Label::Seconds => statistics.seconds = number(),
        Label::TotalBytes => statistics.read_bytes = number(),
        Label::ByteSpeed => statistics.bytes_per_second = parse_size(value).unwrap_or(0),
        Label::RecordSpeed => statistics.records_per_second = number(),
        Label::Read => statistics.read_records = number(),
        Label::Failed => statistics.failed_records = number(),
        Label::Filtered => statistics.filtered_records = number(),
        Label::Other => {}
    }
}

fn leading_number(text: &str) -> Option<u64> {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().ok()
}

/// `Total 27 records, 1457 bytes | Speed 1.42KB/s, 27 records/s | Error 1 records, 8 bytes | …`
fn parse_progress(line: &str) -> Option<Progress> {
    let at = line.find("Total ")?;
    let mut progress = Progress::default();
    let mut seen_total = false;
    for part in line[at..].split('|').map(str::trim) {
        if let Some(rest) = part.strip_prefix("Total ") {
            (progress.read_records, progress.read_bytes) = records_and_bytes(rest)?;
            seen_total = true;
        } else if let Some(rest) = part.strip_prefix("Speed ") {
            let (bytes, records) = rest.split_once(", ")?;
            progress.bytes_per_second = parse_size(bytes)?;
            progress.records_per_second = leading_number(records)?;
        } else if let Some(rest) = part.strip_prefix("Error ") {
            (progress.failed_records, progress.failed_bytes) = records_and_bytes(rest)?;
        } else if let Some(rest) = part.strip_prefix("Transformer Filter ") {
            progress.filtered_records = leading_number(rest)?;
        } else if let Some(rest) = part.strip_prefix("Percentage ") {
            progress.percentage = rest.trim_end_matches('%').parse().ok()?;
        }
    }
    (seen_total && line.contains("| Speed ")).then_some(progress)
}

/// `27 records, 1457 bytes`
fn records_and_bytes(text: &str) -> Option<(u64, u64)> {
    let (records, bytes) = text.split_once(" records, ")?;
    Some((leading_number(records)?, leading_number(bytes)?))
}

/// `Code:[Framework-14], Description:[…].  - detail`, or with `Describe:` in older parts.
fn parse_failure(line: &str) -> Option<Failure> {
    let rest = &line[line.find("Code:[")? + "Code:[".len()..];
    let (code, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once("Descri")?;
    let (_, rest) = rest.split_once(":[")?;
    // The description may hold brackets of its own; its end is the bracket before the detail.
    let end = rest.find("].  - ").or_else(|| rest.find("] - ")).or_else(|| rest.rfind(']'))?;
    let detail = rest[end + 1..].trim_start_matches(['.', ' ', '-']);
    Some(Failure {
        code: code.to_owned(),
        description: rest[..end].trim_end_matches([' ', '.']).to_owned(),
        detail: detail.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    fn scan(text: &str) -> Summary {
        let mut scan = Scan::new();
        for line in text.lines() {
            scan.line(line);
        }
        scan.summary()
    }

    #[test]
    fn successful_log_gives_its_numbers() {
        let summary = scan(include_str!("../tests/golden/mysql2mysql_update_1dirty_ok.log"));
        assert_eq!(
            summary.statistics.unwrap(),
            Statistics {
                read_records: 27,
                written_records: 26,
                failed_records: 1,
                filtered_records: 0,
                read_bytes: 1457,
                failed_bytes: 8,
                seconds: 0,
                bytes_per_second: 1454,
                records_per_second: 27,
                started_at: "2026-11-21 09:48:00".into(),
                ended_at: "2026-11-21 09:48:01".into(),
            }
        );
        assert!(summary.is_complete);
        assert_eq!((summary.shown_dirty_records, summary.failure), (1, None));
    }

    #[test]
    fn exceeded_error_limits_give_code_and_counts() {
        for (text, detail) in [
            (include_str!("../tests/golden/mysql2mysql_errorlimit0_fail.log"), "脏数据条数"),
            (include_str!("../tests/golden/mysql2mysql_percentage_fail.log"), "脏数据百分比"),
        ] {
            let summary = scan(text);
            let failure = summary.failure.unwrap();
            assert_eq!(failure.code, "Framework-14");
            assert!(failure.description.starts_with("DataX传输脏数据超过用户预期"), "{failure:?}");
            assert!(failure.detail.starts_with(detail), "{failure:?}");
            assert_eq!(summary.statistics.unwrap().failed_records, 1);
            assert!(!summary.is_complete);
        }
    }

    #[test]
    fn configuration_error_is_that_of_the_diagnosis_and_not_of_what_came_after() {
        let failure = scan(include_str!("../tests/golden/config_error.log")).failure.unwrap();
        assert_eq!(failure.code, "Common-00");
        assert_eq!(failure.description, "您提供的配置文件存在错误信息，请检查您的作业配置");
        assert!(failure.detail.contains("[maybe]"), "{failure:?}");
    }

    #[test]
    fn killed_log_has_no_end() {
        let summary = scan(include_str!("../tests/golden/sigterm.log"));
        assert_eq!(summary, Summary::default());
    }

    #[test]
    fn printed_rows_do_not_confuse() {
        let summary = scan(include_str!("../tests/golden/stream_print_params.log"));
        assert_eq!(summary.statistics.unwrap().read_records, 6);
        assert_eq!(scan("Total 5 apples\na : b\n任务 : 7\nCode:[x] and no more"), Summary::default());
    }

    #[test]
    fn labels_of_the_fork_are_read() {
        let text = "Job start  at             : 2026-11-21 09:48:00\n\
                    Job end    at             : 2026-11-21 09:50:00\n\
                    Job took secs             :                120s\n\
                    Total   bytes             :                2048\n\
                    Average   bps             :               17B/s\n\
                    Average   rps             :             10rec/s\n\
                    Number of rec             :                1200\n\
                    Failed record             :                   3\n";
        let statistics = scan(text).statistics.unwrap();
        assert_eq!((statistics.seconds, statistics.read_bytes, statistics.bytes_per_second), (120, 2048, 17));
        assert_eq!((statistics.read_records, statistics.written_records), (1200, 1197));
    }

    #[test]
    fn unreadable_labels_are_recognised_by_their_place() {
        let good = include_str!("../tests/golden/mysql2mysql_update_1dirty_ok.log");
        let bad: String = good.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let mut expected = scan(good);
        let mut found = scan(&bad);
        expected.shown_dirty_records = 0;
        found.shown_dirty_records = 0;
        assert_eq!(found, expected);
    }

    #[test]
    fn progress_with_transformers_is_read() {
        let line = "2026-11-21 01:48:01.422 [job-0] INFO  StandAloneJobContainerCommunicator - Total 1000 records, 5242880 bytes | Speed 5.00MB/s, 1000 records/s | Error 2 records, 10 bytes |  All Task WaitWriterTime 1,000.000s |  All Task WaitReaderTime 0.001s | Transfermor Success 900 records | Transformer Error 2 records | Transformer Filter 98 records | Transformer usedTime 0.010s | Percentage 50.00%\r\n";
        let Some(Event::Progress(progress)) = Scan::new().line(line) else { panic!("no progress") };
        assert_eq!((progress.filtered_records, progress.bytes_per_second), (98, 5 << 20));
        assert!((progress.percentage - 50.0).abs() < f64::EPSILON);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line in "(Total |Code:\\[|Speed |: |\\||\\]|\\PC){0,12}") {
            Scan::new().line(&line);
        }
    }
}
