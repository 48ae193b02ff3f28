//! The journal alone: three real nodes, of which the leader appends ([`super::journal_driver`]).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::gateway::prepare;
use super::journal_driver::{Done, FORMATION, Order, order_file, producer, put, result_file};
use super::sample::{Measured, Sample};
use super::servers::wait_until;

/// Producers on both sides.
pub(super) const PRODUCERS: usize = 4;

/// Measures each number of changes in flight, one after the other.
///
/// # Errors
/// The nodes don't start, or the leader could not append.
pub(super) async fn measure(
    directory: &Path,
    in_flight: &[usize],
    load: Duration,
) -> anyhow::Result<Vec<Sample>> {
    let orders = directory.join("orders");
    let mut cluster =
        prepare(directory, &["bench-journal-node".into(), "--orders".into(), orders.clone()])?;
    std::fs::create_dir_all(&orders)?;
    cluster.start().await?;
    for number in 0..PRODUCERS {
        let org = producer(number);
        let organization = json!({ "org_id": org.as_str(), "display_name": "Producer" });
        cluster.create("/orgs", &organization.to_string()).await?;
        let formation = json!({ "app_id": FORMATION });
        let path = format!("/orgs/{}/formations", org.as_str());
        cluster.create(&path, &formation.to_string()).await?;
    }
    let mut samples = Vec::new();
    for (number, in_flight) in in_flight.iter().enumerate() {
        let order = Order {
            number: number as u64,
            producers: PRODUCERS,
            in_flight: *in_flight,
            duration_ms: u64::try_from(load.as_millis()).context("the load is too long")?,
        };
        put(&order_file(&orders), &order)?;
        let result = result_file(&orders, order.number);
        let text = wait_until(&mut cluster.servers, "the leader to append", || async {
            std::fs::read(&result).ok()
        })
        .await?;
        let done: Done = serde_json::from_slice(&text).context("the result can't be read")?;
        if let Some(failure) = done.failure {
            bail!("the journal's load ended early: {failure}");
        }
        let latencies = done.latencies_us.iter().map(|us| Duration::from_micros((*us).into()));
        let measured = Measured {
            latencies: latencies.collect(),
            failed: 0,
            requests: done.latencies_us.len() as u64,
            seconds: done.seconds,
        };
        samples.push(measured.sample());
    }
    Ok(samples)
}
