//! Every rule against an evaluator written from the words of the table, over every combination of up to four upstream
//! tasks, and the rows of the table by themselves.

use super::*;

use TaskState::{Active, Failed, Skipped, Success, UpstreamFailed};
use TriggerRule::{
    AllDone, AllDoneMinOneSuccess, AllFailed, AllSkipped, AllSuccess, Always, NoneFailed,
    NoneFailedMinOneSuccess, NoneSkipped, OneDone, OneFailed, OneSuccess,
};
use Verdict::{Become, Run, Wait};

const RULES: [TriggerRule; 12] = [
    AllSuccess,
    AllFailed,
    AllDone,
    AllDoneMinOneSuccess,
    AllSkipped,
    OneFailed,
    OneSuccess,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    Always,
];
/// A live state stands for all of them.
const STATES: [TaskState; 5] = [Active, Success, Failed, UpstreamFailed, Skipped];
const UPSTREAM_MAX: u32 = 4;

fn counted(upstream: &[TaskState]) -> (Counts, u32) {
    let mut counts = Counts::default();
    upstream.iter().for_each(|state| counts.add(*state));
    (counts, u32::try_from(upstream.len()).unwrap())
}

fn verdict(rule: TriggerRule, upstream: &[TaskState]) -> Verdict {
    let (counts, total) = counted(upstream);
    evaluate(rule, &counts, total)
}

/// Returns every sequence of `len` states.
fn sequences(len: u32, states: &[TaskState]) -> Vec<Vec<TaskState>> {
    (0..len).fold(vec![Vec::new()], |shorter, _| {
        let longer = |begin: &Vec<TaskState>| {
            states.iter().map(|state| [begin.as_slice(), &[*state]].concat()).collect::<Vec<_>>()
        };
        shorter.iter().flat_map(longer).collect()
    })
}

/// The table, word by word, over the upstream states themselves.
fn by_the_table(rule: TriggerRule, upstream: &[TaskState]) -> Verdict {
    let is_failed = |state: &TaskState| matches!(state, Failed | UpstreamFailed);
    let all = |wanted: TaskState| upstream.iter().all(|state| *state == wanted);
    let any = |wanted: TaskState| upstream.contains(&wanted);
    let any_failed = upstream.iter().any(is_failed);
    let all_failed = upstream.iter().all(is_failed);
    let all_ended = upstream.iter().all(|state| state.is_final());
    // What the rule wants, then what the task becomes where it cannot have that any more, in the order of the table.
    let (runs, becomes): (bool, &[(bool, TaskState)]) = match rule {
        _ if upstream.is_empty() => (true, &[]),
        AllSuccess => (all(Success), &[(any_failed, UpstreamFailed), (all_ended && any(Skipped), Skipped)]),
        AllFailed => (all_failed, &[(any(Success) || any(Skipped), Skipped)]),
        AllDone => (all_ended, &[]),
        AllDoneMinOneSuccess => (
            all_ended && any(Success) && !any(Skipped),
            &[(any(Skipped), Skipped), (all_ended && !any(Success), UpstreamFailed)],
        ),
        AllSkipped => (all(Skipped), &[(any(Success) || any_failed, Skipped)]),
        OneFailed => (any_failed, &[(all_ended, Skipped)]),
        OneSuccess => (any(Success), &[(all(Skipped), Skipped), (all_ended, UpstreamFailed)]),
        OneDone => (any(Success) || any(Failed), &[(all_ended, Skipped)]),
        NoneFailed => (all_ended && !any_failed, &[(any_failed, UpstreamFailed)]),
        NoneFailedMinOneSuccess => (
            all_ended && !any_failed && any(Success),
            &[(any_failed, UpstreamFailed), (all(Skipped), Skipped)],
        ),
        NoneSkipped => (all_ended && !any(Skipped), &[(any(Skipped), Skipped)]),
        Always => (true, &[]),
    };
    let becomes = becomes.iter().find(|(holds, _)| *holds).map(|(_, state)| Become(*state));
    if runs { Run } else { becomes.unwrap_or(Wait) }
}

