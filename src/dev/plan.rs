//! What a second run must find again: ports and the number of nodes.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DevError;
use super::directory::write_private;

/// Most nodes of `dev`: more would only slow one machine.
pub(super) const NODES_MAX: u16 = 9;

/// The plan, as it stands in `dev.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Peer port (TCP) of each node.
    pub(super) peer_ports: Vec<u16>,
    /// Port (UDP) of the mesh node.
    pub(super) mesh_node_port: u16,
}

impl Plan {
    /// Reads the plan of an earlier run, or makes and stores a new one.
    ///
    /// # Errors
    /// The directory holds another number of nodes, or a port of the plan is taken.
    pub(super) fn load_or_make(directory: &Path, nodes: u16) -> Result<Self, DevError> {
        let path = directory.join("dev.json");
        let failed =
            |source| DevError::Directory { path: path.clone(), action: "read".into(), source };
        let plan = match std::fs::read(&path) {
            Ok(bytes) => {
                let plan: Self = serde_json::from_slice(&bytes)
                    .map_err(|error| failed(std::io::Error::new(ErrorKind::InvalidData, error)))?;
                plan.check(directory, nodes)?;
                plan
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let plan = Self::make(nodes)?;
                let json = serde_json::to_vec_pretty(&plan).expect("numbers are JSON");
                write_private(&path, &json)?;
                plan
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(plan)
    }

    fn make(nodes: u16) -> Result<Self, DevError> {
        let no_port = |source| DevError::Port { port: 0, source };
        // All are held until all are known, so that none is given out twice.
        let mut held = Vec::new();
        let mut peer_ports = Vec::new();
        for _ in 0..nodes {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_port)?;
            peer_ports.push(listener.local_addr().map_err(no_port)?.port());
            held.push(listener);
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_port)?;
        let mesh_node_port = socket.local_addr().map_err(no_port)?.port();
        Ok(Self { peer_ports, mesh_node_port })
    }

    fn check(&self, directory: &Path, nodes: u16) -> Result<(), DevError> {
        let held = self.peer_ports.len();
        if held != usize::from(nodes) {
            return Err(DevError::OtherNodes { path: directory.to_owned(), held, asked: nodes });
        }
        for port in &self.peer_ports {
            free_tcp(*port)?;
        }
        let address = (Ipv4Addr::LOCALHOST, self.mesh_node_port);
        UdpSocket::bind(address)
            .map(drop)
            .map_err(|source| DevError::Port { port: self.mesh_node_port, source })
    }
}

/// Returns the HTTP ports from `first` on, after making sure that each is free.
///
/// # Errors
/// Names the port that is taken.
pub(super) fn http_ports(first: u16, nodes: u16) -> Result<Vec<u16>, DevError> {
    let ports: Vec<u16> = (0..nodes).map_while(|i| first.checked_add(i)).collect();
    if ports.len() != usize::from(nodes) || first == 0 {
        return Err(DevError::Usage(format!(
            "--port {first} leaves no room for {nodes} ports: choose 1 to {}",
            u16::MAX - nodes + 1
        )));
    }
    ports.iter().try_for_each(|port| free_tcp(*port))?;
    Ok(ports)
}

fn free_tcp(port: u16) -> Result<(), DevError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .map_err(|source| DevError::Port { port, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_finds_the_same_ports_and_refuses_another_size() {
        let root = tempfile::tempdir().unwrap();
        let plan = Plan::load_or_make(root.path(), 3).unwrap();
        assert_eq!(plan.peer_ports.len(), 3);
        assert_eq!(Plan::load_or_make(root.path(), 3).unwrap(), plan);
        let error = Plan::load_or_make(root.path(), 5).unwrap_err();
        assert!(error.to_string().contains("--nodes 3"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = http_ports(port, 1).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(http_ports(65_534, 3).is_err());
        assert!(http_ports(0, 3).is_err());
    }

    #[test]
    fn a_damaged_plan_is_refused_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("dev.json"), "{\"peer_ports\": 1}").unwrap();
        assert!(Plan::load_or_make(root.path(), 3).is_err());
        assert_eq!(std::fs::read(root.path().join("dev.json")).unwrap().len(), 17);
    }
}
