//! Clients of all nodes that read and write registers, and keep a history of what they saw.
//!
//! A register is an organisation's display name. Several clients write the same one through different
//! nodes, each value once ever, and read it through others; [`history::check`] then says whether one
//! order explains it all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::api::{Answer, Api};
use super::cluster::Cluster;
use super::history::{self, Action, Operation, Totals};
use super::random::Random;
use super::wait_for;

/// Registers.
const REGISTERS: usize = 4;
/// Clients of each node. A client keeps to its node, so that a node that can't answer holds up only its
/// own; the registers are everybody's.
const CLIENTS_PER_NODE: usize = 3;
/// One of this many operations is a write.
const READS_PER_WRITE: u64 = 2;
/// Between two operations of a client, so that a stall is the cluster's and not ours.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a client waits before it calls an outcome unknown.
const PATIENCE: Duration = Duration::from_secs(5);
/// What registers hold at first.
const INITIAL: &str = "0";

/// Clients at work.
pub struct Registers {
    shared: Arc<Shared>,
    apis: Vec<Api>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    start: Instant,
    running: AtomicBool,
    acknowledged: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

impl Registers {
    /// Creates the registers and starts the clients.
    pub async fn start(cluster: &Cluster, random: &mut Random) -> Self {
        let any = cluster.any();
        for register in 0..REGISTERS {
            let org = json!({ "org_id": name(register), "display_name": INITIAL });
            any.create("/orgs", &org).await;
        }
        let apis: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| Api::with_timeout(vec![node.url()], PATIENCE))
            .collect();
        let shared = Arc::new(Shared {
            start: Instant::now(),
            running: AtomicBool::new(true),
            acknowledged: AtomicU64::new(0),
            operations: Mutex::default(),
        });
        let clients = (0..CLIENTS_PER_NODE * apis.len())
            .map(|client| {
                let api = apis[client % apis.len()].clone();
                tokio::spawn(work(client, api, shared.clone(), Random::seeded(random.next())))
            })
            .collect();
        Self { shared, apis, clients }
    }

    /// Acknowledged writes so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until `more` writes were acknowledged from now on.
    pub async fn progress(&self, more: u64, limit: Duration) {
        let goal = self.acknowledged() + more;
        wait_for("acknowledged writes", limit, || async {
            match self.acknowledged() {
                now if now >= goal => Ok(()),
                now => Err(format!("{now} of {goal}")),
            }
        })
        .await;
    }

    /// Ends the clients, reads every register through every node, and checks the whole history.
    pub async fn finish(self) -> Totals {
        self.finish_without(&[]).await
    }

    /// The same without the nodes at these positions, from 0, which are gone.
    pub async fn finish_without(self, gone: &[usize]) -> Totals {
        self.shared.running.store(false, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("a client doesn't panic");
        }
        for register in 0..REGISTERS {
            let there = self.apis.iter().enumerate().filter(|(node, _)| !gone.contains(node));
            for (_, api) in there {
                wait_for("a last read", Duration::from_secs(30), || async {
                    match read(api, register, &self.shared).await {
                        true => Ok(()),
                        false => Err("no answer".to_owned()),
                    }
                })
                .await;
            }
        }
        let operations = self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let totals =
            history::check(&operations, INITIAL).expect("one order explains what was seen");
        println!("history: {totals:?}");
        assert!(totals.written > 0 && totals.read > 0, "{totals:?}");
        totals
    }
}

fn name(register: usize) -> String {
    format!("register-{register}")
}

async fn work(client: usize, api: Api, shared: Arc<Shared>, mut random: Random) {
    let mut count = 0;
    while shared.running.load(Ordering::SeqCst) {
        let register = random.between(0, REGISTERS as u64) as usize;
        let went_well = if random.between(0, READS_PER_WRITE + 1) == 0 {
            count += 1;
            write(&api, register, format!("{client}.{count}"), &shared).await
        } else {
            read(&api, register, &shared).await
        };
        tokio::time::sleep(if went_well { PAUSE } else { 10 * PAUSE }).await;
    }
}

async fn write(api: &Api, register: usize, value: String, shared: &Shared) -> bool {
    let began = shared.start.elapsed();
    let body = json!({ "display_name": value });
    let path = format!("/orgs/{}", name(register));
    let action = match api.send(Method::PATCH, &path, Some(&body), &[]).await {
        Ok(answer) if answer.status == 200 => Action::Wrote(value, index(&answer)),
        Ok(answer) if answer.status == 504 || answer.status == 500 => Action::Unknown(value),
        Ok(_) => Action::Refused(value),
        Err(_) => Action::Unknown(value),
    };
    let done = matches!(action, Action::Wrote(..));
    shared.note(began, register, action);
    shared.acknowledged.fetch_add(u64::from(done), Ordering::SeqCst);
    done
}

/// A read that fails tells nothing and isn't noted.
async fn read(api: &Api, register: usize, shared: &Shared) -> bool {
    let began = shared.start.elapsed();
    match api.get(&format!("/orgs/{}", name(register))).await {
        Ok(answer) if answer.status == 200 => {
            let value = answer.json()["display_name"].as_str().expect("a display name").to_owned();
            shared.note(began, register, Action::Read(value, index(&answer)));
            true
        }
        _ => false,
    }
}

fn index(answer: &Answer) -> u64 {
    let text = answer.header("x-peat-index").expect("every answer names its index");
    text.parse().expect("a log index")
}

impl Shared {
    fn note(&self, began: Duration, register: usize, action: Action) {
        let (began, ended) = (began.as_nanos(), self.start.elapsed().as_nanos());
        let operation = Operation { began, ended, register, action };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }
}
