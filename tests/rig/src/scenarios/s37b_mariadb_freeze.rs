//! A leader that stands still inside a transaction, on MariaDB.

use super::{s06_freeze_in_transaction, s37_mariadb::mariadb};
use crate::{capability::Need, scenario::Scenario};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S37b",
    title: "MariaDB: the leader is frozen inside a transaction",
    injected: "as S06",
    in_selection: false,
    needs: &[Need::MariaDb],
    stage: Some(mariadb),
    not_run: None,
    act: s06_freeze_in_transaction::act,
    judge: s06_freeze_in_transaction::judge,
};
