//! Executors: what they do, closing them to starts and opening them again, and attempts whose executor is gone.

mod view;

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use millrace_common::id::AttemptId;
use millrace_proto::v1;

use self::view::{Confirmed, Executors, Forgotten, Shown};
use crate::{
    cli::{Attempt, Executor, Global, Who},
    client::{self, Client, Patience},
    failure::Failure,
    output::{print, say},
};

/// Pause between two looks at an executor that is being drained: attempts take seconds or hours.
const LOOK: Duration = Duration::from_secs(1);

/// Does what is asked about executors.
pub(super) async fn run(global: &Global, what: Executor) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    match what {
        Executor::List => {
            let listed = client.list_executors(v1::ListExecutorsRequest {}).await?.into_inner();
            print(&Executors(listed), global.output)?;
        }
        Executor::Show { name } => {
            let shown = client.get_executor(v1::GetExecutorRequest { name }).await?.into_inner();
            print(&Shown(shown), global.output)?;
        }
        Executor::Drain { name, reason, wait, who } => {
            let request = v1::CloseExecutorRequest { name: name.clone(), reason, by: who.by };
            let drained = client.drain_executor(request).await?.into_inner();
            let shown = if wait { until_empty(&mut client, &name, drained).await? } else { drained };
            print(&Shown(shown), global.output)?;
        }
        Executor::Cordon { name, reason, who } => {
            let request = v1::CloseExecutorRequest { name, reason, by: who.by };
            let shown = client.cordon_executor(request).await?.into_inner();
            print(&Shown(shown), global.output)?;
        }
        Executor::Undrain { name, who } => {
            let request = v1::OpenExecutorRequest { name, by: who.by };
            let shown = client.undrain_executor(request).await?.into_inner();
            print(&Shown(shown), global.output)?;
        }
        Executor::Forget { name, who } => {
            let request = v1::ForgetExecutorRequest { name: name.clone(), by: who.by };
            client.forget_executor(request).await?;
            print(&Forgotten { name }, global.output)?;
        }
    }
    Ok(())
}

/// Follows a drained executor until nothing runs there, over restarts of masters.
async fn until_empty(
    client: &mut Client,
    name: &str,
    drained: v1::ExecutorResponse,
) -> Result<v1::ExecutorResponse, Failure> {
    let goes_on = || {
        let text = format!("nobody waits for executor {name} any more, and it stays drained");
        Failure::Interrupted(format!("{text}: `masterctl executor show {name}` shows what runs there"))
    };
    tokio::select! {
        biased;
        // Unhandled, it would leave a person who does not know whether the executor is drained.
        Ok(()) = tokio::signal::ctrl_c() => Err(goes_on()),
        ended = follow(client, name, drained) => ended,
    }
}

async fn follow(
    client: &mut Client,
    name: &str,
    mut shown: v1::ExecutorResponse,
) -> Result<v1::ExecutorResponse, Failure> {
    let mut patience = Patience::default();
    let mut told = None;
    loop {
        let left = shown.executor.as_ref().map_or(0, |executor| executor.slots_used);
        if told != Some(left) {
            say(&match left {
                0 => format!("nothing runs on executor {name} any more"),
                1 => format!("executor {name} is drained; 1 attempt is left"),
                left => format!("executor {name} is drained; {left} attempts are left"),
            });
            told = Some(left);
        }
        if left == 0 {
            return Ok(shown);
        }
        tokio::time::sleep(LOOK).await;
        match client.get_executor(v1::GetExecutorRequest { name: name.to_owned() }).await {
            Ok(answer) => {
                patience.answered();
                shown = answer.into_inner();
            }
            Err(status) => patience.wait(status.into(), say).await?,
        }
    }
}

/// Does what is asked about attempts.
pub(super) async fn attempt(global: &Global, what: Attempt) -> Result<(), Failure> {
    let Attempt::ConfirmLost { attempt, reason, yes, who: Who { by } } = what;
    if let Err(error) = attempt.parse::<AttemptId>() {
        return Err(anyhow!("{error}; `masterctl executor show NAME` prints those of an executor").into());
    }
    if !yes {
        confirm(&attempt)?;
    }
    let mut client = client::connect(global).await?;
    let request = v1::ConfirmAttemptLostRequest { attempt: attempt.clone(), reason, by };
    let state = client.confirm_attempt_lost(request).await?.into_inner().state;
    print(&Confirmed { attempt, state }, global.output)?;
    Ok(())
}

/// Asks the person at the terminal; without one nobody can be asked.
fn confirm(attempt: &str) -> Result<(), Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(anyhow!("there is no terminal to ask at: repeat it with --yes if you are certain").into());
    }
    let question = format!(
        "Nothing of attempt {attempt} runs any more, on any machine, and you know that?\nIf that is wrong, two attempts of one task run at once. Type yes: "
    );
    let mut errors = std::io::stderr();
    errors.write_all(question.as_bytes()).and_then(|()| errors.flush()).context("cannot ask")?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).context("cannot read the answer")?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    say("nothing was changed");
    Err(Failure::Unsuccessful)
}
