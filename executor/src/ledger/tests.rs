//! Rules one by one; `interleavings` tries them in every order.

mod interleavings;
mod world;

use std::time::Duration;

use millrace_common::{state::AttemptState, term::Term};

use self::world::{World, attempt, ended, failed, start, succeeded};
use super::*;

#[test]
fn a_start_is_durable_before_it_is_spawned_and_reported() {
    let mut world = World::connected();
    world.leader(FromLeader::Starts(vec![start(attempt(0, 1))]));
    let batch = world.ledger.take_batch().unwrap();
    assert!(batch.must_be_durable());
    assert!(matches!(batch.records(), [Record::Intended { .. }]));
    let actions = world.ledger.release(world.now, batch);
    assert!(matches!(&actions[..], [Action::Spawn(_), Action::Report(_, Report::Accepted)]));
}

#[test]
fn a_repeated_start_is_answered_and_not_spawned_again() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.leader(FromLeader::Starts(vec![start(id)]));
    assert!(matches!(&world.commit()[..], [Action::Report(_, Report::Started { .. })]));
    world.exit(id, succeeded());
    world.commit();
    world.leader(FromLeader::Starts(vec![start(id)]));
    let actions = world.commit();
    assert!(
        matches!(&actions[..], [Action::Report(_, Report::Ended(end))] if end.state == AttemptState::Succeeded)
    );
    world.leader(FromLeader::Acks(vec![id]));
    world.leader(FromLeader::Starts(vec![start(id)]));
    assert_eq!(world.only_end().state, AttemptState::Rejected);
}

#[test]
fn a_start_for_another_spool_is_rejected_for_good() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    let foreign = Start { spool: SpoolId(uuid::Uuid::from_u128(99)), ..start(id) };
    world.leader(FromLeader::Starts(vec![foreign]));
    assert_eq!(world.only_end().state, AttemptState::Rejected);
    world.leader(FromLeader::Starts(vec![start(id)]));
    assert_eq!(world.only_end().state, AttemptState::Rejected);
}

#[test]
fn a_second_live_attempt_of_a_task_instance_is_rejected() {
    let mut world = World::connected();
    world.run(attempt(0, 1));
    world.leader(FromLeader::Starts(vec![start(attempt(0, 2))]));
    let end = world.only_end();
    assert_eq!(end.state, AttemptState::Rejected);
    assert!(end.reason.contains("attempt 1"), "{}", end.reason);
    world.exit(attempt(0, 1), succeeded());
    world.leader(FromLeader::Starts(vec![start(attempt(0, 3))]));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Spawn(_))));
}

#[test]
fn more_attempts_than_slots_are_rejected() {
    let mut world = World::connected();
    for index in 0..world::SLOTS {
        world.run(attempt(index, 1));
    }
    world.leader(FromLeader::Starts(vec![start(attempt(world::SLOTS, 1))]));
    assert!(world.only_end().reason.contains("slots"));
}

#[test]
fn nothing_starts_while_the_disk_is_full_or_the_program_stops() {
    let mut world = World::connected();
    world.input(Input::SpaceChecked { is_low: true });
    world.leader(FromLeader::Starts(vec![start(attempt(0, 1))]));
    let end = world.only_end();
    assert!(end.reason.contains("min_free"), "{}", end.reason);
    assert_eq!((end.state, end.rejection), (AttemptState::Rejected, Some(Rejection::SpaceLow)));
    world.input(Input::SpaceChecked { is_low: false });
    world.input(Input::StopRequested(OnStop::End));
    world.leader(FromLeader::Starts(vec![start(attempt(1, 1))]));
    let end = world.only_end();
    assert!(end.reason.contains("stopping"), "{}", end.reason);
    assert_eq!((end.state, end.rejection), (AttemptState::Rejected, Some(Rejection::Draining)));
}

