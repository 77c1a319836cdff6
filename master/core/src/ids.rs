//! Ids from a seed: the same history gives the same ids.
//!
//! Run ids of one leader grow in the order in which they are made, also within a millisecond and while the wall clock is
//! set back: runs that wait begin in the order of their ids.

use millrace_common::{
    id::RunId,
    term::Term,
    time::{Now, Timestamp},
};

/// Ids of one millisecond; the next one is taken in advance where there are more.
const PER_MILLISECOND_MAX: u16 = 1 << 12;

/// A source of run ids. Distinct leaders have distinct terms, hence distinct sequences.
#[derive(Debug)]
pub(crate) struct Ids {
    state: u64,
    millis: i64,
    count: u16,
}

impl Ids {
    pub(crate) fn new(term: Term, now: Now) -> Self {
        let wall = now.wall.as_micros().cast_unsigned();
        let uptime = u64::try_from(now.uptime.since_boot().as_nanos()).unwrap_or(u64::MAX);
        Self { state: term.0.rotate_left(32) ^ wall ^ uptime, millis: i64::MIN, count: 0 }
    }

    pub(crate) fn run(&mut self, at: Timestamp) -> RunId {
        let millis = at.as_micros().div_euclid(1_000);
        if millis > self.millis {
            (self.millis, self.count) = (millis, 0);
        } else if self.count + 1 == PER_MILLISECOND_MAX {
            (self.millis, self.count) = (self.millis + 1, 0);
        } else {
            self.count += 1;
        }
        let time = Timestamp::from_micros(self.millis.saturating_mul(1_000));
        // After the time, an id is compared by its first two bytes, of which the version leaves twelve bits.
        let [high, low] = self.count.to_be_bytes();
        let random = (u128::from(self.next()) << 16) | u128::from(u16::from_le_bytes([high, low]));
        RunId::new(time, random)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_in_the_order_in_which_they_are_made() {
        let mut ids = Ids::new(Term(1), Now::default());
        let mut last = ids.run(Timestamp::from_micros(5_000_000));
        for at in 0..10_000_i64 {
            // Many in a millisecond, then a clock that is set back.
            let next = ids.run(Timestamp::from_micros(5_000_000 + at / 5_000 - at / 9_000 * 3_000_000));
            assert!(last < next, "{last} is before {next}");
            last = next;
        }
    }

    #[test]
    fn distinct_terms_give_distinct_ids() {
        let at = Timestamp::from_micros(5_000_000);
        let of = |term| Ids::new(Term(term), Now::default()).run(at);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
