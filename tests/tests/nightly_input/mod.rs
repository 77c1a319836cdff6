//! Input of the nightly work, and the comparison of what arrived with what was put in.

mod embedded;
mod plant;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, ensure};

pub(crate) use self::{embedded::Embedded, plant::Plant};

/// The workflow as it stands in the repository.
pub(crate) const WORKFLOW: &str = include_str!("../../../examples/nightly/workflow.yaml");
/// The job file as it stands in the repository.
pub(crate) const JOB: &str = include_str!("../../../examples/nightly/jobs/mes_wpc_wo.json");
/// The day that the run is about.
pub(crate) const DAY: &str = "2018-07-25";
/// Columns that the job moves, in its order.
pub(crate) const COLUMNS: &str =
    "wo_id, wo_no, product, state, quantity, yield_rate, remark, due_on, created_at, updated_at";

/// Moments of kills: random, and the same each time.
#[derive(Debug)]
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        // Knuth's multiplicative generator; any spread of moments will do.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Reads the witness of what really ran and checks that no two attempts of a task instance were alive at once.
///
/// Lines are `S|E <task instance> <attempt> <nanoseconds since boot>`, written by the attempts themselves.
pub(crate) fn assert_no_overlap(witness: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(witness).context("the attempts wrote a witness")?;
    let mut starts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut open: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, instance, attempt] = words[..] else { continue };
        match kind {
            "S" => {
                let count = starts.entry(attempt).or_default();
                *count += 1;
                ensure!(*count == 1, "attempt {attempt} was started {count} times");
                // An attempt that was killed wrote no end; its successor may only start after it was seen gone.
                open.insert(instance, attempt);
            }
            "E" => {
                ensure!(
                    open.get(instance) == Some(&attempt),
                    "attempt {attempt} went on after {:?} had started",
                    open.get(instance)
                );
            }
            _ => {}
        }
    }
    ensure!(!starts.is_empty(), "no attempt ran");
    Ok(())
}
