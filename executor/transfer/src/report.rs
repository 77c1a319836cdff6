//! The log of a transfer, in the format and with the labels that parsers of `DataX` logs look for.
//!
//! Only lines that such parsers know are `DataX`'s: the `Total … records` line, the closing block,
//! the shape of errors and of dirty records. Everything else says what this engine does.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    bytes::size_text,
    dirty::DirtyRecord,
    moment::{Zone, now},
    statistics::{Statistics, Tally},
};

/// Where the log goes.
pub(crate) struct Report<'a> {
    out: &'a mut (dyn io::Write + Send),
    zone: Zone,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

impl<'a> Report<'a> {
    pub(crate) fn new(out: &'a mut (dyn io::Write + Send), zone: Zone) -> Self {
        Self { out, zone }
    }

    pub(crate) fn line(&mut self, level: Level, logger: &str, message: &str) -> io::Result<()> {
        let level = match level {
            Level::Info => "INFO ",
            Level::Warn => "WARN ",
            Level::Error => "ERROR",
        };
        let now = self.zone.text_with_millis(now());
        writeln!(self.out, "{now} [job-0] {level} {logger} - {message}")
    }

    pub(crate) fn info(&mut self, message: &str) -> io::Result<()> {
        self.line(Level::Info, "JobContainer", message)
    }

    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The line of progress; the speed is that since the last one.
    pub(crate) fn progress(&mut self, now: &Tally, since: &Tally, elapsed: Duration) -> io::Result<()> {
        let seconds = elapsed.as_secs().max(1);
        let bytes = now.read_bytes.saturating_sub(since.read_bytes) / seconds;
        let records = now.read_records.saturating_sub(since.read_records) / seconds;
        let message = format!(
            "Total {} records, {} bytes | Speed {}/s, {records} records/s | Error {} records, {} bytes | \
             \x20All Task WaitWriterTime {} |  All Task WaitReaderTime {} | Percentage {:.2}%",
            now.read_records,
            now.read_bytes,
            size_text(bytes),
            now.failed_records,
            now.failed_bytes,
            seconds_text(now.wait_writer),
            seconds_text(now.wait_reader),
            now.progress() * 100.0,
        );
        self.line(Level::Info, "StandAloneJobContainerCommunicator", &message)
    }

    pub(crate) fn dirty(&mut self, record: &DirtyRecord) -> io::Result<()> {
        let message = format!("脏数据: \n{}", record.json(self.zone));
        self.line(Level::Error, "StdoutPluginCollector", &message)
    }

    /// The closing block of a transfer that succeeded.
    pub(crate) fn closing(&mut self, statistics: &Statistics) -> io::Result<()> {
        let Statistics { seconds, records_per_second, read_records, failed_records, .. } = statistics;
        let rows = [
            ("任务启动时刻", statistics.started_at.clone()),
            ("任务结束时刻", statistics.ended_at.clone()),
            ("任务总计耗时", format!("{seconds}s")),
            ("任务平均流量", format!("{}/s", size_text(statistics.bytes_per_second))),
            ("记录写入速度", format!("{records_per_second}rec/s")),
            ("读出记录总数", read_records.to_string()),
            ("读写失败总数", failed_records.to_string()),
        ];
        let mut block = String::from("\n");
        for (label, value) in rows {
            block.push_str(&format!("{label:<26}: {value:>19}\n"));
        }
        self.info(&block)
    }

    /// What a transfer failed of, where parsers look for it.
    pub(crate) fn failure(&mut self, code: &str, description: &str, detail: &str) -> io::Result<()> {
        let message = format!(
            "\n\n经DataX智能分析,该任务最可能的错误原因是:\n\
             Code:[{code}], Description:[{description}].  - {detail}\n"
        );
        self.line(Level::Error, "Engine", &message)
    }

    pub(crate) fn clock(&self, instant: DateTime<Utc>) -> String {
        self.zone.text(instant)
    }
}

/// Seconds with thousands separators and three decimals, as Java's `%,.3fs`.
fn seconds_text(time: Duration) -> String {
    let digits = time.as_secs().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped}.{:03}s", time.subsec_millis())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    fn written(write: impl Fn(&mut Report<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Report::new(&mut out, Zone::parse(Zone::DEFAULT).unwrap()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn progress_line_is_that_of_the_recorded_logs() {
        let tally = Tally {
            read_records: 27,
            read_bytes: 1457,
            failed_records: 1,
            failed_bytes: 8,
            wait_reader: Duration::from_millis(1_234_001),
            tasks: 1,
            finished_tasks: 1,
            ..Tally::default()
        };
        let text = written(|report| report.progress(&tally, &Tally::default(), Duration::ZERO).unwrap());
        assert_eq!(
            text.split_once(" [job-0] ").unwrap().1,
            "INFO  StandAloneJobContainerCommunicator - Total 27 records, 1457 bytes | Speed 1.42KB/s, 27 records/s | Error 1 records, 8 bytes |  All Task WaitWriterTime 0.000s |  All Task WaitReaderTime 1,234.001s | Percentage 100.00%\n"
        );
    }

    #[test]
    fn closing_block_is_that_of_the_recorded_logs() {
        let statistics = Statistics {
            started_at: "2026-11-21 09:48:00".into(),
            ended_at: "2026-11-21 09:48:01".into(),
            bytes_per_second: 1457,
            records_per_second: 27,
            read_records: 27,
            failed_records: 1,
            ..Statistics::default()
        };
        let text = written(|report| report.closing(&statistics).unwrap());
        let recorded = include_str!("../tests/golden/mysql2mysql_update_1dirty_ok.log");
        let block = recorded.split_once("任务启动时刻").unwrap().1;
        assert!(text.contains(block.trim_end()), "{text}");
    }
}
