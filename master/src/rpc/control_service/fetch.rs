//! Output that another master keeps: whoever led when it arrived has it. It is fetched once, and kept here from then on.

use std::time::Duration;

use millrace_common::id::AttemptId;
use millrace_proto::v1::{ReadKeptRequest, peer_service_client::PeerServiceClient};
use tonic::Status;

use super::Control;
use crate::{fleet::Member, rpc::status};

/// How long another master may take over one piece.
const PIECE_TIME_MAX: Duration = Duration::from_secs(5);

impl Control {
    /// Fetches what this master lacks of the output of an attempt that has ended with `end` bytes. Returns the masters
    /// that may have what is still missing and could not be asked.
    pub(super) async fn fetch_output(&self, attempt: AttemptId, end: u64) -> Result<Vec<String>, Status> {
        let failed = |error: std::io::Error| {
            tracing::error!(%attempt, %error, "output could not be read");
            Status::internal("the output could not be read; the master's log says why")
        };
        let mut unasked = Vec::new();
        for member in self.outlook.fleet.others() {
            let have = self.output.length(attempt).await.map_err(failed)?;
            if have >= end {
                return Ok(Vec::new());
            }
            if let Err(status) = self.fetch_from(&member, attempt, have, end).await {
                tracing::debug!(%attempt, master = member.record.name, error = %status, "output could not be fetched");
                unasked.push(format!("{} at {}", member.record.name, member.record.address));
            }
        }
        let have = self.output.length(attempt).await.map_err(failed)?;
        Ok(if have >= end { Vec::new() } else { unasked })
    }

    async fn fetch_from(
        &self,
        member: &Member,
        attempt: AttemptId,
        from: u64,
        end: u64,
    ) -> Result<(), Status> {
        let channel = self.standby.peers.channel(&member.record.address)?;
        let mut client = PeerServiceClient::new(channel);
        let mut offset = from;
        while offset < end {
            let request = ReadKeptRequest { attempt: Some(attempt.into()), offset };
            let asked = client.read_kept(self.standby.peers.request(request));
            let answer = tokio::time::timeout(PIECE_TIME_MAX, asked).await;
            let bytes = answer
                .map_err(|_| Status::deadline_exceeded("the other master is silent"))??
                .into_inner()
                .bytes;
            if bytes.is_empty() {
                return Ok(());
            }
            offset += bytes.len() as u64;
            let start = offset - bytes.len() as u64;
            let kept = self.output.append(attempt, start, bytes, offset >= end).await;
            kept.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        }
        Ok(())
    }
}

/// Says who may have what is missing.
pub(super) fn elsewhere(offset: u64, end: u64, unasked: &[String]) -> Status {
    let masters = unasked.join(", ");
    status::of(
        tonic::Code::Unavailable,
        format!(
            "the attempt wrote {end} bytes, of which {offset} are here; the rest may be on another master that cannot be \
             reached: {masters}"
        ),
    )
}
