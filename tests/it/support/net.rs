//! A network of its own for each scenario: a namespace per node, joined by a bridge, and one for the client.
//!
//! ```text
//!   node-1 ──┐                      ┌── client   the test itself runs here
//!   node-2 ──┼── bridge in the hub ─┘
//!   node-3 ──┘     nftables drops frames by (from, to): cuts in one direction or both
//! ```
//!
//! Nothing of the machine's own network is touched, and nothing leads out of the namespaces. A test
//! runs itself again inside of the client's namespace, so that every socket it opens is in there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tells the test that it runs inside, and in which network: name and number of nodes.
const INSIDE: &str = "PEAT_TEST_NETWORK";
/// Names of our namespaces begin so; the process that made them follows.
const PREFIX: &str = "peat-test-";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// The client's number: its address ends with it.
const CLIENT: usize = 100;

/// The namespaces of one scenario.
pub struct Network {
    name: String,
    nodes: usize,
    /// Whether this value made the namespaces, and so removes them.
    owned: bool,
}

/// Runs a scenario in a network of its own, or says why it can't. `test` is the test's path as the test
/// harness knows it.
pub fn scenario<F>(test: &str, nodes: usize, body: impl FnOnce(Network) -> F)
where
    F: Future<Output = ()>,
{
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    if let Some(network) = Network::inside() {
        super::runtime().block_on(body(network));
        return;
    }
    if let Err(reason) = available() {
        super::not_run(test, &reason);
        return;
    }
    let _alone = super::alone();
    let network = Network::make(nodes).expect("namespaces can be made");
    let program = std::env::current_exe().expect("the path of this program");
    let inside = network.enter(CLIENT);
    let status = Command::new(&inside[0])
        .args(&inside[1..])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, format!("{}:{nodes}", network.name))
        .stdin(Stdio::null())
        .status()
        .expect("the test runs inside");
    assert!(status.success(), "{test} failed inside of its network: {status}");
}

/// Whether this machine lets us make networks; the reason where it doesn't.
fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".into());
    }
    for program in ["ip", "nft", "nsenter"] {
        let found = Command::new(program).arg("--version").output();
        found.map_err(|error| format!("{program} can't be run: {error}"))?;
    }
    sweep();
    Network::make(1).map(drop)
}

/// Removes what tests left that were killed themselves.
fn sweep() {
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            run("ip", &["netns", "del", &name], "").ok();
        }
    }
}

impl Network {
    fn inside() -> Option<Self> {
        let told = std::env::var(INSIDE).ok()?;
        let (name, nodes) = told.split_once(':')?;
        Some(Self { name: name.to_owned(), nodes: nodes.parse().ok()?, owned: false })
    }

    fn make(nodes: usize) -> Result<Self, String> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let network = Self { name, nodes, owned: true };
        let hub = network.namespace("hub");
        run("ip", &["netns", "add", &hub], "")?;
        let inside =
            |namespace: &str, batch: &str| run("ip", &["-netns", namespace, "-batch", "-"], batch);
        inside(&hub, "link add bridge type bridge\nlink set bridge up\n")?;
        network.nft(
            "table bridge cuts {\n\
             set pairs { type ipv4_addr . ipv4_addr; }\n\
             chain forward { type filter hook forward priority 0; policy accept;\n\
             ip saddr . ip daddr @pairs drop; }\n\
             }\n",
        )?;
        for member in (1..=nodes).chain([CLIENT]) {
            let namespace = network.namespace(&member.to_string());
            let address = Self::address(member);
            run("ip", &["netns", "add", &namespace], "")?;
            inside(
                &hub,
                &format!(
                    "link add to-{member} type veth peer name eth0 netns {namespace}\n\
                     link set to-{member} master bridge\nlink set to-{member} up\n"
                ),
            )?;
            inside(
                &namespace,
                &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"),
            )?;
        }
        Ok(network)
    }

    fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.name)
    }

    /// How many nodes it has room for.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The address of a node, from 1.
    pub fn address(node: usize) -> String {
        format!("10.77.0.{node}")
    }

    /// The address of the client: of this test.
    pub fn client() -> String {
        Self::address(CLIENT)
    }

    /// What a command must begin with to run at a node.
    pub fn enter(&self, node: usize) -> Vec<String> {
        let file = PathBuf::from(NAMESPACES).join(self.namespace(&node.to_string()));
        vec!["nsenter".to_owned(), format!("--net={}", file.display()), "--".to_owned()]
    }

    /// Drops everything that goes from one node to the other, for each pair, from now on.
    pub fn cut(&self, pairs: &[(usize, usize)]) {
        let elements: Vec<_> = pairs
            .iter()
            .map(|(from, to)| format!("{} . {}", Self::address(*from), Self::address(*to)))
            .collect();
        println!("cut {pairs:?}");
        let rule = format!("add element bridge cuts pairs {{ {} }}\n", elements.join(", "));
        self.nft(&rule).expect("links can be cut");
    }

    /// Drops everything between two groups of nodes, both ways.
    pub fn part(&self, left: &[usize], right: &[usize]) {
        let pairs: Vec<_> = left
            .iter()
            .flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)]))
            .collect();
        self.cut(&pairs);
    }

    /// Drops everything between a node and the nodes that aren't it; the client still reaches it.
    pub fn isolate(&self, node: usize) {
        let others: Vec<_> = (1..=self.nodes).filter(|other| *other != node).collect();
        self.part(&[node], &others);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        println!("heal");
        self.nft("flush set bridge cuts pairs\n").expect("links can be healed");
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        let hub = format!("--net={NAMESPACES}/{}", self.namespace("hub"));
        run("nsenter", &[&hub, "--", "nft", "-f", "-"], rules)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let members = (1..=self.nodes).chain([CLIENT]).map(|member| member.to_string());
        for member in members.chain(["hub".to_owned()]) {
            run("ip", &["netns", "del", &self.namespace(&member)], "").ok();
        }
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{program} {arguments:?}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(&String::from_utf8_lossy(&output.stderr).trim()))
    }
}
