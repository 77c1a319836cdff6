//! One suite, the same for every database. A database joins it with a starter function in `place` and a line below.
//!
//! Databases on a server are tested against real ones, which the cases start themselves, and have cases of their own for
//! what can happen between two machines.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/alike.rs"]
mod alike;
#[path = "conformance/changes.rs"]
mod changes;
#[path = "conformance/fence.rs"]
mod fence;
#[path = "conformance/history.rs"]
mod history;
#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/outage.rs"]
mod outage;
#[path = "conformance/place.rs"]
mod place;
#[path = "conformance/process.rs"]
mod process;
#[path = "conformance/proxy.rs"]
mod proxy;
#[path = "conformance/queries.rs"]
mod queries;
#[path = "conformance/retention.rs"]
mod retention;
#[path = "conformance/sample.rs"]
mod sample;
#[path = "conformance/server.rs"]
mod server;
#[path = "conformance/settings.rs"]
mod settings;
#[path = "conformance/snapshot.rs"]
mod snapshot;
#[path = "conformance/tls.rs"]
mod tls;
#[path = "conformance/upgrade.rs"]
mod upgrade;

/// Lists the cases once for each database.
macro_rules! suite {
    ($($database:ident: $starter:path;)+) => { $(
        mod $database {
            suite!(@cases $starter;
                changes::every_kind_of_change_is_read_back,
                changes::moves_of_one_batch_become_one_row,
                changes::a_batch_of_many_rows_is_one_transaction,
                changes::a_guard_that_does_not_hold_stops_the_whole_batch,
                changes::versions_grow_and_cursors_never_fall,
                changes::final_states_never_change,
                changes::an_instance_has_one_live_attempt,
                changes::an_ended_attempt_makes_room_in_the_same_batch,
                changes::an_interval_is_fired_once,
                changes::an_idempotency_key_makes_one_run,
                changes::decisions_of_a_core_are_committed_and_restored,
                changes::executors_stay_closed_until_they_are_opened_or_forgotten,
                changes::a_persons_word_is_kept_as_proof,
                fence::claims_have_rising_terms,
                fence::an_old_leader_cannot_write_after_a_claim,
                fence::a_batch_of_another_term_is_refused,
                fence::a_commit_that_was_lost_is_sent_again,
                fence::a_commit_whose_answer_was_lost_is_not_sent_again,
                fence::a_commit_that_cannot_be_settled_is_unknown,
                fence::a_leader_deposed_during_commit_learns_it,
                fence::a_lost_answer_to_a_claim_is_settled,
                fence::a_dropped_commit_closes_the_writer,
                fence::transactions_are_numbered_without_gaps,
                history::claims_are_noted_with_what_they_followed,
                history::what_was_there_in_a_range_is_found,
                history::what_was_deleted_leaves_a_mark,
                queries::lists_are_paged_by_key,
                queries::runs_are_filtered_by_workflow_and_state,
                queries::a_run_is_shown_with_its_tasks_and_attempts,
                queries::an_ended_run_can_be_retried,
                queries::workflows_are_shown_with_their_versions_and_last_run,
                queries::skipped_intervals_are_shown_newest_first,
                retention::old_runs_are_deleted_with_all_that_is_theirs,
                retention::the_newest_runs_of_each_workflow_are_kept,
                retention::deletion_is_bounded_and_goes_on,
                settings::settings_are_kept_with_what_was_refused_and_done,
                settings::a_setting_that_is_not_what_the_leader_thinks_stops_the_batch,
                settings::the_history_of_settings_is_bounded,
                snapshot::opening_again_changes_nothing,
                snapshot::older_versions_are_loaded_while_runs_are_pinned_to_them,
                snapshot::a_definition_that_cannot_be_read_quarantines_its_runs,
                snapshot::a_row_that_cannot_be_read_quarantines_its_run,
                snapshot::a_schema_of_a_newer_program_is_refused,
                upgrade::a_populated_database_is_upgraded,
                upgrade::a_database_of_a_newer_schema_keeps_its_rows_and_is_refused,
                snapshot::live_attempts_of_an_older_schema_are_loaded_without_their_machine,
            );

            #[test]
            fn any_sequence_of_batches_is_loaded_back() {
                super::model::any_sequence_of_batches_is_loaded_back($starter);
            }
        }
    )+ };
    (@cases $starter:path; $($module:ident::$case:ident,)+) => { $(
        #[tokio::test]
        async fn $case() {
            let Some(place) = $starter() else { return };
            super::$module::$case(place).await;
        }
    )+ };
}

/// Lists the cases that need a server, once for each.
macro_rules! servers {
    ($($database:ident: $starter:path;)+) => { $(
        mod $database {
            suite!(@cases $starter;
                outage::a_deposed_leader_writes_nothing_between_its_statements,
                outage::a_plain_look_at_the_term_would_let_a_deposed_leader_write,
                outage::a_transaction_that_holds_the_fence_is_ended_by_the_claim,
                outage::a_commit_that_never_arrived_is_sent_again,
                outage::a_commit_whose_answer_was_cut_off_is_not_sent_again,
                outage::a_server_that_falls_silent_is_given_up,
                outage::a_deadlock_is_tried_again,
                outage::a_killed_server_loses_nothing_that_was_acknowledged,
                outage::a_batch_survives_an_outage,
                outage::a_batch_survives_a_full_disk,
                outage::another_system_in_the_place_of_the_first_ends_the_term,
                server::settings_that_can_lose_commits_are_named,
                server::a_server_that_is_not_there_is_named,
                server::text_of_any_kind_is_kept_as_it_is,
                server::no_statement_reads_a_whole_table,
            );
        }
    )+ };
}

suite! {
    sqlite: crate::place::sqlite;
    postgres: crate::place::postgres;
    mariadb: crate::place::mariadb;
}

servers! {
    postgres_server: crate::place::postgres;
    mariadb_server: crate::place::mariadb;
}

#[test]
fn the_same_batches_give_the_same_rows_on_all_databases() {
    alike::the_same_batches_give_the_same_rows();
}
