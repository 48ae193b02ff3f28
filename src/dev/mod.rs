//! `peat-gateway dev`: three nodes, a mesh node and a sink in one terminal.
