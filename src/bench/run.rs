//! The order of things: rounds, sides, rows.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;

use super::cluster::Cluster;
use super::load::{self, Keys, Load};
use super::machine::{self, Machine};
use super::opponents::{Opponents, Program};
use super::report::{OURS, Report, Run};
use super::sample::{Cpu, Sample};
use super::suite::{self, Throughput};
use super::{
    Amounts, BenchArguments, etcd, failover, gateway, growth, handover, journal, pipeline, plots,
    table,
};

/// Runs the benchmarks, prints the table, writes what was asked for.
///
/// # Errors
/// A measurement failed; the others are done and written all the same.
pub async fn run(arguments: BenchArguments) -> anyhow::Result<()> {
    let (data, temporary) = match &arguments.data {
        Some(directory) => (directory.clone(), false),
        None => (std::env::temp_dir().join(format!("peat-bench-{}", std::process::id())), true),
    };
    std::fs::create_dir_all(&data)?;
    let opponents = if arguments.alone {
        Opponents::nobody()
    } else {
        Opponents::find(&arguments.etcd, arguments.nats_server.as_deref())
    };
    for (_, name) in &opponents.missing {
        eprintln!("{name} is not installed (.ci/bench installs it): its rows can't be met");
    }
    let report = Report::new(opponents.missing.clone());
    let amounts = arguments.amounts();
    let mut bench = Bench { arguments, amounts, opponents, data, report, failures: Vec::new() };
    for round in 0..bench.amounts.rounds {
        bench.round(round).await;
    }
    bench.large_state().await;
    if temporary {
        std::fs::remove_dir_all(&bench.data).ok();
    }
    bench.finish()
}

struct Bench {
    arguments: BenchArguments,
    amounts: Amounts,
    opponents: Opponents,
    data: PathBuf,
    report: Report,
    failures: Vec<String>,
}

impl Bench {
    /// Every side once. Who begins alternates, so that a machine that gets slower hurts all alike.
    async fn round(&mut self, round: usize) {
        let mut sides: Vec<Option<Program>> = vec![None];
        sides.extend(self.opponents.etcd.iter().cloned().map(Some));
        let first = round % sides.len();
        sides.rotate_left(first);
        if self.wants_cluster() {
            for side in sides {
                let name = side.as_ref().map_or(OURS, |program| program.name.as_str()).to_owned();
                self.say(round, &name);
                let measured = self.side(side.as_ref(), &name, round).await;
                self.note_failure(&name, measured);
            }
        }
        let wanted: Vec<_> =
            suite::JOURNAL.into_iter().filter(|row| self.arguments.wants(row.0)).collect();
        if !wanted.is_empty() {
            for turn in 0..2 {
                let ours = (round + turn).is_multiple_of(2);
                let measured = self.journal(ours, &wanted, round).await;
                self.note_failure("journal", measured);
            }
        }
    }

    fn wants_cluster(&self) -> bool {
        let others = [suite::FAILOVER, suite::HANDOVER, suite::MESH];
        self.throughput().next().is_some() || others.iter().any(|name| self.arguments.wants(name))
    }

    fn throughput(&self) -> impl Iterator<Item = &'static Throughput> + use<'_> {
        suite::THROUGHPUT.iter().filter(|row| self.arguments.wants(row.name))
    }

    /// All rows of one side's cluster.
    async fn side(
        &mut self,
        opponent: Option<&Program>,
        name: &str,
        round: usize,
    ) -> anyhow::Result<()> {
        let rows: Vec<_> =
            self.throughput().filter(|row| opponent.is_none() || !row.http1).collect();
        let registers = rows.iter().map(|row| row.clients).max().unwrap_or(0).max(64);
        let directory = self.data.join("cluster");
        let mut cluster = match opponent {
            Some(program) => etcd::start(&program.binary, &directory, registers).await?,
            None => gateway::start(&directory, registers).await?,
        };
        for row in rows {
            let sample = throughput(&mut cluster, row, self.amounts).await?;
            self.report.add(row.name, name, sample);
        }
        if opponent.is_none() && self.arguments.wants(suite::MESH) {
            let sample = pipeline::measure(&mut cluster, &directory, self.amounts.load).await?;
            self.report.add(suite::MESH, name, sample);
        }
        if opponent.is_none() && self.arguments.wants(suite::HANDOVER) {
            self.handover(&mut cluster, round).await?;
        }
        if self.arguments.wants(suite::FAILOVER) {
            for gap in failover::measure(&mut cluster, self.amounts.kills).await? {
                self.report.add(suite::FAILOVER, name, Sample::of(gap));
            }
        }
        Ok(())
    }

    async fn handover(&mut self, cluster: &mut Cluster, round: usize) -> anyhow::Result<()> {
        let result = handover::measure(cluster, self.amounts.changes).await?;
        for (place, gap) in result.gaps_ms.iter().enumerate() {
            let failed = if place == 0 { result.failed } else { 0 };
            self.report.add(suite::HANDOVER, OURS, Sample { failed, ..Sample::of(*gap) });
        }
        let slowest = result.slowest_ms.iter().copied().fold(0.0, f64::max);
        let note = format!(
            "round {}: {} requests, {} failed, the slowest took {slowest:.0} ms",
            round + 1,
            result.requests,
            result.failed
        );
        self.report.note(suite::HANDOVER, note);
        Ok(())
    }

