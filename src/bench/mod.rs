//! The load generator behind `peat-gateway bench`.
