//! Moves the records: opens one task after another, pulls batches, writes them, counts.
//!
//! While a batch is written the next is read, both in one future, so at most two batches are in
//! memory and nothing runs on its own. The log gets a line of progress whenever the interval is
//! over, also while a database takes its time.

use std::{io, sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::future;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    column::Record,
    dirty::DirtyRecord,
    job::Job,
    moment::now,
    plugin::{
        Batch, BatchLimit, ConnectPolicy, Context, Notes, Outcome, PluginError, ReadTask, Reader, Target,
        Writer,
    },
    report::{Level, Report},
    statistics::{Statistics, Tally},
    throttle,
};

/// How a transfer is run, apart from what its definition says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two lines of progress. A definition's own interval comes first.
    pub report_interval: Duration,
    /// Dirty records that the log shows of each task; the others are counted.
    pub shown_dirty_records: u64,
    /// Rounds in which all addresses of a connection are tried.
    pub connect_tries: u32,
    /// Pause after the first round; it doubles.
    pub connect_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(10),
            shown_dirty_records: 10,
            connect_tries: 3,
            connect_pause: Duration::from_secs(1),
        }
    }
}

/// Why a transfer failed. Rows that were committed before stay in the target.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("reader {plugin} failed")]
    Read {
        plugin: &'static str,
        statistics: Box<Statistics>,
        #[source]
        source: PluginError,
    },
    #[error("writer {plugin} failed")]
    Write {
        plugin: &'static str,
        statistics: Box<Statistics>,
        #[source]
        source: PluginError,
    },
    #[error("{found} dirty records are more than the error limit of {limit}")]
    TooManyDirtyRecords { found: u64, limit: u64, statistics: Box<Statistics> },
    #[error("{found} of {total} records are dirty, which is more than the error limit of {limit}")]
    TooLargeDirtyPart { found: u64, total: u64, limit: f64, statistics: Box<Statistics> },
    #[error("log could not be written")]
    Log {
        #[source]
        source: io::Error,
    },
}

impl TransferError {
    /// Returns what was moved before the failure; nothing where not even that could be told.
    pub fn statistics(&self) -> Option<&Statistics> {
        match self {
            Self::Read { statistics, .. }
            | Self::Write { statistics, .. }
            | Self::TooManyDirtyRecords { statistics, .. }
            | Self::TooLargeDirtyPart { statistics, .. } => Some(statistics),
            Self::Log { .. } => None,
        }
    }

    /// Returns the code under which `DataX` reports such a failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyDirtyRecords { .. } | Self::TooLargeDirtyPart { .. } => "Framework-14",
            Self::Read { .. } | Self::Write { .. } | Self::Log { .. } => "Framework-02",
        }
    }
}

/// Moves all records of `job` and writes the log.
///
/// The future must be driven to its end: cancel by ending the process.
///
/// # Errors
/// A reader or writer that cannot go on, too many dirty records, or a log that cannot be written.
pub async fn run(
    job: &Job,
    options: &Options,
    log: &mut (dyn io::Write + Send),
) -> Result<Statistics, TransferError> {
    let mut transfer = Transfer::new(job, options, log);
    let ended = transfer.run().await;
    transfer.close(ended)
}

/// Why the inner part stopped; the statistics are added at the end.
enum Stop {
    Read(PluginError),
    Write(PluginError),
    Records { limit: u64 },
    Part { limit: f64 },
    Log(io::Error),
}

impl From<io::Error> for Stop {
    fn from(source: io::Error) -> Self {
        Self::Log(source)
    }
}

struct Transfer<'a> {
    job: &'a Job,
    options: &'a Options,
    report: Report<'a>,
    context: Context,
    tally: Tally,
    started: Instant,
    started_at: chrono::DateTime<Utc>,
    /// What the last line of progress said, and when.
    reported: (Instant, Tally),
    interval: tokio::time::Interval,
    shown: u64,
    limit: BatchLimit,
}

/// One task while it runs.
struct Lane {
    reader: Box<dyn Reader>,
    writer: Box<dyn Writer>,
    at_end: bool,
}

/// What one round of reading and writing gave.
struct Round {
    read: Result<Option<Batch>, PluginError>,
    written: Result<Outcome, PluginError>,
    read_time: Duration,
    write_time: Duration,
}

impl<'a> Transfer<'a> {
    fn new(job: &'a Job, options: &'a Options, log: &'a mut (dyn io::Write + Send)) -> Self {
        let setting = &job.setting;
        let started = Instant::now();
        let period = setting.report_interval.unwrap_or(options.report_interval).max(Duration::from_millis(1));
        let mut interval = tokio::time::interval_at(started + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            job,
            options,
            report: Report::new(log, setting.conversion.zone),
            context: Context {
                conversion: Arc::new(setting.conversion.clone()),
                channels: setting.channels,
                connect: ConnectPolicy { tries: options.connect_tries, pause: options.connect_pause },
                notes: Notes::default(),
            },
            tally: Tally::default(),
            started,
            started_at: now(),
            reported: (started, Tally::default()),
            interval,
            shown: 0,
            limit: throttle::batch_limit(job.sink.batch_limit(), setting.speed),
        }
    }