#[test]
fn a_leader_is_told_that_space_is_low_and_results_are_kept_meanwhile() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    for is_low in [true, false] {
        world.input(Input::SpaceChecked { is_low });
        world.input(Input::HeartbeatDue);
        let told = |action: &Action| matches!(action, Action::Heartbeat(beat) if beat.is_space_low == is_low);
        assert!(world.commit().iter().any(told));
        world.input(Input::Dialled);
        let told =
            |action: &Action| matches!(action, Action::Greet(greeting) if greeting.is_space_low == is_low);
        assert!(world.commit().iter().any(told));
    }
    world.input(Input::SpaceChecked { is_low: true });
    world.exit(id, succeeded());
    assert_eq!(world.only_end().state, AttemptState::Succeeded);
}

#[test]
fn a_start_that_finds_no_space_is_rejected_and_others_wait_a_while() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.leader(FromLeader::Starts(vec![start(id)]));
    world.commit();
    let reason = "cannot prepare the attempt: no space".to_owned();
    world.exit(id, Ending::NotStarted { reason, rejection: Rejection::SpaceLow });
    let end = world.only_end();
    assert_eq!((end.state, end.rejection), (AttemptState::Rejected, Some(Rejection::SpaceLow)));
    assert!(!end.is_permanent && end.reason.contains("no space"), "{end:?}");
    // A quota is not seen where free space is looked at.
    world.input(Input::SpaceChecked { is_low: false });
    let unbound = |index| Start { orphan_timeout: None, ..start(attempt(index, 1)) };
    world.leader(FromLeader::Starts(vec![unbound(1)]));
    assert_eq!(world.only_end().rejection, Some(Rejection::SpaceLow));
    world.pass(NO_SPACE_PAUSE);
    world.leader(FromLeader::Starts(vec![unbound(2)]));
    assert!(world.commit().iter().any(is_spawn));
}

#[test]
fn a_start_that_this_machine_cannot_make_is_rejected_and_the_next_one_is_tried() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.leader(FromLeader::Starts(vec![start(id)]));
    world.commit();
    let reason = "cannot prepare the attempt: no more processes".to_owned();
    world.exit(id, Ending::NotStarted { reason, rejection: Rejection::CannotStart });
    let end = world.only_end();
    assert_eq!((end.state, end.rejection), (AttemptState::Rejected, Some(Rejection::CannotStart)));
    assert!(!end.is_permanent && end.reason.contains("no more processes"), "{end:?}");
    world.leader(FromLeader::Starts(vec![start(attempt(1, 1))]));
    assert!(world.commit().iter().any(is_spawn), "it is for the leader to judge the machine");
}

/// Greets, and returns whether the greeting attests a clean slate.
fn attests(world: &mut World) -> bool {
    world.input(Input::Disconnected);
    world.input(Input::Dialled);
    let greets = world.commit().into_iter().find_map(|action| match action {
        Action::Greet(greeting) => Some(greeting.is_clean),
        _ => None,
    });
    greets.expect("a greeting")
}

#[test]
fn a_new_spool_attests_until_a_leader_has_drawn_its_conclusions() {
    let mut world = World::new();
    assert!(!attests(&mut world), "processes of an older spool may be alive");
    world.input(Input::Purged { is_complete: false });
    assert!(!attests(&mut world), "some of them are");
    world.input(Input::Purged { is_complete: true });
    assert!(attests(&mut world));
    // No leader has welcomed it yet.
    world.crash();
    assert!(!attests(&mut world), "this life has not looked");
    world.input(Input::Purged { is_complete: true });
    assert!(attests(&mut world));
    // A welcome alone may be the last that the leader does; so may be a start.
    world.leader(FromLeader::Welcome(Vec::new()));
    world.run(attempt(0, 1));
    assert!(attests(&mut world));
    world.leader(FromLeader::Welcome(Vec::new()));
    world.commit();
    world.leader(FromLeader::HeartbeatAnswer(2));
    assert!(!attests(&mut world));
    world.crash();
    world.input(Input::Purged { is_complete: true });
    assert!(!attests(&mut world), "the note is durable");
    world.durable = world.ledger.snapshot();
    world.crash();
    world.input(Input::Purged { is_complete: true });
    assert!(!attests(&mut world), "also in a journal that was written anew");
}

