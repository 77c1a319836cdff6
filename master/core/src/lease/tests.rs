//! The table, and that authority never outlives the lease whatever the order of things and however the clocks err.

use proptest::prelude::*;

use super::*;

const BOUND: Duration = Duration::from_secs(6);

fn at(millis: u64) -> Uptime {
    Uptime::new(Duration::from_millis(millis))
}

fn left() -> Duration {
    Duration::from_secs(10)
}

#[test]
fn authority_ends_a_bound_after_the_send_of_the_last_answered_renewal() {
    let mut lease = Lease::granted(at(1_000), BOUND);
    assert_eq!(lease.check(at(6_999)), Ok(()));
    let renewal = lease.on_renewal_sent(at(3_000));
    lease.on_renewal_answered(at(4_400), renewal, left());
    assert_eq!(lease.until(), at(9_000), "the send counts, not the answer");
    assert_eq!(lease.check(at(8_999)), Ok(()));
    assert_eq!(lease.check(at(9_000)), Err(AuthorityEnd::Expired));
}

#[test]
fn an_answer_without_time_left_is_a_loss() {
    let mut lease = Lease::granted(at(0), BOUND);
    let renewal = lease.on_renewal_sent(at(1_000));
    lease.on_renewal_answered(at(1_001), renewal, Duration::ZERO);
    assert_eq!(lease.check(at(1_001)), Err(AuthorityEnd::Lost));
}

#[test]
fn an_end_is_final() {
    let mut lease = Lease::granted(at(0), BOUND);
    let late = lease.on_renewal_sent(at(5_000));
    let later = lease.on_renewal_sent(at(5_500));
    assert_eq!(lease.check(at(6_000)), Err(AuthorityEnd::Expired));
    lease.on_renewal_answered(at(6_001), late, left());
    lease.on_renewal_answered(at(6_002), later, Duration::ZERO);
    assert_eq!(lease.check(at(6_003)), Err(AuthorityEnd::Expired), "for the first reason");
}

#[test]
fn an_answer_that_comes_after_the_end_does_not_undo_it_though_nobody_had_looked() {
    let mut lease = Lease::granted(at(0), BOUND);
    let renewal = lease.on_renewal_sent(at(5_000));
    lease.on_renewal_answered(at(6_500), renewal, left());
    assert_eq!(lease.check(at(6_501)), Err(AuthorityEnd::Expired));
}

#[test]
fn an_older_answer_that_overtakes_nothing_does_not_shorten_authority() {
    let mut lease = Lease::granted(at(0), BOUND);
    let first = lease.on_renewal_sent(at(1_000));
    let second = lease.on_renewal_sent(at(2_000));
    lease.on_renewal_answered(at(2_100), second, left());
    lease.on_renewal_answered(at(2_200), first, left());
    assert_eq!(lease.until(), at(8_000));
}

#[test]
fn answers_that_nobody_awaits_count_for_nothing() {
    let mut lease = Lease::granted(at(0), BOUND);
    let failed = lease.on_renewal_sent(at(1_000));
    lease.on_renewal_failed(failed);
    lease.on_renewal_answered(at(1_100), failed, left());
    let answered = lease.on_renewal_sent(at(2_000));
    lease.on_renewal_answered(at(2_100), answered, left());
    lease.on_renewal_answered(at(2_200), answered, Duration::ZERO);
    assert_eq!((lease.until(), lease.check(at(2_300))), (at(8_000), Ok(())));
}

#[test]
fn the_number_of_awaited_answers_is_bounded() {
    let mut lease = Lease::granted(at(0), BOUND);
    let oldest = lease.on_renewal_sent(at(1));
    for millis in 0..AWAITED_MAX as u64 {
        lease.on_renewal_sent(at(100 + millis));
    }
    assert_eq!(lease.awaited.len(), AWAITED_MAX);
    lease.on_renewal_answered(at(500), oldest, left());
    assert_eq!(lease.until(), at(6_000));
}

/// What happens next, after a pause of the given length of real time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    /// The service takes in the renewal that has been on its way for the longest time.
    Renew,
    /// An answer arrives: the one with this position among those that are on their way.
    Answer(usize),
    /// An answer is lost.
    Drop(usize),
    Look,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let kind = prop_oneof![
        3 => Just(Step::Send),
        3 => Just(Step::Renew),
        3 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..4_usize).prop_map(Step::Drop),
        3 => Just(Step::Look),
    ];
    (0..3_000_u64, kind)
}

/// A lease as the election service has it, in real time; its own clock may be fast by one percent.
struct Service {
    ttl: f64,
    ends: f64,
}

impl Service {
    /// Renews where the lease is there; returns what is left, as the answer says.
    fn renew(&mut self, now: f64) -> Duration {
        if now >= self.ends {
            return Duration::ZERO;
        }
        self.ends = now + self.ttl;
        Duration::from_secs(10)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// With the bound that the settings allow, nobody who looks finds authority once the lease is gone: the service's
    /// clock runs fast and cuts off two election time-outs, ours runs slow, answers come late, out of order or never.
    #[test]
    fn authority_never_outlives_the_lease(
        steps in proptest::collection::vec(step(), 1..80),
        local_rate in 0.99_f64..1.01,
        service_rate in 0.99_f64..1.01,
    ) {
        let (ttl, election_timeout, start) = (10_000.0, 1_000.0, 50_000.0);
        let bound = Duration::from_millis(6_920);
        let local = |real: f64| Uptime::new(Duration::from_secs_f64(real * local_rate / 1_000.0));
        let mut service =
            Service { ttl: (ttl - 2.0 * election_timeout) / service_rate, ends: 0.0 };
        let mut real = start;
        service.ends = real + service.ttl;
        let mut lease = Lease::granted(local(real), bound);
        let (mut going, mut coming) = (Vec::new(), Vec::new());
        let mut has_ended = false;
        for (pause, step) in steps {
            real += pause as f64;
            match step {
                Step::Send => going.push(lease.on_renewal_sent(local(real))),
                Step::Renew if going.is_empty() => {}
                Step::Renew => coming.push((going.remove(0), service.renew(real))),
                Step::Answer(index) if index < coming.len() => {
                    let (renewal, left) = coming.remove(index);
                    lease.on_renewal_answered(local(real), renewal, left);
                }
                Step::Drop(index) if index < coming.len() => {
                    lease.on_renewal_failed(coming.remove(index).0);
                }
                Step::Answer(_) | Step::Drop(_) | Step::Look => {}
            }
            let is_held = lease.check(local(real)).is_ok();
            prop_assert!(!is_held || real < service.ends, "held at {real}, the lease ended at {}", service.ends);
            prop_assert!(!(is_held && has_ended), "authority came back at {real}");
            has_ended |= !is_held;
        }
    }
}
