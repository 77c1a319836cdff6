//! The bearer token: no call gets past this without it.

use std::sync::Arc;

use millrace_common::secret::Secret;
use subtle::ConstantTimeEq;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

/// Refuses calls that do not carry the token.
#[derive(Debug, Clone)]
pub(crate) struct BearerAuth {
    expected: Arc<Secret>,
}

impl BearerAuth {
    pub(crate) fn new(token: &Secret) -> Self {
        Self { expected: Arc::new(Secret::new(format!("Bearer {}", token.expose()))) }
    }
}

impl Interceptor for BearerAuth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("authorization").map(MetadataValue::as_bytes);
        let is_equal = given.is_some_and(|given| given.ct_eq(self.expected.expose().as_bytes()).into());
        if is_equal {
            Ok(request)
        } else {
            Err(Status::unauthenticated(
                "the call carries no valid token; give masterctl the file with --token-file",
            ))
        }
    }
}