#[test]
fn a_heartbeat_of_a_session_that_began_without_the_attestation_does_not_use_it_up() {
    let mut world = World::new();
    assert!(!attests(&mut world));
    world.leader(FromLeader::Welcome(Vec::new()));
    world.input(Input::Purged { is_complete: true });
    world.commit();
    world.leader(FromLeader::HeartbeatAnswer(1));
    assert!(attests(&mut world));
}

#[test]
fn a_deposed_leader_is_refused_across_a_restart() {
    let mut world = World::connected();
    world.leader_of(Term(9), FromLeader::HeartbeatAnswer(0)).unwrap();
    assert!(world.leader_of(Term(8), FromLeader::Starts(vec![start(attempt(0, 1))])).is_err());
    assert!(matches!(&world.commit()[..], []));
    world.crash();
    assert!(world.leader_of(Term(8), FromLeader::HeartbeatAnswer(0)).is_err());
    assert!(world.leader_of(Term(9), FromLeader::HeartbeatAnswer(0)).is_ok());
}

#[test]
fn what_the_process_did_before_the_kill_counts() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.leader(FromLeader::Kill { attempt: id, grace: Duration::ZERO, reason: "cancelled".into() });
    world.exit(id, succeeded());
    assert_eq!(world.only_end().state, AttemptState::Succeeded);
}

#[test]
fn a_killed_attempt_says_why() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    let grace = Duration::from_secs(3);
    world.leader(FromLeader::Kill { attempt: id, grace, reason: "cancelled".into() });
    assert!(world.commit().contains(&Action::Kill { attempt: id, grace, by: EndedBy::Request }));
    world.exit(id, ended());
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str()), (AttemptState::Killed, "cancelled"));
}

#[test]
fn a_kill_that_comes_before_its_start_keeps_it_from_running() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.leader(FromLeader::Kill { attempt: id, grace: Duration::ZERO, reason: "cancelled".into() });
    assert_eq!(world.only_end().state, AttemptState::Killed);
    world.leader(FromLeader::Starts(vec![start(id)]));
    assert_eq!(world.only_end().state, AttemptState::Killed);
}

#[test]
fn a_kill_during_the_start_follows_the_spawn() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.leader(FromLeader::Starts(vec![start(id)]));
    assert!(world.commit().iter().any(is_spawn));
    world.leader(FromLeader::Kill { attempt: id, grace: Duration::ZERO, reason: "cancelled".into() });
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.spawned(id);
    world.exit(id, Ending::Ended { exit_code: Some(0), by: None });
    assert_eq!(world.only_end().state, AttemptState::Killed);
}

fn is_spawn(action: &Action) -> bool {
    matches!(action, Action::Spawn(_))
}

#[test]
fn a_kill_before_the_spawn_is_released_keeps_the_process_from_starting() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.leader(FromLeader::Starts(vec![start(id)]));
    world.leader(FromLeader::Kill { attempt: id, grace: Duration::ZERO, reason: "cancelled".into() });
    let actions = world.commit();
    assert!(matches!(&actions[..], [Action::Report(_, Report::Accepted)]), "{actions:?}");
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str(), end.started_at), (AttemptState::Killed, "cancelled", None));
    assert_eq!(world.ledger.live_count(), 0);
}

