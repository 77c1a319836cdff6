//! The scenarios. A further one is a file in `scenarios/` with a constant `SCENARIO`, and its name in this list.

mod fenced;
mod outage;

use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every scenario, in the order in which they run.
        pub(crate) const ALL: &[&Scenario] = &[$(&$name::SCENARIO),*];
    };
}

scenarios! {
    s00_control,
    s01_kill_leader,
    s02_kill_unacknowledged,
    s03_kill_unstarted,
    s04_kill_all_masters,
    s05_freeze_leader,
    s06_freeze_in_transaction,
    s07_freeze_before_start,
    s08_leader_without_etcd,
    s09_leader_without_database,
    s10_one_way_to_etcd,
    s11_executor_cut_briefly,
    s12_executor_isolated,
    s13_executor_without_etcd,
    s14_isolated_and_frozen,
    s17_kill_executor,
    s18_kill_supervisor,
    s19_kill_all_but_grandchildren,
    s20_kill_executor_at_any_point,
    s21_wipe_spool,
    s24_kill_etcd_members,
    s25_etcd_without_quorum,
    s26_etcd_away_past_orphan_time,
    s27_freeze_etcd_leader,
    s28_compaction,
    s29_wipe_etcd,
    s31_restart_database,
    s32_kill_database,
    s33_freeze_database,
    s34_unknown_commits,
    s35_database_disk_full,
    s37_mariadb,
    s37b_mariadb_freeze,
    s38_single_process,
    s39_executor_disk_full,
    s40_master_disk_full,
    s41_wall_clock,
    s44_slow_lossy_link,
    s45_crowd,
    s46_poison,
    s47_broken_fork,
    s48_cancel_storm,
    s49_hostile_task,
    s51_rolling_restart,
    s52_stop_executor,
    s53_random_mix,
    w1_kills_in_a_large_run,
    w2_replace_executor_during_a_job,
}
