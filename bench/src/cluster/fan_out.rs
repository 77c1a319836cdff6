//! W1p: the fan-out of W1 on PostgreSQL, with two executors and followed by two standbys.

use super::{
    Plan,
    site::{Cluster, Shape},
};
use crate::{figure::Figure, work};

pub(super) async fn figures(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(plan, &Shape::usual(plan)).await?;
    let (_, mut client) = cluster.led().await?;
    let rates = work::rates(&mut client, work::Shape::True, plan.tasks, plan.rounds).await?;
    let figure = rates.figure("W1p", plan.tasks, plan.slots).bounds(0.40, 0.70);
    Ok(vec![figure])
}
