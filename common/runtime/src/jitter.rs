//! Pauses with a random part, so that many who wait do not come back in step.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// Returns a random pause from half of `pause` up to all of it.
#[must_use]
pub fn from_half(pause: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().build_hasher().finish() % 1_000).unwrap_or(0);
    pause / 2 + pause * random / 2_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_between_half_and_all() {
        let pauses: Vec<Duration> = (0..100).map(|_| from_half(Duration::from_secs(10))).collect();
        assert!(pauses.iter().all(|pause| (5_000..10_000).contains(&pause.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