#[test]
fn every_combination_is_as_the_table_says() {
    for rule in RULES {
        for upstream in (0..=UPSTREAM_MAX).flat_map(|len| sequences(len, &STATES)) {
            assert_eq!(
                verdict(rule, &upstream),
                by_the_table(rule, &upstream),
                "{rule:?} after {upstream:?}"
            );
        }
    }
}

#[test]
fn the_rows_of_the_table_hold() {
    let rows: &[(TriggerRule, &[TaskState], Verdict)] = &[
        (AllSuccess, &[Success, Success], Run),
        (AllSuccess, &[Success, Active], Wait),
        (AllSuccess, &[Active, Failed], Become(UpstreamFailed)),
        (AllSuccess, &[Skipped, UpstreamFailed], Become(UpstreamFailed)),
        (AllSuccess, &[Success, Skipped], Become(Skipped)),
        (AllFailed, &[Failed, UpstreamFailed], Run),
        (AllFailed, &[Active, Success], Become(Skipped)),
        (AllFailed, &[Active, Skipped], Become(Skipped)),
        (AllDone, &[Failed, Skipped, UpstreamFailed], Run),
        (AllDone, &[Failed, Active], Wait),
        (AllDoneMinOneSuccess, &[Success, Failed], Run),
        (AllDoneMinOneSuccess, &[Success, Skipped], Become(Skipped)),
        (AllDoneMinOneSuccess, &[Failed, UpstreamFailed], Become(UpstreamFailed)),
        (AllSkipped, &[Skipped, Skipped], Run),
        (AllSkipped, &[Active, Success], Become(Skipped)),
        (OneFailed, &[Active, Failed], Run),
        (OneFailed, &[Active, UpstreamFailed], Run),
        (OneFailed, &[Success, Skipped], Become(Skipped)),
        (OneSuccess, &[Active, Success], Run),
        (OneSuccess, &[Skipped, Skipped], Become(Skipped)),
        (OneSuccess, &[Skipped, Failed], Become(UpstreamFailed)),
        (OneDone, &[Active, Failed], Run),
        (OneDone, &[Active, Success], Run),
        (OneDone, &[Skipped, UpstreamFailed], Become(Skipped)),
        (NoneFailed, &[Success, Skipped], Run),
        (NoneFailed, &[Skipped, Skipped], Run),
        (NoneFailed, &[Active, Failed], Become(UpstreamFailed)),
        (NoneFailedMinOneSuccess, &[Success, Skipped], Run),
        (NoneFailedMinOneSuccess, &[Active, UpstreamFailed], Become(UpstreamFailed)),
        (NoneFailedMinOneSuccess, &[Skipped, Skipped], Become(Skipped)),
        (NoneSkipped, &[Success, Failed], Run),
        (NoneSkipped, &[Active, Skipped], Become(Skipped)),
        (Always, &[Active, Active], Run),
    ];
    for (rule, upstream, expected) in rows {
        assert_eq!(verdict(*rule, upstream), *expected, "{rule:?} after {upstream:?}");
    }
}

#[test]
fn roots_run_under_every_rule() {
    for rule in RULES {
        assert_eq!(verdict(rule, &[]), Run, "{rule:?}");
    }
}

#[test]
fn a_cancelled_upstream_counts_as_failed() {
    assert_eq!(verdict(AllSuccess, &[TaskState::Cancelled]), Become(UpstreamFailed));
    assert_eq!(verdict(OneFailed, &[TaskState::Cancelled, Active]), Run);
}

/// A rule is evaluated after each end; the first verdict stands. In whatever order tasks end, it must be the same one.
#[test]
fn the_order_of_ends_decides_nothing() {
    for rule in RULES {
        for ends in (1..=UPSTREAM_MAX).flat_map(|len| sequences(len, &STATES[1..])) {
            let first = |order: &[TaskState]| {
                let after = |ended: usize| {
                    let mut upstream = order.to_vec();
                    upstream[ended..].fill(Active);
                    verdict(rule, &upstream)
                };
                (0..=order.len()).map(after).find(|verdict| *verdict != Wait)
            };
            let mut sorted = ends.clone();
            sorted.sort_unstable();
            assert_eq!(first(&ends), first(&sorted), "{rule:?} after {ends:?}");
            assert!(first(&ends).is_some(), "{rule:?} never decides after {ends:?}");
        }
    }
}
