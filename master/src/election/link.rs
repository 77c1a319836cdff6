//! The link to the leader: a stream that ends with the leader's process, milliseconds after it and long before the lease.
//!
//! A stream that breaks proves nothing: a network does that, too. So the leader is dialled once more, and only a kernel
//! that says that nobody listens there, or another process that answers, counts as the end of the one that was linked. A
//! frozen leader, a machine without power and a cut network say nothing; then the lease has to run out. Only a process
//! that was linked before is declared dead: an address that never worked shows nothing about who is behind it.
//!
//! A false alarm costs a change of leader and nothing else, because every write carries its term.

use std::{io, time::Duration};

use millrace_proto::v1::{LinkRequest, LinkResponse, peer_service_client::PeerServiceClient};
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};

use super::Record;
use crate::peer::Peers;

/// How long the leader may take to answer a dial.
const DIAL_TIME_MAX: Duration = Duration::from_secs(2);
/// Pause between two tries to reach it.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after the link broke: a process that ends closes its connections one after the other.
const BROKEN_PAUSE: Duration = Duration::from_millis(20);

/// Waits until the process that `record` names has ended for certain.
pub(super) async fn ended(record: &Record, own_name: &str, peers: &Peers) {
    let mut is_known = false;
    loop {
        match linked(record, own_name, peers).await {
            Ok(Linked::Same(mut stream)) => {
                is_known = true;
                // Nothing is said on it; whatever ends it is looked into.
                while let Ok(Some(_)) = stream.message().await {}
                if is_gone(&record.address).await {
                    return;
                }
                tracing::debug!(
                    leader = record.name,
                    "the link to the leader broke, and somebody listens there"
                );
                tokio::time::sleep(BROKEN_PAUSE).await;
                continue;
            }
            Ok(Linked::Another) if is_known => return,
            Err(status)
                if is_known && status.code() == Code::Unavailable && is_gone(&record.address).await =>
            {
                return;
            }
            Ok(Linked::Another) | Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Linked {
    Same(Box<Streaming<LinkResponse>>),
    /// A process that started later listens there.
    Another,
}

async fn linked(record: &Record, own_name: &str, peers: &Peers) -> Result<Linked, Status> {
    let channel = peers.channel(&record.address)?;
    let request = peers.request(LinkRequest { name: own_name.to_owned() });
    let mut client = PeerServiceClient::new(channel);
    let opened = tokio::time::timeout(DIAL_TIME_MAX, async {
        let mut stream = client.link(request).await?.into_inner();
        let answer = stream.message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the link ended without an answer"))?;
        Ok::<_, Status>((answer, stream))
    });
    let late = |_| Status::deadline_exceeded("the leader does not answer");
    let (answer, stream) = opened.await.map_err(late)??;
    Ok(if answer.instance == record.instance { Linked::Same(Box::new(stream)) } else { Linked::Another })
}

/// Tells whether the kernel behind an address says that nobody listens there.
async fn is_gone(address: &str) -> bool {
    let place = address.split_once("://").map_or(address, |(_, place)| place);
    match tokio::time::timeout(DIAL_TIME_MAX, TcpStream::connect(place.trim_end_matches('/'))).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        assert!(!is_gone(&address).await);
        drop(listener);
        assert!(is_gone(&address).await);
        assert!(!is_gone("http://no.such.host.invalid:7070").await, "nothing is known about it");
    }
}