#[test]
fn an_attempt_is_not_started_after_its_right_to_run_has_ended() {
    for looks_at_time in [false, true] {
        let mut world = World::connected();
        let id = attempt(0, 1);
        world.leader(FromLeader::Starts(vec![start(id)]));
        let batch = world.ledger.take_batch().unwrap();
        world.durable.extend_from_slice(batch.records());
        // The disk, or the whole machine, stands still.
        world.now.uptime = world.now.uptime + world::ORPHAN_TIMEOUT;
        if looks_at_time {
            world.ledger.handle_timeout(world.now);
        }
        let actions = world.ledger.release(world.now, batch);
        assert!(!actions.iter().any(is_spawn), "{actions:?}");
        let end = world.only_end();
        assert_eq!((end.state, end.reason.as_str()), (AttemptState::Lost, "no contact to a leader for 1m"));
        world.crash();
        world.commit();
        assert_eq!(world.greeting()[0].end, Some(end), "its end is durable");
    }
}

#[test]
fn an_attempt_is_started_until_the_last_moment_of_its_right_to_run() {
    let mut world = World::connected();
    world.leader(FromLeader::Starts(vec![start(attempt(0, 1))]));
    let batch = world.ledger.take_batch().unwrap();
    world.now.uptime = world.now.uptime + (world::ORPHAN_TIMEOUT - Duration::from_millis(1));
    assert!(world.ledger.release(world.now, batch).iter().any(is_spawn));
    let unbound = Start { orphan_timeout: None, ..start(attempt(1, 1)) };
    let mut world = World::connected();
    world.leader(FromLeader::Starts(vec![unbound]));
    let batch = world.ledger.take_batch().unwrap();
    world.now.uptime = world.now.uptime + world::ORPHAN_TIMEOUT * 100;
    assert!(world.ledger.release(world.now, batch).iter().any(is_spawn));
}

#[test]
fn a_leader_that_welcomes_gets_a_heartbeat_at_once() {
    let mut world = World::new();
    world.input(Input::Dialled);
    world.commit();
    world.pass(Duration::from_secs(3));
    world.leader(FromLeader::Welcome(Vec::new()));
    let is_heartbeat = |action: &&Action| matches!(action, Action::Heartbeat(_));
    assert_eq!(world.commit().iter().filter(is_heartbeat).count(), 1);
    world.run(attempt(0, 1));
    world.pass(Duration::from_secs(1));
    world.leader(FromLeader::HeartbeatAnswer(1));
    // The right to run is counted from this heartbeat and not from the greeting three seconds before.
    world.pass(world::ORPHAN_TIMEOUT - Duration::from_millis(1_001));
    assert!(!world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.pass(Duration::from_millis(1));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
}

#[test]
fn a_kill_of_what_has_ended_is_answered_with_its_end() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.exit(id, failed(3));
    let end = world.only_end();
    for _ in 0..2 {
        world.leader(FromLeader::Welcome(vec![(id, Verdict::Kill)]));
        assert_eq!(world.only_end(), end);
    }
    world.leader(FromLeader::Acks(vec![id]));
    world.commit();
    world.leader(FromLeader::Welcome(vec![(id, Verdict::Kill)]));
    assert!(!world.commit().iter().any(|action| matches!(action, Action::Report(..))));
}

#[test]
fn an_attempt_that_takes_too_long_is_timed_out() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    let limited = Start { timeout: Some(Duration::from_secs(5)), orphan_timeout: None, ..start(id) };
    world.leader(FromLeader::Starts(vec![limited]));
    world.commit();
    world.spawned(id);
    world.commit();
    world.pass(Duration::from_secs(4));
    assert!(world.commit().is_empty());
    world.pass(Duration::from_secs(1));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    assert_eq!(world.ledger.poll_timeout(), None);
    world.exit(id, ended());
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str()), (AttemptState::TimedOut, "took longer than 5s"));
}

#[test]
fn an_orphan_ends_itself_counted_from_the_last_heartbeat_that_was_answered_in_time() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.pass(Duration::from_secs(10));
    world.input(Input::HeartbeatDue);
    world.pass(world::ANSWER_TIMEOUT);
    world.leader(FromLeader::HeartbeatAnswer(2));
    world.commit();
    // It left at 10 s, so the right to run ends at 10 s and the orphan time.
    world.pass(world::ORPHAN_TIMEOUT - world::ANSWER_TIMEOUT - Duration::from_millis(1));
    assert!(!world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.pass(Duration::from_millis(1));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.exit(id, ended());
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str()), (AttemptState::Lost, "no contact to a leader for 1m"));
}