    async fn journal(
        &mut self,
        ours: bool,
        rows: &[(&'static str, usize)],
        round: usize,
    ) -> anyhow::Result<()> {
        let in_flight: Vec<usize> = rows.iter().map(|row| row.1).collect();
        let directory = self.data.join("journal");
        let (name, samples) = if ours {
            self.say(round, "journal");
            (OURS.to_owned(), journal::measure(&directory, &in_flight, self.amounts.load).await?)
        } else {
            let Some(program) = self.opponents.nats.clone() else { return Ok(()) };
            self.say(round, &program.name);
            let samples = self.jetstream(&program, &directory, &in_flight).await?;
            (program.name, samples)
        };
        for (row, sample) in rows.iter().zip(samples) {
            self.report.add(row.0, &name, sample);
        }
        Ok(())
    }

    #[cfg(feature = "nats")]
    async fn jetstream(
        &self,
        program: &Program,
        directory: &Path,
        in_flight: &[usize],
    ) -> anyhow::Result<Vec<Sample>> {
        super::jetstream::measure(&program.binary, directory, in_flight, self.amounts.load).await
    }

    #[cfg(not(feature = "nats"))]
    async fn jetstream(&self, _: &Program, _: &Path, _: &[usize]) -> anyhow::Result<Vec<Sample>> {
        anyhow::bail!("this build has no NATS client: build it with the feature nats")
    }

    /// The rows about a large state.
    async fn large_state(&mut self) {
        let rows = [suite::RESTART, suite::RESTART_KILLED, suite::MEMORY, suite::GROWTH];
        if !rows.iter().any(|name| self.arguments.wants(name)) {
            return;
        }
        let Amounts { sizes, rounds, load, .. } = self.amounts;
        eprintln!("a state of {} records", sizes.many);
        let directory = self.data.join("large");
        let measured = growth::measure(&directory, sizes, rounds, load).await;
        match measured {
            Err(error) => self.note_failure("large state", Err(error)),
            Ok(growth) => self.add_growth(growth),
        }
    }

    fn add_growth(&mut self, growth: growth::Growth) {
        let sizes = self.amounts.sizes;
        for (row, values) in [
            (suite::RESTART, growth.ready_after_stop),
            (suite::RESTART_KILLED, growth.ready_after_kill),
            (suite::MEMORY, vec![growth.memory_mib]),
        ] {
            for value in values {
                self.report.add(row, OURS, Sample::of(value));
            }
        }
        for sample in growth.writes_many {
            self.report.add(suite::GROWTH, OURS, sample);
        }
        let smaller = format!("{} records", sizes.few);
        for sample in growth.writes_few {
            self.report.add(suite::GROWTH, &smaller, sample);
        }
        for note in growth.notes {
            self.report.note(suite::MEMORY, note);
        }
        if sizes.many < 1_000_000 {
            for row in [suite::RESTART, suite::RESTART_KILLED, suite::MEMORY, suite::GROWTH] {
                let note = format!("with {} records instead of 1 M", sizes.many);
                self.report.note(row, note);
            }
        }
    }

    fn say(&self, round: usize, what: &str) {
        eprintln!("round {} of {}: {what}", round + 1, self.amounts.rounds);
    }

    fn note_failure(&mut self, what: &str, measured: anyhow::Result<()>) {
        if let Err(error) = measured {
            eprintln!("{what} failed: {error:#}");
            self.failures.push(format!("{what}: {error:#}"));
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { arguments, amounts, opponents, report, failures, .. } = self;
        let run = Run {
            commit: arguments.commit.clone(),
            machine: Machine::this(),
            opponents: opponents.names(),
            rounds: amounts.rounds as u32,
            seconds: amounts.load.as_secs_f64(),
            quick: arguments.quick,
            rows: report.outcomes(&suite::ROWS, |name| arguments.wants(name)),
            failures: failures.clone(),
        };
        table::print(&run);
        if let Some(file) = &arguments.json {
            write_json(file, &run)?;
        }
        if let Some(directory) = &arguments.plots {
            plots::write(directory, &run)?;
        }
        if let Some(directory) = &arguments.docs {
            plots::write(directory, &run)?;
            write_json(&directory.join("core.json"), &run)?;
            table::write_readme(&directory.join("README.md"), &run)?;
        }
        if !failures.is_empty() {
            anyhow::bail!("{} measurements failed:\n{}", failures.len(), failures.join("\n"));
        }
        Ok(())
    }
}

fn write_json(file: &Path, run: &Run) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(run)? + "\n";
    std::fs::write(file, text).with_context(|| format!("could not write {}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}

/// One row of closed-loop clients, with what a request cost of the processors.
async fn throughput(
    cluster: &mut Cluster,
    row: &Throughput,
    amounts: Amounts,
) -> anyhow::Result<Sample> {
    let own = std::process::id();
    let before = (cluster.servers.cpu_seconds(), machine::cpu_seconds(own));
    let begin = Instant::now();
    let measured = load::run(Load {
        protocol: cluster.protocol,
        hosts: cluster.hosts.clone(),
        clients: row.clients,
        workload: row.workload,
        keys: Keys::Own,
        duration: amounts.load,
        http1: row.http1,
    })
    .await
    .with_context(|| row.name)?;
    let after = (cluster.servers.cpu_seconds(), machine::cpu_seconds(own));
    cluster.servers.check()?;
    let requests = measured.requests.max(1) as f64;
    let each = |seconds: f64| seconds * 1e6 / requests;
    let cpu = Cpu { servers_us: each(after.0 - before.0), load_us: each(after.1 - before.1) };
    let sample = Sample { cpu: Some(cpu), ..measured.sample() };
    eprintln!(
        "  {}: {:.0}/s, p99 {:.1} ms, {} failed; processor time of a request: servers {:.0} µs, load {:.1} µs; {:.1} s",
        row.name,
        sample.value,
        sample.latency(99.0).unwrap_or(f64::NAN),
        sample.failed,
        cpu.servers_us,
        cpu.load_us,
        begin.elapsed().as_secs_f64(),
    );
    Ok(sample)
}
