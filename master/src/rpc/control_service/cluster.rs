//! The cluster itself: who leads it, and by whose word.

use std::time::Duration;

use millrace_common::time::Timestamp;
use millrace_core::{Answer, ExecutorSummary, Request as Ask, WorkCount};
use millrace_proto::v1;
use millrace_runtime::Chain;
use tonic::{Code, Status, metadata::MetadataMap};

use super::{Control, Elective};
use crate::{
    database::{Condition, Seen},
    election::{Etcd, MemberState, Record},
    fleet::{Fleet, Member},
    role::Role,
    rpc::status,
    standby,
};

/// What a master knows of all that it depends on.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    pub(crate) me: Record,
    pub(crate) condition: Condition,
    pub(crate) fleet: Fleet,
    /// Absent where this master is alone.
    pub(crate) etcd: Option<Etcd>,
}

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

impl Control {
    /// Describes the cluster as the leader does or, where that cannot be asked, as this master sees it: this is the one
    /// question that is never left without an answer.
    pub(super) async fn describe(&self, metadata: &MetadataMap) -> v1::GetClusterResponse {
        let problem = match self.standby.relay(metadata) {
            Ok(None) => String::new(),
            Ok(Some(mut relay)) => {
                let request = relay.request(v1::GetClusterRequest {});
                let answer = relay.client.get_cluster(request).await;
                match relay.answered(answer) {
                    Ok(answer) => return answer.into_inner(),
                    // Nothing was to be done.
                    Err(status) => status.message().trim_end_matches(standby::OUTCOME_UNKNOWN).to_owned(),
                }
            }
            Err(status) => status.message().to_owned(),
        };
        self.describe_from_here(problem).await
    }

    async fn describe_from_here(&self, problem: String) -> v1::GetClusterResponse {
        let Outlook { me, condition, fleet, etcd } = &self.outlook;
        let members = async {
            match etcd {
                Some(etcd) => Some(v1::EtcdView {
                    members: etcd.members().await.into_iter().map(etcd_member).collect(),
                }),
                None => None,
            }
        };
        let (etcd, counted) = tokio::join!(members, self.counted());
        let (term, holder) = match self.standby.roles.now() {
            Role::Leading(seat) => (seat.term.0, me.name.clone()),
            Role::Following(leader) => (0, leader.name),
            Role::Leaderless => (0, String::new()),
        };
        let seen = condition.now();
        let problem = match (&counted, &seen.problem) {
            (_, Some((_, database))) => joined(&problem, database),
            (Err(status), None) if problem.is_empty() => status.message().to_owned(),
            (Ok(_) | Err(_), None) => problem,
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mut view = v1::GetClusterResponse {
            term,
            version,
            store: self.store.engine().to_owned(),
            problem,
            answered_by: me.name.clone(),
            masters: masters(me, fleet.members(), &holder, &seen),
            holder,
            etcd,
            database: Some(self.database(seen)),
            ..v1::GetClusterResponse::default()
        };
        if let Ok((work, executors)) = counted {
            count(&mut view, work, &executors);
        }
        view
    }

    /// Asks the leader of this process what there is to do, and who does it.
    async fn counted(&self) -> Result<(WorkCount, Vec<ExecutorSummary>), Status> {
        let (work, executors) = tokio::join!(self.ask(Ask::CountWork), self.ask(Ask::ListExecutors));
        match (work?, executors?) {
            (Answer::Work(work), Answer::Executors(executors)) => Ok((work, executors)),
            (other, _) => Err(super::not_answered(&other)),
        }
    }

    fn database(&self, seen: Seen) -> v1::DatabaseView {
        let at = |one: Option<(Timestamp, Duration)>| one.map(|(at, _)| at.as_micros());
        let took = |one: Option<(Timestamp, Duration)>| {
            one.map(|(_, took)| i64::try_from(took.as_micros()).unwrap_or(i64::MAX))
        };
        let (since, problem) = seen.problem.unzip();
        v1::DatabaseView {
            engine: self.store.engine().to_owned(),
            name: self.store.name().to_owned(),
            problem: problem.unwrap_or_default(),
            problem_since: since.map(Timestamp::as_micros),
            committed_at: at(seen.committed),
            commit_us: took(seen.committed),
            answered_at: at(seen.answered),
            answer_us: took(seen.answered),
        }
    }
}

fn joined(one: &str, other: &str) -> String {
    if one.is_empty() { other.to_owned() } else { format!("{one}; {other}") }
}

fn count(view: &mut v1::GetClusterResponse, work: WorkCount, executors: &[ExecutorSummary]) {
    let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let connected = || executors.iter().filter(|executor| executor.is_connected);
    view.is_from_leader = true;
    view.runs_live = count(work.runs);
    view.attempts_live = count(work.attempts);
    view.ready = count(work.ready);
    view.schedules_paused_since = work.schedules_paused_since.map(Timestamp::as_micros);
    view.executors_known = count(executors.len());
    view.executors_connected = count(connected().count());
    view.slots = connected().map(|executor| executor.slots).fold(0, u32::saturating_add);
    view.slots_used = connected().map(|executor| executor.slots_used).fold(0, u32::saturating_add);
}

/// Returns all masters; this one as it is now, whatever it last said of itself.
fn masters(me: &Record, members: Vec<Member>, holder: &str, seen: &Seen) -> Vec<v1::MasterView> {
    let state = |name: &str, is_present: bool| match () {
        () if name == holder => "leader",
        () if is_present => "standby",
        () => "away",
    };
    let mut views: Vec<v1::MasterView> = members
        .into_iter()
        .filter(|member| member.record.name != me.name)
        .map(|member| v1::MasterView {
            state: state(&member.record.name, member.is_present).to_owned(),
            name: member.record.name,
            address: member.record.address,
            version: member.version,
            database_problem: member.database_problem.unwrap_or_default(),
        })
        .collect();
    views.push(v1::MasterView {
        name: me.name.clone(),
        address: me.address.clone(),
        state: state(&me.name, true).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database_problem: seen.problem.as_ref().map_or_else(String::new, |(_, problem)| problem.clone()),
    });
    views.sort_by(|one, other| one.name.cmp(&other.name));
    views
}

fn etcd_member(member: MemberState) -> v1::EtcdMemberView {
    let (version, problem) = match member.version {
        Ok(version) => (version, String::new()),
        Err(problem) => (String::new(), problem),
    };
    v1::EtcdMemberView { address: member.address, version, problem }
}
