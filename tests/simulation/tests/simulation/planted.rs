//! Faults that are planted to see that they would be found: those of the core, and those of whoever drives it.

use millrace_core::testing::Mutation;

/// A planted fault. The numbers in brackets are those of the list of mutations that the project keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// In the scheduler, or at its edge.
    Core(Mutation),
    /// The fence is read with a plain SELECT (M4).
    FenceSelected,
    /// Authority is counted from the answer to a renewal, not from when it was sent (M5).
    LeaseAgeFromAnswer,
    /// Authority is read from a clock that stops in suspend (M6).
    ClockStopsInSuspend,
    /// An executor acts before its spool is synced (M9).
    SpoolNotSynced,
    /// A commit whose outcome is unknown is taken for failed, and done again (M12).
    UnknownIsFailure,
    /// A commit whose outcome is unknown is taken for done (M13).
    UnknownIsSuccess,
    /// A standby notices the loss of the leader by its watch alone (M16).
    WatchTrusted,
    /// A kill reaches the first process of an attempt and not what it forked (M17).
    OnlyLeadersKilled,
    /// The deadline of orphans is read from the wall clock (M18).
    WallClockForOrphans,
    /// A master campaigns although its database does not answer (M20).
    CampaignsBlind,
    /// A claim waits for a transaction that nobody will end.
    StuckTransactionLeft,
    /// A leader that has no authority any more sends what it has decided.
    AuthorityNotChecked,
    /// A session lasts although nothing comes over it any more.
    SilenceIgnored,
    /// A leader that has nothing to write does not look whether it could.
    IdleNotProbed,
}

impl Planted {
    /// Every one of them.
    pub(crate) fn all() -> Vec<Self> {
        let own = [
            Self::FenceSelected,
            Self::LeaseAgeFromAnswer,
            Self::ClockStopsInSuspend,
            Self::SpoolNotSynced,
            Self::UnknownIsFailure,
            Self::UnknownIsSuccess,
            Self::WatchTrusted,
            Self::OnlyLeadersKilled,
            Self::WallClockForOrphans,
            Self::CampaignsBlind,
            Self::StuckTransactionLeft,
            Self::AuthorityNotChecked,
            Self::SilenceIgnored,
            Self::IdleNotProbed,
        ];
        // No machine takes the name of another one here; the scenario `new_spool_other_machine` is about that.
        let of_core = Mutation::ALL.into_iter().filter(|mutation| *mutation != Mutation::MachineIgnored);
        of_core.map(Self::Core).chain(own).collect()
    }

    /// Returns what the scheduler is to do wrong.
    pub(crate) const fn mutation(self) -> Option<Mutation> {
        match self {
            Self::Core(mutation) => Some(mutation),
            _ => None,
        }
    }
}