    async fn run(&mut self) -> Result<(), Stop> {
        self.announce()?;
        let tasks = self.job.source.split(&self.context).await.map_err(Stop::Read)?;
        let prepared = self.job.sink.prepare(&self.context, tasks.len()).await;
        self.write_notes()?;
        let mut target = prepared.map_err(Stop::Write)?;
        let (reader, writer) = (self.job.reader(), self.job.writer());
        let count = tasks.len();
        self.report.info(&format!("Job set Channel-Number to {} channels.", self.context.channels))?;
        self.report.info(&format!("DataX Reader.Job [{reader}] splits to [{count}] tasks."))?;
        self.report.info(&format!("DataX Writer.Job [{writer}] splits to [{count}] tasks."))?;
        self.tally.tasks = count;
        for (index, task) in tasks.into_iter().enumerate() {
            self.run_task(index, task, target.as_mut()).await?;
        }
        self.check_at_end()?;
        let posted = target.post(&self.context).await;
        self.write_notes()?;
        posted.map_err(Stop::Write)
    }

    fn announce(&mut self) -> io::Result<()> {
        self.report.line(Level::Info, "Engine", &format!("\n{}\n", self.job.echo()))?;
        for note in self.job.notes() {
            self.report.line(Level::Warn, "Engine", note)?;
        }
        self.report.info("DataX jobContainer starts job.")
    }

    async fn run_task(
        &mut self,
        index: usize,
        task: Box<dyn ReadTask>,
        target: &mut dyn Target,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        self.shown = 0;
        let writer = target.open(&self.context, index).await.map_err(Stop::Write)?;
        let reader = task.open(&self.context).await.map_err(Stop::Read)?;
        let mut lane = Lane { reader, writer, at_end: false };
        let message = format!("taskGroup[0] taskId[{index}] attemptCount[1] is started");
        self.report.line(Level::Info, "TaskGroupContainer", &message)?;
        self.write_notes()?;
        self.move_records(&mut lane).await?;
        lane.writer.finish().await.map_err(Stop::Write)?;
        self.tally.finished_tasks += 1;
        self.write_notes()?;
        let millis = started.elapsed().as_millis();
        let message = format!("taskGroup[0] taskId[{index}] is successed, used[{millis}]ms");
        Ok(self.report.line(Level::Info, "TaskGroupContainer", &message)?)
    }

    /// Pulls and writes until the reader is at its end. The last batch is written in a round that
    /// reads nothing.
    async fn move_records(&mut self, lane: &mut Lane) -> Result<(), Stop> {
        let mut pending = Vec::new();
        loop {
            let round = self.round(lane, std::mem::take(&mut pending)).await?;
            self.count_written(round.written)?;
            match round.read {
                // What was written is counted before the reader's failure ends everything.
                Err(error) => return Err(Stop::Read(error)),
                Ok(None) if lane.at_end => return Ok(()),
                Ok(None) => lane.at_end = true,
                Ok(Some(batch)) => pending = self.count_read(batch)?,
            }
            let waits = round.read_time.abs_diff(round.write_time);
            if round.read_time > round.write_time {
                self.tally.wait_reader += waits;
            } else {
                self.tally.wait_writer += waits;
            }
            self.check_limit()?;
            self.keep_pace().await?;
        }
    }

    /// Writes one batch while the next is read, and reports progress meanwhile.
    async fn round(&mut self, lane: &mut Lane, batch: Vec<Record>) -> Result<Round, Stop> {
        let limit = self.limit;
        let started = Instant::now();
        let Lane { reader, writer, at_end } = lane;
        let reading = async {
            let read = if *at_end { Ok(None) } else { reader.next_batch(limit).await };
            (read, started.elapsed())
        };
        let writing = async {
            let written = if batch.is_empty() { Ok(Outcome::default()) } else { writer.write(batch).await };
            (written, started.elapsed())
        };
        let mut both = std::pin::pin!(future::join(reading, writing));
        loop {
            tokio::select! {
                // The work first: a line of progress that is due says more when the work is counted.
                biased;
                ((read, read_time), (written, write_time)) = &mut both => {
                    return Ok(Round { read, written, read_time, write_time });
                }
                _ = self.interval.tick() => self.report_progress()?,
            }
        }
    }

    fn count_read(&mut self, batch: Batch) -> Result<Vec<Record>, Stop> {
        let dirty_bytes: u64 = batch.dirty.iter().map(DirtyRecord::byte_size).sum();
        let records = batch.records.len() + batch.dirty.len();
        self.tally.read_records += u64::try_from(records).unwrap_or(u64::MAX);
        self.tally.read_bytes += batch.bytes + dirty_bytes;
        self.note_dirty(&batch.dirty)?;
        // Counted as written until the writer refuses them.
        self.tally.in_flight = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
        Ok(batch.records)
    }

