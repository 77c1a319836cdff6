//! Who gets in.

use std::os::unix::fs::PermissionsExt as _;

use millrace_proto::v1::{
    self, control_service_client::ControlServiceClient, executor_service_client::ExecutorServiceClient,
};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{Master, Token, data_dir};

/// Calls a method of every service, one that streams and one that does not where it has both.
async fn codes(master: &Master, token: &Token) -> Vec<(&'static str, Code)> {
    let channel = master.channel().await;
    let mut control = ControlServiceClient::with_interceptor(channel.clone(), token.clone());
    let mut executors = ExecutorServiceClient::with_interceptor(channel.clone(), token.clone());
    let mut health = HealthClient::with_interceptor(channel.clone(), token.clone());
    let mut reflection = ServerReflectionClient::with_interceptor(channel, token.clone());
    let code = |result: Result<(), tonic::Status>| result.err().map_or(Code::Ok, |status| status.code());
    let pending = tokio_stream::pending::<v1::ExecutorMessage>;
    let run = v1::GetRunRequest { run: String::new() };
    vec![
        ("cluster", code(control.get_cluster(v1::GetClusterRequest {}).await.map(drop))),
        ("apply", code(control.apply_workflow(v1::ApplyWorkflowRequest::default()).await.map(drop))),
        ("watch", code(control.watch_run(run).await.map(drop))),
        ("session", code(executors.session(pending()).await.map(drop))),
        ("output", code(executors.ship_output(tokio_stream::pending::<v1::OutputChunk>()).await.map(drop))),
        ("health", code(health.check(HealthCheckRequest::default()).await.map(drop))),
        ("health watch", code(health.watch(HealthCheckRequest::default()).await.map(drop))),
        (
            "reflection",
            code(
                reflection
                    .server_reflection_info(tokio_stream::pending::<ServerReflectionRequest>())
                    .await
                    .map(drop),
            ),
        ),
    ]
}

#[tokio::test]
async fn without_the_token_every_service_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let right = master.token.0.clone();
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        right.trim_start_matches("Bearer ").to_owned(),
        right.replace("Bearer", "Basic"),
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        right.to_uppercase(),
    ];
    for token in wrong {
        for (service, code) in codes(&master, &Token(token.clone())).await {
            assert_eq!(code, Code::Unauthenticated, "{service} with {token:?}");
        }
    }
    assert!(master.control().await.get_cluster(v1::GetClusterRequest {}).await.is_ok());
}

#[tokio::test]
async fn with_the_token_health_and_reflection_answer() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut health = HealthClient::with_interceptor(master.channel().await, master.token.clone());
    for service in ["", "millrace.scheduler.v1.ControlService", "millrace.scheduler.v1.ExecutorService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut reflection =
        ServerReflectionClient::with_interceptor(master.channel().await, master.token.clone());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("a list: {answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "grpc.health.v1.Health",
        "millrace.scheduler.v1.ControlService",
        "millrace.scheduler.v1.ExecutorService",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[tokio::test]
async fn what_the_master_writes_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let _master = Master::start(folder.path()).await;
    let mode = |name: &str| {
        let path = data_dir(folder.path()).join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("token"), mode("output")), (0o700, 0o600, 0o700));
}
