//! Waiting for a point in time.

use std::time::Duration;

/// Waits; not at all where nothing is left to wait.
///
/// Tokio's own timer is rounded up to its next millisecond, also for what is due already. Where something leaves at once
/// most of the time that would be the larger part of its way.
pub async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn what_is_due_does_not_wait() {
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(std::pin::pin!(sleep(Duration::ZERO)).as_mut().poll(context), Poll::Ready(()));
        assert_eq!(std::pin::pin!(sleep(Duration::from_nanos(1))).as_mut().poll(context), Poll::Pending);
    }
}