    fn count_written(&mut self, written: Result<Outcome, PluginError>) -> Result<(), Stop> {
        self.write_notes()?;
        let outcome = written.map_err(Stop::Write)?;
        let dirty = u64::try_from(outcome.dirty.len()).unwrap_or(u64::MAX);
        self.tally.written_records += std::mem::take(&mut self.tally.in_flight).saturating_sub(dirty);
        self.report.raw(&outcome.printed)?;
        Ok(self.note_dirty(&outcome.dirty)?)
    }

    fn note_dirty(&mut self, dirty: &[DirtyRecord]) -> io::Result<()> {
        for record in dirty {
            self.tally.failed_records += 1;
            self.tally.failed_bytes += record.byte_size();
            if self.shown < self.options.shown_dirty_records {
                self.shown += 1;
                self.report.dirty(record)?;
            }
        }
        Ok(())
    }

    fn write_notes(&mut self) -> io::Result<()> {
        for note in self.context.notes.take() {
            self.report.line(Level::Info, "Task", &note)?;
        }
        Ok(())
    }

    fn check_limit(&self) -> Result<(), Stop> {
        let limit = self.job.setting.error_limit;
        match limit.records {
            Some(records) if limit.is_passed(self.tally.failed_records) => {
                Err(Stop::Records { limit: records })
            }
            _ => Ok(()),
        }
    }

    fn check_at_end(&self) -> Result<(), Stop> {
        self.check_limit()?;
        let limit = self.job.setting.error_limit;
        match limit.part {
            Some(part) if limit.is_passed_at_end(self.tally.failed_records, self.tally.read_records) => {
                Err(Stop::Part { limit: part })
            }
            _ => Ok(()),
        }
    }

    /// Waits where the transfer is faster than it may be, and reports progress meanwhile.
    async fn keep_pace(&mut self) -> io::Result<()> {
        let Tally { read_bytes, read_records, .. } = self.tally;
        let speed = self.job.setting.speed;
        let pause = throttle::pause(speed, read_bytes, read_records, self.started.elapsed());
        let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
        while !pause.is_zero() {
            tokio::select! {
                // Both may go first; neither loses anything.
                () = &mut sleep => break,
                _ = self.interval.tick() => self.report_progress()?,
            }
        }
        Ok(())
    }

    fn report_progress(&mut self) -> io::Result<()> {
        let (at, since) = self.reported;
        self.report.progress(&self.tally, &since, at.elapsed())?;
        self.reported = (Instant::now(), self.tally);
        self.report.flush()
    }

    /// Writes the end of the log and turns the reason for stopping into the result.
    fn close(mut self, ended: Result<(), Stop>) -> Result<Statistics, TransferError> {
        let elapsed = self.started.elapsed();
        let mut statistics = self.tally.statistics(elapsed);
        statistics.started_at = self.report.clock(self.started_at);
        statistics.ended_at = self.report.clock(now());
        let result = self.result(ended, statistics);
        self.write_end(elapsed, &result).map_err(|source| TransferError::Log { source })?;
        result
    }

    fn result(&self, ended: Result<(), Stop>, numbers: Statistics) -> Result<Statistics, TransferError> {
        let statistics = Box::new(numbers);
        let found = statistics.failed_records;
        Err(match ended {
            Ok(()) => return Ok(*statistics),
            Err(Stop::Read(source)) => TransferError::Read { plugin: self.job.reader(), statistics, source },
            Err(Stop::Write(source)) => {
                TransferError::Write { plugin: self.job.writer(), statistics, source }
            }
            Err(Stop::Records { limit }) => TransferError::TooManyDirtyRecords { found, limit, statistics },
            Err(Stop::Part { limit }) => {
                let total = statistics.read_records;
                TransferError::TooLargeDirtyPart { found, total, limit, statistics }
            }
            Err(Stop::Log(source)) => TransferError::Log { source },
        })
    }

    /// The last line of progress, then the closing block or the failure. The last speed is the mean.
    fn write_end(&mut self, elapsed: Duration, result: &Result<Statistics, TransferError>) -> io::Result<()> {
        self.write_notes()?;
        self.report.progress(&self.tally, &Tally::default(), elapsed)?;
        match result {
            Ok(statistics) => {
                self.report.info("DataX jobId [0] completed successfully.")?;
                self.report.closing(statistics)?;
            }
            Err(error) => {
                let detail = chain(error);
                self.report.failure(error.code(), description(error), &detail)?;
            }
        }
        self.report.flush()
    }
}

fn description(error: &TransferError) -> &'static str {
    match error {
        TransferError::TooManyDirtyRecords { .. } | TransferError::TooLargeDirtyPart { .. } => {
            "more dirty records than the error limit allows; see the dirty records in this log, or raise the limit"
        }
        TransferError::Read { .. } | TransferError::Write { .. } | TransferError::Log { .. } => {
            "the transfer failed while it ran"
        }
    }
}

/// An error with its causes in one line; an external parser sees only this.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.replace('\n', " ")
}