#[test]
fn an_answer_that_comes_too_late_does_not_count_and_the_session_is_closed() {
    let mut world = World::connected();
    world.run(attempt(0, 1));
    world.pass(Duration::from_secs(10));
    world.input(Input::HeartbeatDue);
    world.pass(world::ANSWER_TIMEOUT + Duration::from_millis(1));
    let actions = world.commit();
    assert_eq!(actions.iter().filter(|action| **action == Action::CloseSession).count(), 1);
    world.leader(FromLeader::HeartbeatAnswer(2));
    world.pass(world::ORPHAN_TIMEOUT - Duration::from_secs(10) - world::ANSWER_TIMEOUT);
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
}

#[test]
fn without_an_orphan_time_an_attempt_runs_on_without_contact() {
    let mut world = World::connected();
    let unbound = Start { orphan_timeout: None, ..start(attempt(0, 1)) };
    world.leader(FromLeader::Starts(vec![unbound]));
    world.commit();
    world.input(Input::Disconnected);
    world.pass(Duration::from_secs(1_000_000));
    assert!(world.commit().is_empty());
}

#[test]
fn after_a_restart_what_has_no_end_is_purged_and_lost() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.crash();
    let actions = world.commit();
    assert!(matches!(&actions[..], [Action::Purge(remains)] if remains[0].process.is_some()));
    assert_eq!(world.greeting()[0].state, AttemptState::Killing);
    world.exit(id, ended());
    let end = world.only_end();
    assert_eq!(end.state, AttemptState::Lost);
    assert!(end.reason.contains("restarted") && end.started_at.is_some(), "{end:?}");
}

#[test]
fn after_a_restart_what_its_supervisor_has_kept_goes_on_with_the_same_deadlines() {
    let mut world = World::connected();
    let (id, other) = (attempt(0, 1), attempt(1, 1));
    let limited = Start { timeout: Some(Duration::from_secs(5)), ..start(id) };
    world.leader(FromLeader::Starts(vec![limited, start(other)]));
    world.commit();
    world.spawned(id);
    world.spawned(other);
    world.commit();
    let kept = world.kept(&[id]);
    world.restart(&kept);
    assert!(
        matches!(&world.commit()[..], [Action::Purge(remains)] if remains.len() == 1 && remains[0].attempt == other)
    );
    assert_eq!(
        world.greeting().iter().map(|held| held.state).collect::<Vec<_>>(),
        [AttemptState::Running, AttemptState::Killing]
    );
    world.pass(Duration::from_secs(5));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { by: EndedBy::Timeout, .. })));
    world.exit(id, ended());
    assert_eq!(world.only_end().state, AttemptState::TimedOut);
}

#[test]
fn a_restart_gives_an_orphan_no_more_time() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    let kept = world.kept(&[id]);
    world.pass(world::ORPHAN_TIMEOUT - Duration::from_millis(1));
    world.restart(&kept);
    assert!(!world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.pass(Duration::from_millis(1));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { by: EndedBy::Orphan, .. })));
}

#[test]
fn what_the_supervisor_ended_on_its_own_says_why() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.exit(id, Ending::Ended { exit_code: None, by: Some(EndedBy::Orphan) });
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str()), (AttemptState::Lost, "no contact to a leader for 1m"));
}

