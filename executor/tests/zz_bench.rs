#![allow(warnings)]
mod support;
use support::*;
use std::time::Instant;
use millrace_proto::v1::{self, leader_message::Body as L, report::Body as R, executor_message::Body};
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bench() {
    let folder = tempfile::tempdir().unwrap();
    let mut leader = Leader::start().await;
    let slots: usize = std::env::var("SLOTS").ok().and_then(|s| s.parse().ok()).unwrap_or(16);
    let n: u32 = std::env::var("N").ok().and_then(|s| s.parse().ok()).unwrap_or(5000);
    let executor = Executor::start(folder.path(), leader.address, &format!("slots = {slots}"));
    let mut s = leader.session().await;
    println!("executor pid {}", executor.pid());
    let cmd: Vec<String> = std::env::var("CMD").unwrap_or("/bin/true".into()).split('|').map(|s| s.to_owned()).collect();
    let cmd: Vec<&str> = cmd.iter().map(|s| s.as_str()).collect();
    if let Ok(w) = std::env::var("WAIT") { tokio::time::sleep(std::time::Duration::from_secs(w.parse().unwrap())).await; }
    let t = Instant::now();
    let (mut sent, mut done, mut msgs, mut reps) = (0u32, 0u32, 0u32, 0u32);
    let first: Vec<_> = (0..slots as u32).map(|i| s.shell(attempt(i, 1), &cmd)).collect();
    sent = slots as u32;
    s.send(L::Starts(v1::Starts { starts: first })).await;
    while done < n {
        let m = s.raw().await;
        match m.body.unwrap() {
            Body::Heartbeat(h) => s.send(L::HeartbeatAnswer(v1::HeartbeatAnswer { number: h.number })).await,
            Body::Reports(r) => {
                msgs += 1;
                let mut acks = vec![]; let mut starts = vec![];
                for rep in r.reports { reps += 1; if let Some(R::Ended(e)) = rep.body { done += 1; acks.push(rep.attempt.unwrap()); if e.state != 10 { println!("{e:?}"); } if sent < n { starts.push(s.shell(attempt(sent, 1), &cmd)); sent += 1; } } }
                if !acks.is_empty() { s.send(L::Acks(v1::Acks { attempts: acks })).await; }
                if !starts.is_empty() { s.send(L::Starts(v1::Starts { starts })).await; }
            }
            _ => {}
        }
    }
    let e = t.elapsed().as_secs_f64();
    println!("BENCH slots={slots} n={n}: {:.0}/s msgs={msgs} reports={reps}", n as f64 / e);
    let st = std::fs::read_to_string(format!("/proc/{}/stat", executor.pid())).unwrap();
    let f: Vec<&str> = st.rsplit(')').next().unwrap().split_whitespace().collect();
    println!("executor cpu user {}0ms sys {}0ms", f[11], f[12]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", executor.pid())).unwrap();
    println!("{}", status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM")).collect::<Vec<_>>().join(" "));
}
