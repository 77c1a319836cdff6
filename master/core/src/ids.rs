//! Ids from a seed: the same history gives the same ids.

use millrace_common::{
    id::RunId,
    term::Term,
    time::{Now, Timestamp},
};

/// A source of run ids. Distinct leaders have distinct terms, hence distinct sequences.
#[derive(Debug)]
pub(crate) struct Ids {
    state: u64,
}

impl Ids {
    pub(crate) fn new(term: Term, now: Now) -> Self {
        let wall = now.wall.as_micros().cast_unsigned();
        Self { state: term.0.rotate_left(32) ^ wall ^ u64::try_from(now.uptime.since_boot().as_nanos()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn run(&mut self, at: Timestamp) -> RunId {
        let high = u128::from(self.next());
        RunId::new(at, (high << 64) | u128::from(self.next()))
    }

    /// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014), the mixing function of `SplitMix64`.
    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