#[test]
fn when_the_supervisor_is_gone_its_attempts_are_purged_and_lost_and_new_ones_run() {
    let mut world = World::connected();
    let (running, starting) = (attempt(0, 1), attempt(1, 1));
    world.run(running);
    world.leader(FromLeader::Starts(vec![start(starting)]));
    world.input(Input::SupervisorLost);
    assert!(!world.ledger.is_starting(starting), "what nobody supervises must not be spawned any more");
    let actions = world.commit();
    assert!(actions.iter().any(|action| matches!(action, Action::Purge(remains) if remains.len() == 2)));
    // What was not started yet has ended by that; what ran ends when it is gone.
    world.exit(running, ended());
    let ends = world.ends();
    assert_eq!(ends.len(), 2, "{ends:?}");
    for end in ends {
        assert_eq!(end.state, AttemptState::Lost);
        assert!(end.reason.contains("supervisor"), "{}", end.reason);
    }
    world.exit(starting, ended());
    assert!(world.ends().is_empty());
    world.leader(FromLeader::Starts(vec![start(attempt(2, 1))]));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Spawn(_))));
}

#[test]
fn a_supervisor_forgets_an_end_only_after_it_is_durable_and_whenever_it_tells_it_again() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.exit(id, succeeded());
    let batch = world.ledger.take_batch().unwrap();
    assert!(batch.must_be_durable());
    assert!(world.ledger.release(world.now, batch).contains(&Action::Settle(id)));
    world.exit(id, succeeded());
    assert_eq!(world.commit(), [Action::Settle(id)]);
}

#[test]
fn a_planned_stop_may_leave_attempts_to_their_supervisor() {
    let mut world = World::connected();
    world.run(attempt(0, 1));
    world.input(Input::StopRequested(OnStop::Keep));
    assert!(world.commit().is_empty());
    world.leader(FromLeader::Starts(vec![start(attempt(1, 1))]));
    assert!(world.only_end().reason.contains("stopping"));
}

#[test]
fn an_end_is_kept_until_it_is_acknowledged_also_across_a_restart() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.exit(id, failed(3));
    let end = world.only_end();
    world.crash();
    world.commit();
    assert_eq!(world.greeting()[0].end, Some(end));
    world.leader(FromLeader::Acks(vec![id]));
    world.commit();
    assert!(world.greeting().is_empty());
    world.crash();
    world.commit();
    assert!(world.greeting().is_empty());
}

#[test]
fn a_discarded_attempt_is_ended_and_forgotten_without_a_report_to_wait_for() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.leader(FromLeader::Welcome(vec![(id, Verdict::Discard)]));
    assert!(world.commit().iter().any(|action| matches!(action, Action::Kill { .. })));
    world.exit(id, ended());
    assert!(world.commit().contains(&Action::Discard(id)));
    assert_eq!((world.ledger.live_count(), world.ledger.unacknowledged_count()), (0, 0));
}

#[test]
fn stopping_ends_everything_with_a_shortened_grace() {
    let mut world = World::connected();
    let id = attempt(0, 1);
    world.run(id);
    world.input(Input::StopRequested(OnStop::End));
    assert!(world.commit().contains(&Action::Kill {
        attempt: id,
        grace: world::STOP_GRACE,
        by: EndedBy::Stop
    }));
    world.exit(id, ended());
    let end = world.only_end();
    assert_eq!((end.state, end.reason.as_str()), (AttemptState::Lost, "the executor was stopped"));
    assert!(end.is_planned, "nobody is at fault");
}

#[test]
fn a_spool_written_anew_tells_the_same() {
    let mut world = World::connected();
    world.run(attempt(0, 1));
    world.run(attempt(1, 1));
    world.exit(attempt(1, 1), failed(1));
    world.run(attempt(2, 1));
    world.exit(attempt(2, 1), succeeded());
    world.commit();
    world.leader(FromLeader::Acks(vec![attempt(2, 1)]));
    world.commit();
    let snapshot = world.ledger.snapshot();
    assert!(snapshot.len() < world.durable.len());
    let again = Ledger::restore(world::spool(), world::limits(), snapshot.clone(), &Kept::default());
    assert_eq!(again.snapshot(), snapshot);
    let replayed = Ledger::restore(world::spool(), world::limits(), world.durable.clone(), &Kept::default());
    assert_eq!(replayed.held(true), again.held(true));
}
