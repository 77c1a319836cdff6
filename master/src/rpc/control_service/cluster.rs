//! The cluster itself: who leads it, and by whose word.

use millrace_proto::v1;
use millrace_runtime::Chain;
use tonic::{Code, Status};

use super::{Control, Elective};
use crate::{rpc::status, standby};

impl Control {
    fn elective(&self) -> Result<&Elective, Status> {
        let alone = "this master is alone: without `etcd` in its settings there is no election";
        self.elective.as_ref().ok_or_else(|| status::not_now(alone))
    }

    /// Lets the leadership of this process end. The answer is on its way before that has happened.
    pub(super) fn make_way(&self) -> Result<v1::HandOverResponse, Status> {
        let elective = self.elective()?;
        let seat = self.standby.roles.seat().ok_or_else(standby::no_leader)?;
        tracing::info!(term = seat.term.0, "asked to hand over");
        elective.hand_over.cancel();
        Ok(v1::HandOverResponse { from: self.holder.clone(), term: seat.term.0 })
    }

    /// Makes the etcd that this master is connected to the one that numbers terms.
    pub(super) async fn adopt(&self) -> Result<v1::AdoptEtcdResponse, Status> {
        let adoption = self.elective()?.adoption.clone();
        // By itself: a caller that goes away does not leave a statement half-way.
        let adopted = self.tasks.spawn(async move { adoption.adopt().await }).await;
        let adopted = adopted.map_err(|_| status::stopping())?.map_err(|error| {
            tracing::error!(error = %Chain(&error), "etcd could not be adopted");
            status::of(Code::Unavailable, Chain(&error).to_string())
        })?;
        Ok(v1::AdoptEtcdResponse {
            etcd: adopted.etcd,
            generation: adopted.generation,
            changed: adopted.is_another,
        })
    }
}
