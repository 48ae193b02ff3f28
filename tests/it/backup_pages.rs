//! The pages on backing up, restoring and recovering: their commands are run as they are written.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::api::Api;
use crate::support::cli::{Ended, finish, text};
use crate::support::cluster::{ADMIN_TOKEN, Cluster, KEK, command};
use crate::support::{self, ports, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// The blocks of a page that are marked as commands of a shell.
fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations").join(page);
    let page = std::fs::read_to_string(path).expect("the page");
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == "```sh" => open = Some(String::new()),
            None => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// Where an operator sits: a folder, the binary in the path, the cluster's URL, token and key.
struct Desk {
    folder: PathBuf,
    url: String,
    bind: String,
}

impl Desk {
    fn shell(&self, commands: &str) -> Command {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_peat-gateway"));
        let path = std::env::var("PATH").unwrap_or_default();
        // The shell gets the same clean environment as every other command of these tests.
        let clean = command();
        let mut shell = Command::new("sh");
        for (name, _) in clean.get_envs() {
            shell.env_remove(name);
        }
        shell
            .args(["-euc", commands])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", text(binary.parent().expect("its folder"))))
            .env("PEAT_URL", &self.url)
            .env("PEAT_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("PEAT_KEK", KEK)
            .env("PEAT_GATEWAY_BIND", &self.bind)
            .env("PEAT_MESH_BIND", "127.0.0.1:0");
        shell
    }

    fn run(&self, commands: &str) -> Ended {
        let ended = finish(self.shell(commands));
        assert_eq!(ended.code, 0, "{commands}\n{ended:?}");
        ended
    }

    /// Runs all blocks of a page; one that starts a node goes on beside the next ones.
    async fn run_page(&self, page: &str) -> Vec<Running> {
        let mut running = Vec::new();
        for block in blocks(page) {
            if !block.contains("peat-gateway serve") {
                self.run(&block);
                continue;
            }
            // `exec`: the process that is ended later is the node, not the shell around it.
            let mut node = self.shell(&format!("exec {block}"));
            node.stdout(Stdio::null()).stderr(Stdio::null());
            running.push(Running(node.spawn().expect("the node starts")));
            let api = Api::new(vec![self.url.clone()]);
            wait_for("the node of the page", LIMIT, || async {
                let answer = api.get("/readyz").await?;
                if answer.status == 200 { Ok(()) } else { Err(answer.body) }
            })
            .await;
        }
        running
    }
}

/// A node that a page started; ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_pages_on_backing_up_restoring_and_recovering_run_as_written() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::start(3).await;
        let any = cluster.any();
        any.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        cluster.wait_equal().await;
        let bind = format!("127.0.0.1:{}", ports::free());
        let at = |url: String| Desk { folder: folder.path().to_owned(), url, bind: bind.clone() };
        let shown = at(cluster.nodes[1].url()).run(&blocks("back-up.md").concat());
        assert!(shown.stdout.contains("organization "), "{shown:?}");

        // The old cluster is gone; the pages begin with what is left of it.
        cluster.nodes.iter_mut().for_each(|node| {
            node.stop();
        });
        let new = format!("http://{bind}");
        let ids = |orgs: serde_json::Value| orgs[0]["org_id"].clone();
        let api = Api::new(vec![new.clone()]);
        for page in ["restore.md", "recover.md"] {
            if page == "recover.md" {
                let left = cluster.nodes[2].data.clone();
                std::fs::rename(left, folder.path().join("data")).expect("the surviving disk");
            }
            let running = at(new.clone()).run_page(page).await;
            assert_eq!(running.len(), 1, "{page} starts one node");
            let orgs = wait_for("organisations", LIMIT, || api.get_json("/orgs")).await;
            assert_eq!(ids(orgs), "acme", "{page}");
        }
    });
}
